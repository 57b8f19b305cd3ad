"""Huffman tables for decoding (T.81 F.2.2.3): the next bits looked up, many at once.

An entry is a uint64, a number in each byte. 0: the bits that it takes, codes and extra bits together. 1, 2
and 3 are about the first code: its bits; 63 - its extra bits; the zeros before the coefficient, or `END` for
the end of a block, or `BAD` where the code is longer than what is looked up, or none that T.81 allows here.
Where a second code of a sequential scan was looked up whole, 4 and 5 are its coefficient, 6 how far that
stands behind the first. 7: how far on the next coefficient is.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load_scalar

LOOKUP = 10  # bits; hardly a code is longer, and two tables leave the fastest cache room for the picture
END, BAD = 96, 192  # so far from 63 and from each other that what is added up with a position stays apart

DC, AC, AC_FIRST, AC_REFINE = range(4)
"""What is coded: DC differences, AC coefficients of a sequential scan, of first and refining scans."""

TABLE = np.dtype(
    [
        ("entries", np.uint64, 1 << LOOKUP),
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
_NO_CODE = np.uint64((BAD + 1) << 56 | 1 << 48 | BAD << 24 | 63 << 16)


@inlined
def is_end(k):
    """Whether a position and the zeros of an entry add up to the end of a block."""
    return END <= k < BAD


@inlined
def looked_up(table, word):
    """The entry of the codes at the top of the word; `table` is an address."""
    return load_scalar(table + 8 * np.int64(word >> np.uint64(64 - LOOKUP)), "u64")


@inlined
def part(entry, number):
    """A byte of an entry."""
    return np.int64(entry >> np.uint64(8 * number) & np.uint64(255))


@inlined
def extra_value(word, entry):
    """The value of the extra bits of the first code (T.81 F.2.2.1), of all entries alike: no branch to
    guess.
    """
    bits = np.int64(word << (entry >> np.uint64(8) & np.uint64(63)))
    negative = ~(bits >> 63)
    room = entry >> np.uint64(16) & np.uint64(63)
    magnitude = np.int64((np.uint64(bits ^ negative) >> np.uint64(1)) >> room)
    return (magnitude ^ negative) - negative


@inlined
def _entry(symbol, length, kind):
    run, size = symbol >> 4, symbol & 15
    most = 11 if kind == DC else 1 if kind == AC_REFINE else 10
    if kind == DC:
        run, size = 0, symbol
    elif size == 0 and run < 15:
        if run > 0 and kind == AC:
            return _NO_CODE
        run, size, most = END, run, 14  # an EOB run of that many bits (T.81 G.1.2.2)
    if size > most:
        return _NO_CODE
    return np.uint64(
        (run + 1) << 56 | 1 << 48 | run << 24 | (63 - size) << 16 | length << 8 | (length + size)
    )


@inlined
def entry_of(table, word):
    """The entry of a code that is longer than what is looked up; `BAD` for any other."""
    code = np.int64(word >> np.uint64(48))
    if code < np.int64(load_scalar(table + _LIMITS + 4 * LOOKUP, "i32")):
        return _NO_CODE
    for length in range(LOOKUP + 1, 17):
        if code < np.int64(load_scalar(table + _LIMITS + 4 * length, "i32")):
            number = (code >> (16 - length)) + np.int64(load_scalar(table + _SYMBOLS + 4 * length, "i32"))
            symbol = np.int64(load_scalar(table + _VALUES + (number & 255), "u8"))
            return _entry(symbol, length, np.int64(load_scalar(table + _KIND, "i32")))
    return _NO_CODE


@inlined
def _with_second(table, i):
    """The entry of ten bits, and of a second code in them."""
    first = table.entries[i]
    used = part(first, 0)
    if part(first, 3) >= END or used >= LOOKUP:
        return first
    word = np.uint64(i) << np.uint64(64 - LOOKUP + used)
    second = looked_up(address(table.entries), word)
    both, run = used + part(second, 1) + 63 - part(second, 2), part(second, 3)  # of its first code alone
    if run == BAD or both > LOOKUP:
        return first
    first = first & np.uint64(0xFFFFFF00) | np.uint64(both)
    on = part(first, 3) + 1
    if run == END:
        return first | np.uint64((on + 1 + END) << 56 | 1 << 48)
    value = np.uint64(extra_value(word, second) & 0xFFFF)
    return first | np.uint64((on + 1 + run) << 56 | (1 + run) << 48) | value << np.uint64(32)


@kernel
def _fill(tables, lengths, symbols, kind):
    """Returns whether there are as many codes as the lengths say."""
    table = tables[0]
    table.kind = kind
    code, number, filled = 0, 0, 0
    for length in range(1, 17):
        table.symbols[length] = number - code
        for _ in range(lengths[length - 1]):
            if code >> length:
                return False
            table.values[number] = symbols[number]
            if length <= LOOKUP:
                entry = _entry(np.int64(symbols[number]), length, kind)
                for _ in range(1 << (LOOKUP - length)):
                    table.entries[filled] = entry
                    filled += 1
            code += 1
            number += 1
        table.limits[length] = code << (16 - length)
        code <<= 1
    for i in range(filled, 1 << LOOKUP):
        table.entries[i] = _NO_CODE
    if kind == AC:
        for i in range(filled):
            table.entries[i] = _with_second(table, i)
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
