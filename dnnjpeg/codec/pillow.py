"""Where the pixels of a PIL image are in Pillow's memory. There every pixel but gray takes four bytes."""

import ctypes
from functools import cache
from typing import Any

import numpy as np

# Modes of a PIL image, and what its pixels are in Pillow's memory.
PIL_MODES = {"1": "L", "L": "L", "RGB": "RGBX", "RGBX": "RGBX", "YCbCr": "YCbCrX", "CMYK": "CMYK"}

Rows = tuple[int, int, Any]
"""Address of the first pixel, bytes from row to row, and what keeps them alive."""

_arrow = (ctypes.c_uint64 * 7).from_address
"""What is read of Arrow's struct ArrowArray at an address: length, null count, offset, numbers of buffers and
of children, their addresses.
"""
_address = ctypes.c_uint64.from_address
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def rows_in_memory(image: Any) -> Rows:
    """The memory of a loaded image.

    Raises AttributeError for a Pillow that does not show it, ValueError for a picture in several pieces.
    """
    capsule = image.im.__arrow_c_array__()
    length, _, offset, buffers, children, data, below = _arrow(_pointer(capsule, b"arrow_array"))[:]
    if children:  # a pixel's list of channels
        length, _, offset, buffers, _, data, _ = _arrow(_address(below).value)[:]
    stride = _stride(image)
    if length != stride * image.size[1] or buffers != 2 or offset:
        raise ValueError("not the layout that Pillow has had so far")
    return _address(data + 8).value, stride, capsule


def _stride(image: Any) -> int:
    """Bytes from row to row."""
    return int(image.size[0] * (1 if PIL_MODES[image.mode] == "L" else 4))


def origins(image: Any) -> tuple[np.ndarray, int]:
    """The memory of a loaded image in several pieces, as Pillow keeps it above 16 MB.

    Returns int64[height] and the bytes from row to row. Number y is where the first row would be if all rows
    lay in the memory of row y; 0 if Pillow does not tell.
    """
    stride, place = _stride(image), _size_place()
    table = _table(image, place) if place is not None else None
    if table is None:
        return np.zeros(image.height, np.int64), stride
    return table - stride * np.arange(image.height), stride


def _table(image: Any, place: int) -> np.ndarray | None:
    """The addresses of the rows, int64[height], or None."""
    struct = _pointer(image.im.ptr, b"Pillow Imaging")
    if (ctypes.c_int32 * 2).from_address(struct + place)[:] != [*image.size]:
        return None
    # behind the size: the palette, rows of bytes, rows of words, rows of either
    _, of_bytes, of_words, rows = (ctypes.c_int64 * 4).from_address(struct + (place + 15 & ~7))[:]
    if rows == 0 or rows not in (of_bytes, of_words):
        return None
    return np.array((ctypes.c_int64 * image.height).from_address(rows))


@cache
def _size_place() -> int | None:
    """Where the width is in Pillow's private struct of an image, in bytes.

    None if the rows are not found with its help in a small image, of which Arrow says where they are.
    """
    from PIL import Image

    probe = Image.new("RGB", (37, 21))
    try:
        first, stride, _owner = rows_in_memory(probe)
        head = (ctypes.c_int32 * 16).from_address(_pointer(probe.im.ptr, b"Pillow Imaging"))[:]
        place = next(4 * k for k in range(15) if head[k : k + 2] == [*probe.size])
    except (AttributeError, ValueError, StopIteration):
        return None
    table = _table(probe, place)
    expected = first + stride * np.arange(probe.height)
    return place if table is not None and np.array_equal(table, expected) else None
