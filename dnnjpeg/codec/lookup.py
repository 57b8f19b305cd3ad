"""Huffman tables for decoding (T.81 F.2.2.3). A look-up gives up to two coefficients and the end of a block.

An entry is a uint64:

- bits 0-5: the number of bits that it takes, codes and extra bits together
- bit 6, `END`: the block ends with this entry
- bit 7, `PART`: see below
- bits 8-9: the number of its coefficients, 0 to 2
- bits 10-15: positions from here to the coefficient after the entry; 63 if the block ends
- byte 2, byte 3: positions from here to its first and to its last coefficient
- int16 2, int16 3: its first and its last coefficient

An entry with one coefficient holds it twice. An entry without coefficients holds zeros.

`PART` means that the look-up does not reach all extra bits of the coefficient. Then the entry has one
coefficient, byte 6 is the number of bits before its extra bits, and byte 7 is the number of these.

Tables of progressive scans hold codes in place of entries. The extra bits follow a code. In a code, bits 0-5
are its length, bit 6 is as above, byte 2 is the number of positions to the coefficient, and byte 4 is the
number of extra bits.

`LONG` stands for a code that is longer than what is looked up, and for a code that T.81 does not allow here.
`code_of` says which.
"""

from functools import lru_cache

import numpy as np

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load, load_scalar, select, splat, store

LOOKUP = 10  # bits; two tables of more would fill the fastest cache
END, PART = 1 << 6, 1 << 7
LONG = 63 << 10  # takes no bits and has no coefficient, but leads beyond the block

DC, AC, AC_FIRST, AC_REFINE = range(4)
"""The kind of a table: for DC differences, and for AC coefficients of sequential scans, of first progressive
scans and of refining ones.
"""
NO_TABLE = bytes(16), DC
"""In place of a table that a scan does not use: a table without codes."""

# A table holds entries, uint64[1 << LOOKUP]; int32[18], for each length the first 16 bits behind the codes of
# this length; int32[18], for each length what is added to a code to get the number of its symbol; symbols,
# uint8[256]; the kind, int64.
_LIMITS = 8 << LOOKUP
_NUMBERS = _LIMITS + 72
_SYMBOLS = _NUMBERS + 72
_KIND = _SYMBOLS + 256
TABLE_BYTES = _KIND + 64

_EIGHT = np.arange(8, dtype=np.uint64)


@inlined
def looked_up(table, word):
    """Look up the entry of the codes at the top of the word. `table` is an address."""
    return load_scalar(table + 8 * np.int64(word >> np.uint64(64 - LOOKUP)), "u64")


@inlined
def field(entry, first, bits):
    return np.int64(entry >> np.uint64(first) & np.uint64((1 << bits) - 1))


@inlined
def behind(word, entry):
    """Shift the bits of an entry out of the word."""
    return word << (entry & np.uint64(63))


@inlined
def extra_value(word, size):
    """The value of the `size` extra bits at the top of the word (T.81 F.2.2.1)."""
    bits = np.int64(word)
    negative = ~(bits >> 63)
    magnitude = np.int64((np.uint64(bits ^ negative) >> np.uint64(1)) >> np.uint64(63 - size))
    return (magnitude ^ negative) - negative


@inlined
def part_value(entry, word):
    """The last coefficient of an entry with `PART`, looked up at the top of the word."""
    return extra_value(word << (entry >> np.uint64(48) & np.uint64(63)), field(entry, 56, 8))


@inlined
def _code(symbol, length, kind):
    """The code of a symbol, or `LONG` if a table of this kind may not have the symbol."""
    run, size = symbol >> 4, symbol & 15
    most = 11 if kind == DC else 1 if kind == AC_REFINE else 10
    end = 0
    if kind == DC:
        run, size = 0, symbol
    elif size == 0 and run < 15:
        if run > 0 and kind == AC:
            return np.uint64(LONG)
        end, run, size, most = END, 0, run, 14  # an EOB run of that many bits (T.81 G.1.2.2)
    if size > most:
        return np.uint64(LONG)
    return np.uint64(size << 32 | run << 16 | end | length)


@inlined
def code_of(table, word):
    """The code at the top of the word, of any length. `LONG` if the table has no such code."""
    code = np.int64(word >> np.uint64(48))
    for length in range(1, 17):
        if code < np.int64(load_scalar(table + _LIMITS + 4 * length, "i32")):
            number = (code >> (16 - length)) + np.int64(load_scalar(table + _NUMBERS + 4 * length, "i32"))
            symbol = np.int64(load_scalar(table + _SYMBOLS + (number & 255), "u8"))
            return _code(symbol, length, load_scalar(table + _KIND, "i64"))
    return np.uint64(LONG)


# The functions below make eight entries at a time without branches, which could not be predicted.


