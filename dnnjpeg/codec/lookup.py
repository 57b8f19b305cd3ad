"""Huffman tables for decoding (T.81 F.2.2.3): the next bits looked up, many at once.

An entry is a uint32: bits of code and extra bits together; bits of the code << 8; 63 - extra bits << 16;
zeros before the coefficient << 24, or `END` for the end of a block, or `BAD` where the code is longer than
what is looked up, or none that T.81 allows here.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import load_scalar

LOOKUP = 10  # bits; hardly a code is longer, and two tables leave the fastest cache room for the picture
END, BAD = 96, 192  # so far from 63 and from each other that what is added up with a position stays apart

DC, AC, AC_FIRST, AC_REFINE = range(4)
"""What is coded: DC differences, AC coefficients of a sequential scan, of first and refining scans."""

TABLE = np.dtype(
    [
        ("entries", np.uint32, 1 << LOOKUP),
        # by length of code: the first sixteen bits beyond its codes; from code to number of its symbol
        ("limits", np.int32, 18),
        ("symbols", np.int32, 18),
        ("values", np.uint8, 256),
        ("kind", np.int32),
    ],
    align=True,
)
_LIMITS, _SYMBOLS, _VALUES, _KIND = (
    dict(TABLE.fields or {})[name][1] for name in ("limits", "symbols", "values", "kind")
)


@inlined
def is_end(k):
    """Whether a position and the zeros of an entry add up to the end of a block."""
    return END <= k < BAD


@inlined
def looked_up(table, word):
    """The entry of the code at the top of the word; `table` is an address."""
    return np.int64(load_scalar(table + 4 * np.int64(word >> np.uint64(64 - LOOKUP)), "u32"))


@inlined
def _entry(symbol, length, kind):
    run, size = symbol >> 4, symbol & 15
    most = 11 if kind == DC else 1 if kind == AC_REFINE else 10
    if kind == DC:
        run, size = 0, symbol
    elif size == 0 and run < 15:
        if run > 0 and kind == AC:
            return BAD << 24
        run, size, most = END, run, 14  # an EOB run of that many bits (T.81 G.1.2.2)
    if size > most:
        return BAD << 24
    return run << 24 | (63 - size) << 16 | length << 8 | (length + size)


@inlined
def entry_of(table, word):
    """The entry of a code that is longer than what is looked up; `BAD` for any other."""
    code = np.int64(word >> np.uint64(48))
    if code < np.int64(load_scalar(table + _LIMITS + 4 * LOOKUP, "i32")):
        return BAD << 24
    for length in range(LOOKUP + 1, 17):
        if code < np.int64(load_scalar(table + _LIMITS + 4 * length, "i32")):
            number = (code >> (16 - length)) + np.int64(load_scalar(table + _SYMBOLS + 4 * length, "i32"))
            symbol = np.int64(load_scalar(table + _VALUES + (number & 255), "u8"))
            return _entry(symbol, length, np.int64(load_scalar(table + _KIND, "i32")))
    return BAD << 24


@kernel
def _fill(tables, lengths, symbols, kind):
    """Returns whether there are as many codes as the lengths say."""
    table = tables[0]
    for i in range(1 << LOOKUP):
        table.entries[i] = BAD << 24
    for i in range(256):
        table.values[i] = 0
    table.kind = kind
    code, number = 0, 0
    for length in range(1, 17):
        table.symbols[length] = number - code
        for _ in range(lengths[length - 1]):
            if code >> length:
                return False
            symbol = np.int64(symbols[number])
            table.values[number] = symbols[number]
            if length <= LOOKUP:
                entry = _entry(symbol, length, kind)
                first = code << (LOOKUP - length)
                for i in range(first, first + (1 << (LOOKUP - length))):
                    table.entries[i] = entry
            code += 1
            number += 1
        table.limits[length] = code << (16 - length)
        code <<= 1
    return True


class Lookup(NamedTuple):
    """A table, kept alive, and its address: numpy takes long to say that of a record's array."""

    table: np.ndarray
    address: int


@lru_cache(maxsize=64)
def lookup_table(lengths: bytes, symbols: bytes, kind: int) -> Lookup:
    """Of a table of a DHT segment. Raises ValueError for lengths that no codes can have."""
    memory = np.zeros(TABLE.itemsize, np.uint8)
    table = memory.view(TABLE)
    counts, values = (np.frombuffer(part, np.uint8) for part in (lengths, symbols))
    if not _fill(table, counts, values, kind):
        raise ValueError("there are more Huffman codes than their lengths allow")
    return Lookup(table, memory.__array_interface__["data"][0])
