"""Huffman tables: the optimal ones for counted symbols (T.81 K.2), and the standard ones (T.81 K.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from dnnjpeg.simd import inlined, kernel

MAX_LENGTH = 16
SYMBOLS = 1024  # four tables of 256: DC 0, DC 1, AC 0, AC 1
AC = 2  # first of the two AC tables
RAW = 240  # symbol RAW + n stands for n plain bits; no DC difference has such a size


@dataclass(frozen=True)
class HuffmanTable:
    """`bits[k]`: number of codes of length k, k = 1..16 (bits[0] unused); `values`: the symbols in order of code."""

    bits: bytes
    values: bytes


@dataclass(frozen=True)
class ScanTables:
    """What a scan is coded with.

    `tables`: (class and destination byte of the DHT segment, table) of each table used. `destinations`: for components of code 0 and
    of code 1, the DC and the AC table they name. `lut`: uint32[1024], bits of each symbol's code, shifted left by the number of extra
    bits that follow it, << 5 | code length + extra bits.
    """

    tables: tuple[tuple[int, HuffmanTable], ...]
    destinations: tuple[tuple[int, int], tuple[int, int]]
    lut: np.ndarray


_DC_VALUES = bytes(range(12))
_LONG_TAIL = "".join(f"{run:x}{size:x}" for run in range(16) for size in range(1, 11))


def _standard_ac(bits: tuple[int, ...], first: str) -> HuffmanTable:
    """The symbols of long codes are simply those that `first` leaves over, in order."""
    listed = bytes.fromhex(first)
    return HuffmanTable(bytes(bits), listed + bytes(v for v in bytes.fromhex(_LONG_TAIL) if v not in listed))


STANDARD = (
    HuffmanTable(bytes([0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), _DC_VALUES),
    HuffmanTable(bytes([0, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]), _DC_VALUES),
    _standard_ac(
        (0, 0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125),
        "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282",
    ),
    _standard_ac(
        (0, 0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119),
        "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f1",
    ),
)
"""DC luminance, DC chrominance, AC luminance, AC chrominance: T.81 Tables K.3 to K.6."""


@inlined
def _sorted_by_count(counts, keys):
    """Packed (count, symbol) of the symbols that occur, rarest first, after the reserved symbol 256 of count 1; returns how many."""
    n = 0
    for symbol in range(256):
        if counts[symbol] > 0:
            key = np.int64(counts[symbol]) << 9 | (255 - symbol)
            at = n
            while at > 0 and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
            n += 1
    return n


@inlined
def _optimal_code(counts, bits, values):
    """Optimal code for `counts` (int64[256]) with lengths up to 16 and the all-ones code unused.

    Fills `bits` (uint8[17]) and `values` (uint8[256]); returns the number of symbols. Two-queue construction in place of K.2's
    quadratic search; lengths beyond 16 are folded as in Figure K.3.
    """
    keys = np.empty(256, np.int64)
    n = _sorted_by_count(counts, keys)
    bits[:] = 0
    if n == 0:
        return 0
    # leaves: the reserved symbol, then the symbols from rare to frequent; inner nodes are born in order of weight
    leaves = n + 1
    weight = np.empty(2 * leaves, np.int64)
    parent = np.zeros(2 * leaves, np.int64)
    weight[0] = 0  # lighter than any symbol, so that its code is among the longest
    for i in range(n):
        weight[i + 1] = keys[i] >> 9
    leaf, inner = 0, leaves
    for born in range(leaves, 2 * leaves - 1):
        total = np.int64(0)
        for _ in range(2):
            if leaf < leaves and (inner >= born or weight[leaf] <= weight[inner]):
                child = leaf
                leaf += 1
            else:
                child = inner
                inner += 1
            total += weight[child]
            parent[child] = born
        weight[born] = total
    root = 2 * leaves - 2
    depth = parent
    depth[root] = 0
    per_length = np.zeros(2 * leaves, np.int64)
    for node in range(root - 1, -1, -1):
        depth[node] = depth[parent[node]] + 1
        if node < leaves:
            per_length[depth[node]] += 1
    for length in range(2 * leaves - 1, MAX_LENGTH, -1):
        while per_length[length] > 0:
            shorter = length - 2
            while per_length[shorter] == 0:
                shorter -= 1
            per_length[length] -= 2
            per_length[length - 1] += 1
            per_length[shorter + 1] += 2
            per_length[shorter] -= 1
    longest = min(MAX_LENGTH, 2 * leaves - 1)
    while per_length[longest] == 0:
        longest -= 1
    per_length[longest] -= 1  # the reserved symbol's, all ones
    for length in range(1, min(MAX_LENGTH, 2 * leaves - 1) + 1):
        bits[length] = per_length[length]
    for i in range(n):
        values[i] = 255 - (keys[n - 1 - i] & 255)
    return n


@inlined
def _fill(lut, table, bits, values):
    """Canonical codes (T.81 C.2) of one table into `lut`."""
    code, k = 0, 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(bits[length]):
            symbol = np.int64(values[k])
            extra = symbol & 15
            if table >= AC and extra == 0 and symbol >> 4 < 15:
                extra = symbol >> 4  # EOBn is followed by n bits (T.81 G.1.2.2); n = 0 is the plain EOB
            lut[table << 8 | symbol] = (code << extra) << 5 | (length + extra)
            code += 1
            k += 1
        code <<= 1


@inlined
def _cost(counts, bits, values, n):
    """Bits of the codes of the counted symbols, and of the table itself."""
    total, k = 8 * (17 + n), 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(bits[length]):
            total += length * counts[values[k]]
            k += 1
    return total


@inlined
def _begin(lut):
    lut[:] = 0
    for n in range(16):
        lut[RAW + n] = n


@kernel
def _optimal(counts, lut, bits, values, sizes, shared):
    """Optimal tables of a scan, and whether the two of a kind are better replaced by one for all components.

    counts: int64[n, 1024] rows to be added up. Fills lut, bits uint8[4, 17], values uint8[4, 256], sizes int64[4] (0: no such table),
    shared int64[2] (DC, AC).
    """
    total = counts.sum(axis=0).reshape(4, 256)
    total[0, RAW:] = 0
    _begin(lut)
    both_bits, both_values = np.empty(17, np.uint8), np.empty(256, np.uint8)
    for kind in range(2):
        first, second = AC * kind, AC * kind + 1
        for table in (first, second):
            sizes[table] = _optimal_code(total[table], bits[table], values[table])
        shared[kind] = 0
        if sizes[second]:
            n = _optimal_code(total[first] + total[second], both_bits, both_values)
            apart = _cost(total[first], bits[first], values[first], sizes[first])
            apart += _cost(total[second], bits[second], values[second], sizes[second])
            if _cost(total[first] + total[second], both_bits, both_values, n) <= apart:
                shared[kind] = 1
                sizes[first], sizes[second] = n, 0
                bits[first], values[first] = both_bits, both_values
                _fill(lut, second, both_bits, both_values)
        for table in (first, second):
            if sizes[table]:
                _fill(lut, table, bits[table], values[table])


@kernel
def _from_tables(lut, bits, values):
    _begin(lut)
    for table in range(4):
        _fill(lut, table, bits[table], values[table])


def optimal_tables(counts: np.ndarray) -> ScanTables:
    """The smallest tables for the symbols counted, int64[n, 1024] rows to be added up: two of a kind, or one where that saves more than it costs."""
    lut, sizes, shared = np.empty(SYMBOLS, np.uint32), np.empty(4, np.int64), np.empty(2, np.int64)
    bits, values = np.empty((4, 17), np.uint8), np.empty((4, 256), np.uint8)
    _optimal(counts, lut, bits, values, sizes, shared)
    tables = tuple(
        ((table >> 1) << 4 | table & 1, HuffmanTable(bits[table].tobytes(), values[table, :size].tobytes()))
        for table, size in enumerate(sizes.tolist())
        if size
    )
    dc, ac = (1 - shared).tolist()
    return ScanTables(tables, ((0, 0), (dc, ac)), lut)


@cache
def standard_tables(codes: int) -> ScanTables:
    """The tables of T.81 K.3; the two for luminance alone where `codes` is 1."""
    lut, bits, values = np.empty(SYMBOLS, np.uint32), np.zeros((4, 17), np.uint8), np.zeros((4, 256), np.uint8)
    for row, table in enumerate(STANDARD):
        bits[row] = np.frombuffer(table.bits, np.uint8)
        values[row, : len(table.values)] = np.frombuffer(table.values, np.uint8)
    _from_tables(lut, bits, values)
    used: Sequence[int] = range(4) if codes == 2 else (0, AC)
    tables = tuple(((row >> 1) << 4 | row & 1, STANDARD[row]) for row in used)
    return ScanTables(tables, ((0, 0), (1, 1)), lut)