@inlined
def _entries(code, bits, room):
    """Make entries, u64x8, of eight codes and their extra bits.

    bits: the codes and what follows them, in the low `LOOKUP` bits. room: how many of these bits are known.
    """
    length, run, size = code & 63, code >> 16 & 255, code >> 32 & 255
    word = bits << length << (64 - LOOKUP)
    negative = select(word >> 63 == 0, splat(-1, "u64x8"), splat(0, "u64x8"))
    magnitude = (word ^ negative) >> 1 >> (splat(63, "u64x8") - size)
    value = (magnitude ^ negative) - negative & 0xFFFF
    ones = select(size > 0, splat(1 << 8, "u64x8"), splat(0, "u64x8"))
    some = run << 24 | run << 16 | (run + 1) << 10 | ones | (length + size)
    whole = select(code & END != 0, length | (63 << 10 | END), value << 48 | value << 32 | some)
    found = select(length + size <= room, whole, size << 56 | length << 48 | some | PART)
    return select((length <= room) & (code != LONG), found, splat(LONG, "u64x8"))


@inlined
def _joined(one, two):
    """Join two entries that follow each other, if the first has one coefficient, and the second has one or is
    the end. Otherwise the first stays as it is.
    """
    bits, on = (one & 63) + (two & 63), one >> 10 & 63
    with_end = (one >> 16 << 16) | bits | (63 << 10 | 1 << 8 | END)
    last = (on + (two >> 24 & 255)) << 24 | (on + (two >> 10 & 63)) << 10 | bits | 2 << 8
    with_two = one & 0xFFFF00FF0000 | last | two >> 48 << 48
    joined = select(two & END != 0, with_end, with_two)
    fits = ((one | two) & PART == 0) & (one & 3 << 8 == 1 << 8) & (two & (3 << 8 | END) != 0)
    return select(fits, joined, one)


@inlined
def _fill(table, lengths, kind, codes):
    """Fill a table. Returns the number of its codes.

    table: its address. lengths: address of the code lengths and symbols, as in a DHT segment.
    kind: see above. codes: address of scratch, uint64[(1 << LOOKUP) + 8].
    """
    symbols = lengths + 16
    store(table + _KIND, kind)
    code, number, at = 0, 0, table
    for length in range(1, 17):
        store(table + _NUMBERS + 4 * length, np.int32(number - code))
        for _ in range(load_scalar(lengths + length - 1, "u8")):
            symbol = load_scalar(symbols + number, "u8")
            store(table + _SYMBOLS + number, symbol)
            if length <= LOOKUP:
                entry = _code(np.int64(symbol), length, kind)
                for _ in range(1 << (LOOKUP - length)):
                    store(at, entry)
                    at += 8
            code += 1
            number += 1
        store(table + _LIMITS + 4 * length, np.int32(code << (16 - length)))
        code <<= 1
    while at < table + _LIMITS:
        store(at, np.uint64(LONG))
        at += 8
    if kind > AC:
        return number
    seconds = codes + _LIMITS
    for i in range(0, 1 << LOOKUP, 8):
        store(codes + 8 * i, load(table + 8 * i, "u64x8"))
    for i in range(0, 1 << LOOKUP, 8):
        bits = load(address(_EIGHT), "u64x8") + i
        one = _entries(load(codes + 8 * i, "u64x8"), bits, splat(LOOKUP, "u64x8"))
        store(table + 8 * i, one)
        if kind == AC:
            used = one & 63
            for j in range(8):
                taken = load_scalar(table + 8 * (i + j), "u64") & np.uint64(63)
                word = np.uint64(i + j) << taken << np.uint64(64 - LOOKUP)
                store(seconds + 8 * j, looked_up(codes, word))
            left = select(used < LOOKUP, splat(LOOKUP, "u64x8") - used, splat(0, "u64x8"))
            store(table + 8 * i, _joined(one, _entries(load(seconds, "u64x8"), bits << used, left)))
    return number


@kernel
def _fill_all(memory, codes, kinds):
    """Fill tables.

    memory: uint8 array, the output, `TABLE_BYTES` for each table.
    codes: uint8 array, the lengths and symbols of all tables as in DHT segments.
    kinds: int64 array, the kind of each table.
    """
    table, lengths = address(memory), address(codes)
    room = np.empty((1 << LOOKUP) + 8, np.uint64)
    for i in range(kinds.size):
        lengths += 16 + _fill(table, lengths, kinds[i], address(room))
        table += TABLE_BYTES


@lru_cache(maxsize=64)
def check_codes(codes: bytes) -> None:
    """Raise ValueError if no Huffman code can have these lengths.

    codes: the lengths and symbols, as in a DHT segment.
    """
    if sum([count << (15 - i) for i, count in enumerate(codes[:16])]) > 1 << 16:
        raise ValueError("there are more Huffman codes than their lengths allow")


@lru_cache(maxsize=64)
def lookup_tables(wanted: tuple[tuple[bytes, int], ...]) -> np.ndarray:
    """Make tables for decoding: uint8[n, TABLE_BYTES].

    wanted: for each table its lengths and symbols, as in a DHT segment and checked by `check_codes`, and its
        kind.
    """
    tables = np.empty((len(wanted), TABLE_BYTES), np.uint8)
    codes = np.frombuffer(b"".join([codes for codes, _ in wanted]), np.uint8)
    _fill_all(tables, codes, np.array([kind for _, kind in wanted]))
    return tables
