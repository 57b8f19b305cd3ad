"""Huffman tables for decoding (T.81 F.2.2.3). A look-up gives a code, or up to two coefficients and the end.

An entry of AC coefficients of a sequential scan is a uint32:

- bits 0-5: the number of bits that it takes, codes and extra bits together
- bit 6, `PART`: see below
- bits 7-9: positions from here to the first of two coefficients
- bits 10-15: positions from here to the coefficient after the entry; 63 if the block ends
- byte 2: the first of two coefficients, int8
- byte 3: the last coefficient, int8, one position before the coefficient after the entry; or 0

`PART` means that the entry has one coefficient, which is in the extra bits. Byte 3 is then the number of bits
before them.

Tables of progressive scans and of DC differences hold codes in place of entries. Extra bits follow a code:

- bits 0-5: the length of the code
- bit 6, `END`: the block ends with this code
- byte 1: the number of extra bits
- byte 2: the number of positions to the coefficient
- byte 3: the length of the code and its extra bits together

`LONG` stands for a code that is longer than what is looked up, and for a code that T.81 does not allow here.
`code_of` says which.
"""

from functools import lru_cache

import numpy as np

from dnnjpeg.machine.jit import host_has, inlined, kernel
from dnnjpeg.machine.simd import address, load, load_scalar, select, splat, store

LOOKUP = 11  # bits; two tables of more would fill the fastest cache
DC_LOOKUP = 8  # bits of DC tables, which hold no extra bits and so leave more of that cache to the others
END = PART = 1 << 6
LONG = 63 << 10 | PART  # takes no bits and has no coefficient, but leads beyond the block
MOST_BEHIND = 62  # how many positions an entry may lead beyond the last coefficient of a block

DC, AC, AC_FIRST, AC_REFINE = range(4)
"""The kind of a table: for DC differences, and for AC coefficients of sequential scans, of first progressive
scans and of refining ones.
"""

# A table holds entries, uint32[1 << LOOKUP] of which one of DC uses the first, and room for a vector that
# begins at the last; int32[18], for each length the first 16 bits behind the codes of this length; int32[18],
# for each length what is added to a code to get the number of its symbol; symbols, uint8[256]; the kind,
# int64.
_ENTRIES = 4 << LOOKUP
_LIMITS = _ENTRIES + 32
_NUMBERS = _LIMITS + 72
_SYMBOLS = _NUMBERS + 72
_KIND = _SYMBOLS + 256
TABLE_BYTES = _KIND + 64


@inlined
def looked_up(table, word, bits):
    """Look up the entry of the codes at the top of the word. table: its address. bits: `LOOKUP`, or
    `DC_LOOKUP` for a table of DC differences.
    """
    return np.uint64(load_scalar(table + 4 * np.int64(word >> np.uint64(64 - bits)), "u32"))


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
    before = entry >> np.uint64(24)
    return extra_value(word << before, np.int64((entry & np.uint64(63)) - before))


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
    return np.uint64(length + size << 24 | run << 16 | size << 8 | end | length)


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


# The functions below make some entries at a time without branches, which could not be predicted.

_LANES = 16 if host_has("avx512bw") else 8
_WORDS = f"u32x{_LANES}"
_LANE_NUMBERS = np.arange(_LANES, dtype=np.uint32)


@inlined
def _entries(code, bits, room):
    """Make entries, vectors of uint32, of some codes and their extra bits.

    bits: the codes and what follows them, in the low `LOOKUP` bits. room: how many of these bits are known.
    """
    length, size, run, taken = code & 63, code >> 8 & 255, code >> 16 & 255, code >> 24
    word = bits << length << (32 - LOOKUP)
    negative = select(word >> 31 == 0, splat(-1, _WORDS), splat(0, _WORDS))
    magnitude = (word ^ negative) >> 1 >> (splat(31, _WORDS) - size)
    value = (magnitude ^ negative) - negative
    last = (run + 1) << 10 | taken
    whole = select(code & END != 0, length | 63 << 10, value << 24 | last)
    found = select((taken <= room) & (size < 8), whole, length << 24 | PART | last)
    return select((length <= room) & (code != LONG), found, splat(LONG, _WORDS))


@inlined
def _joined(one, two):
    """Join two entries that follow each other, if the first has one coefficient, and the second has one or is
    the end. Otherwise the first stays as it is.
    """
    bits, on, two_on = (one & 63) + (two & 63), one >> 10 & 63, two >> 10 & 63
    first = one >> 24 << 16 | (on - 1) << 7 | bits
    is_end = two_on == 63
    joined = first | select(is_end, splat(63 << 10, _WORDS), two >> 24 << 24 | (on + two_on) << 10)
    fits = ((one | two) & PART == 0) & (one >> 24 != 0) & (on <= 8) & ((two >> 24 != 0) | is_end)
    return select(fits, joined, one)


