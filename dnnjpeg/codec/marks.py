"""Search the bytes of scans for markers and stuffing (T.81 B.1.1)."""

import numpy as np

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, fetch_ahead, load, load_scalar, mask_bits, store
from dnnjpeg.machine.words import count_zeros_low

_AHEAD = 1024  # bytes: how far ahead of the copy data are asked for


@kernel
def find_mark(data, at):
    """Find the next 0xFF that is not followed by stuffing or by a restart. Returns its index, or -1.

    data: uint8 array. at: the index at which to begin.
    """
    begin = address(data)
    at, end = begin + at, begin + data.size
    while at + 1 < end:
        if at + 64 <= end:
            marks = mask_bits(load(at, "u8x64") == 255)
            if marks == 0:
                at += 64
                continue
            at += np.int64(count_zeros_low(marks))
            if at + 1 == end:
                break
        if load_scalar(at, "u8") == 255:
            following = load_scalar(at + 1, "u8")
            if following != 0 and following >> 3 != 0xD0 >> 3:
                return at - begin
        at += 1
    return -1


@inlined
def without_stuffing(at, end, out):
    """Copy bytes without stuffing up to a marker or the end (T.81 F.1.2.3).

    Returns the address of the marker or the end, and the address behind the copy. Up to 64 bytes behind the
    copy are overwritten.
    """
    while at < end:
        step = 0
        if at + 64 <= end:
            chunk = load(at, "u8x64")
            fetch_ahead(at + _AHEAD)
            store(out, chunk)
            marks = mask_bits(chunk == 255)
            step = np.int64(count_zeros_low(marks)) if marks != 0 else 64
        elif load_scalar(at, "u8") != 255:
            store(out, load_scalar(at, "u8"))
            step = 1
        at += step
        out += step
        if at < end and load_scalar(at, "u8") == 255:
            if at + 1 == end or load_scalar(at + 1, "u8") != 0:
                break
            store(out, np.uint8(255))
            at += 2
            out += 1
    return at, out


@inlined
def next_marker(at, end):
    """Find the next marker. Returns its address and its second byte, which is 0 if there is no marker."""
    while at + 1 < end:
        marker = np.int64(load_scalar(at + 1, "u8"))
        if load_scalar(at, "u8") == 255 and marker != 0 and marker != 255:
            return at, marker
        at += 1
    return at, 0
