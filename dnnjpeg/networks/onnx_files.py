"""The files beside an ONNX file that hold its large tensors. onnxruntime does not name them.

An ONNX file is a message of protocol buffers, see https://protobuf.dev/programming-guides/encoding and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Iterator

# By kind of message: the numbers of the fields that lead to files, and the kind of message in each.
_LEADING = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_SIZES = {1: 8, 5: 4}  # bytes of numbers of fixed size, by wire type


def external_files(data: bytes) -> list[str]:
    """The paths of the files with tensors of a model, relative to its folder, sorted.

    data: the content of the ONNX file. If it is something else, there are no such files.
    """
    try:
        return sorted(set(_locations(memoryview(data), "model")))
    except (IndexError, KeyError, ValueError, RecursionError):
        return []


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    if kind == "entry":
        entry = {number: bytes(part).decode() for number, part in _parts(message)}
        if entry.get(1) == "location":
            yield entry.get(2, "")
        return
    for number, part in _parts(message):
        if number in _LEADING[kind]:
            yield from _locations(part, _LEADING[kind][number])


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and the content of each field that is a text or a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            _, at = _varint(message, at)
        elif tag & 7 == 2:
            size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            at += _SIZES[tag & 7]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of one to ten bytes, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number has more than ten bytes")
