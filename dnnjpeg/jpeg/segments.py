"""Read the segments of a JPEG file: frames, quantization tables, Huffman tables (T.81 Annex B)."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.standard import Steps

KINDS = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC9: "extended sequential, arithmetic",
    0xCA: "progressive, arithmetic",
    0xCB: "lossless, arithmetic",
}
_NAMES = (
    {kind: f"SOF{kind - 0xC0}" for kind in KINDS}
    | {0xC4: "DHT", 0xCC: "DAC", 0xD9: "EOI", 0xDA: "SOS", 0xDB: "DQT", 0xDC: "DNL", 0xDD: "DRI", 0xFE: "COM"}
    | {0xE0 + i: f"APP{i}" for i in range(16)}
)
# What is no marker (stuffing, TEM, restarts, fill) is passed over. Inside a scan only the markers that may
# follow one count: any other is damage, and stays with the scan, as it does in a decoder.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff(?:[\xc4\xcc\xd9-\xdb\xe0-\xef\xfe]|[\xdc\xdd]\x00\x04)")
_PART_OF_SCAN = {b"", b"\0", *(bytes([one]) for one in range(0xD0, 0xD8))}  # behind an ff
# The place of each coefficient of natural order in a segment, which is in zigzag order.
_RANK = sorted(range(64), key=NATURAL.__getitem__)


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins like a JPEG file. The first three bytes are enough."""
    return data.startswith(b"\xff\xd8\xff")


@dataclass(frozen=True)
class Component:
    """A component of the frame: its id, sampling factors 1..4 and the number of its quantization table."""

    id: int
    horizontal: int
    vertical: int
    table: int


def find_mark(data: bytes, start: int) -> int:
    """Find the next ff that is not followed by stuffing or by a restart. Returns its position, or -1.

    To go from one ff to the next is faster than a search with a pattern.
    """
    at = data.find(b"\xff", start)
    while at >= 0 and data[at + 1 : at + 2] in _PART_OF_SCAN:
        at = data.find(b"\xff", at + 1)
    return at


def read_segments(
    data: bytes, find: Callable[[bytes, int], int] = find_mark
) -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, size in bytes, content) of each segment in order. Fill bytes count for the next marker.

    find: does what `find_mark` does.
    """
    if not data.startswith(b"\xff\xd8"):
        raise ValueError(f"not a JPEG: it starts with {data[:4].hex(' ') or 'nothing'}, expected ff d8")
    yield "SOI", 2, b""
    start = 2
    while start < len(data):
        # nearly always a segment follows at once, and needs no search
        where, begin = start, start + 2
        marker = data[start + 1] if data[start] == 255 and begin <= len(data) else 0
        if marker not in _NAMES:
            match = _MARKER.search(data, start)
            if not match:
                yield "stray", len(data) - start, b""
                return
            where, begin = match.span()
            if where > start and (stray := len(data[start:where].rstrip(b"\xff"))):
                yield "stray", stray, b""
                start += stray
            marker = data[begin - 1]
            if marker not in _NAMES:
                raise ValueError(f"unexpected marker ff{marker:02x} at byte {where}")
        name = _NAMES[marker]
        if name == "EOI":
            yield name, begin - start, b""
            if begin < len(data):
                yield "trailing", len(data) - begin, b""
            return
        length = int.from_bytes(data[begin : begin + 2])
        end = begin + length
        if length < 2 or end > len(data):
            left = len(data) - begin
            raise ValueError(f"{name} at byte {where} says that it has {length} bytes, {left} are left")
        yield name, end - start, data[begin + 2 : end]
        start = end
        if name == "SOS":
            end = _scan_end(data, start, find)
            while end > start and data[end - 1] == 255:
                end -= 1
            yield "scan", end - start, b""
            start = end


def _scan_end(data: bytes, start: int, find: Callable[[bytes, int], int]) -> int:
    """The position of the marker after the scan, or of the end of the data."""
    at = find(data, start)
    while at >= 0 and not _MARKER_AFTER_SCAN.match(data, at):
        at = find(data, at + 1)
    return at if at >= 0 else len(data)


def exactly(size: int, name: str, body: bytes) -> bytes:
    if len(body) != size:
        raise ValueError(f"{name} has {len(body)} bytes of content, expected {size}")
    return body


@lru_cache(maxsize=64)
def read_frame(body: bytes) -> tuple[int, int, int, tuple[Component, ...]]:
    """Precision, height, width and components of a SOF segment (T.81 B.2.2)."""
    count = body[5] if len(body) > 5 else 0
    if not count or len(body) != 6 + 3 * count:
        raise ValueError(f"SOF has {len(body)} bytes of content, for {count} components")
    components = tuple(
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, len(body), 3)
    )
    for one in components:
        if not (1 <= one.horizontal <= 4 and 1 <= one.vertical <= 4):
            raise ValueError(
                f"component {one.id} has sampling {one.horizontal}x{one.vertical}, expected 1..4"
            )
    return body[0], int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), components


@lru_cache(maxsize=64)
def read_quantization(body: bytes) -> dict[int, Steps]:
    """The tables of a DQT segment (T.81 B.2.4.1) by number, in natural order."""
    tables = {}
    start = 0
    while start < len(body):
        wide, number = body[start] >> 4, body[start] & 15
        end = start + 1 + (128 if wide else 64)
        if wide > 1 or number > 3 or end > len(body):
            raise ValueError(f"DQT: table {number} of precision {wide} in {len(body) - start} bytes")
        values = body[start + 1 : end]
        zigzag = [int.from_bytes(values[i : i + 2]) for i in range(0, 128, 2)] if wide else values
        tables[number] = tuple(zigzag[i] for i in _RANK)
        start = end
    return tables


@lru_cache(maxsize=64)
def read_huffman(body: bytes) -> tuple[tuple[int, bytes, bytes], ...]:
    """The tables of a DHT segment (T.81 B.2.4.2): class << 4 | number, codes by length, symbols."""
    tables = []
    start = 0
    while start < len(body):
        lengths = body[start + 1 : start + 17]
        count = sum(lengths)
        end = start + 17 + count
        if body[start] >> 4 > 1 or body[start] & 15 > 3 or count > 256 or end > len(body):
            raise ValueError(
                f"DHT: table {body[start]:02x} with {count} symbols in {len(body) - start} bytes"
            )
        tables.append((body[start], lengths, body[start + 17 : end]))
        start = end
    return (*tables,)