@inlined
def _behind_first(one, i):
    """How many bits each entry takes, and the bits behind it, which are what `_entries` takes next.

    one: entries. i: the number of the first.
    """
    used = select(one & PART == 0, one & 63, splat(LOOKUP, _WORDS))
    return used, (load(address(_LANE_NUMBERS), _WORDS) + i) << used & ((1 << LOOKUP) - 1)


@inlined
def _fill_with_values(table, codes):
    """Turn the codes of a table into entries of AC coefficients.

    codes: address of scratch, uint32[2 << LOOKUP].
    """
    seconds = codes + _ENTRIES
    # each step is done for all entries, so that none waits for what the one before it has just stored
    for i in range(0, 1 << LOOKUP, _LANES):
        code = load(table + 4 * i, _WORDS)
        store(codes + 4 * i, code)
        one = _entries(code, load(address(_LANE_NUMBERS), _WORDS) + i, splat(LOOKUP, _WORDS))
        store(table + 4 * i, one)
        _, bits = _behind_first(one, i)
        store(seconds + 4 * i, bits)
    for at in range(seconds, seconds + _ENTRIES, 4):
        store(at, load_scalar(codes + 4 * np.int64(load_scalar(at, "u32")), "u32"))
    for i in range(0, 1 << LOOKUP, _LANES):
        one = load(table + 4 * i, _WORDS)
        used, bits = _behind_first(one, i)
        two = _entries(load(seconds + 4 * i, _WORDS), bits, splat(LOOKUP, _WORDS) - used)
        store(table + 4 * i, _joined(one, two))


@inlined
def _fill(table, lengths, kind, codes):
    """Fill a table. Returns the number of its codes; or -1 if no Huffman code can have these lengths.

    table: its address. lengths: address of the code lengths and symbols, as in a DHT segment.
    kind: see above. codes: address of scratch, uint32[2 << LOOKUP].
    """
    symbols = lengths + 16
    store(table + _KIND, kind)
    bits = DC_LOOKUP if kind == DC else LOOKUP
    code, number, at = 0, 0, table
    for length in range(1, 17):
        store(table + _NUMBERS + 4 * length, np.int32(number - code))
        some = np.int64(load_scalar(lengths + length - 1, "u8"))
        if code + some > 1 << length:
            return -1
        for _ in range(some):
            symbol = load_scalar(symbols + number, "u8")
            store(table + _SYMBOLS + number, symbol)
            if length <= bits:
                entry = splat(np.uint32(_code(np.int64(symbol), length, kind)), "u32x8")
                end = at + (4 << (bits - length))
                while at < end:  # the last vector reaches beyond, into entries that are written later
                    store(at, entry)
                    at += 32
                at = end
            code += 1
            number += 1
        store(table + _LIMITS + 4 * length, np.int32(code << (16 - length)))
        code <<= 1
    while at < table + (4 << bits):
        store(at, splat(LONG, "u32x8"))
        at += 32
    if kind == AC:
        _fill_with_values(table, codes)
    return number


@kernel
def _fill_all(memory, codes, kinds, room):
    """Fill tables. Returns False if no Huffman code can have the lengths of one.

    memory: uint8 array, the output, `TABLE_BYTES` for each table.
    codes: uint8 array, the lengths and symbols of all tables as in DHT segments.
    kinds: int64 array, the kind of each table.
    room: uint8 array, scratch.
    """
    table, lengths = address(memory), address(codes)
    for i in range(kinds.size):
        number = _fill(table, lengths, kinds[i], address(room))
        if number < 0:
            return False
        lengths += 16 + number
        table += TABLE_BYTES
    return True


@lru_cache(maxsize=16)  # more would be found again less often than they push others out of the caches
def lookup_tables(codes: tuple[bytes, ...], kinds: tuple[int, ...]) -> np.ndarray:
    """Make tables for decoding: uint8[n, TABLE_BYTES].

    codes: the lengths and symbols of each table, as in a DHT segment.
    kinds: the kind of each table.

    Raises ValueError if no Huffman code can have the lengths.
    """
    tables = np.empty((len(codes), TABLE_BYTES), np.uint8)
    room = np.empty(2 * _ENTRIES, np.uint8)
    if not _fill_all(tables, np.frombuffer(b"".join(codes), np.uint8), np.array(kinds, np.int64), room):
        raise ValueError("there are more Huffman codes than their lengths allow")
    return tables
