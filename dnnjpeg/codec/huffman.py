"""Huffman tables: the optimal ones for counted symbols (T.81 K.2), and codes of the standard ones."""

from functools import cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.jpeg.standard import STANDARD_HUFFMAN
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, convert, load, splat, store

MAX_LENGTH = 16
SYMBOLS = 1024  # four tables of 256: DC 0, DC 1, AC 0, AC 1
AC = 2  # first of the two AC tables
RAW = 240  # symbol RAW + n stands for n plain bits; no DC difference has such a size

CHOICE = np.dtype(
    [
        ("lut", np.uint32, SYMBOLS),
        ("dht", np.uint8, 1200),
        ("bits", np.uint8, (6, 17)),
        ("values", np.uint8, (6, 256)),
        ("total", np.int64, (6, 256)),
        ("work", np.int64, 2060),
    ],
    align=True,
)
"""What `choose` fills, `lut` and `dht`, and works in; `total` is what `add_up` fills."""


class ScanTables(NamedTuple):
    """What a scan is coded with.

    `dht`: payload of the DHT segment. `destinations`: for components of code 0 and of code 1, the DC and the
    AC table they name. `lut`: uint32[1024], bits of each symbol's code, shifted left by the number of extra
    bits that follow it, << 5 | code length + extra bits.
    """

    dht: bytes
    destinations: tuple[tuple[int, int], tuple[int, int]]
    lut: np.ndarray


# The kernels below take a row's number, not the row: numpy's own operations inside them cost seconds of
# compilation.


@inlined
def _sort_by_count(counts, row, keys):
    """Packed (count, 255 - symbol) of the symbols that occur, rarest first, into `keys`; returns how many."""
    n = 0
    for symbol in range(255, -1, -1):  # low symbols are the frequent ones: little is moved
        if counts[row, symbol] > 0:
            key = counts[row, symbol] << 8 | (255 - symbol)
            at = n
            while at > 0 and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
            n += 1
    return n


@inlined
def _optimal_code(counts, bits, values, row, work):
    """Optimal code for a row of `counts` (int64[n, 256]) with lengths up to 16 and the all-ones code unused.

    Fills that row of `bits` (uint8[n, 17]) and `values` (uint8[n, 256]); returns the number of symbols.
    `work`: int64[2048] scratch. Two queues in place of K.2's quadratic search; lengths beyond 16 are folded
    as in Figure K.3.
    """
    n = _sort_by_count(counts, row, work)
    for length in range(17):
        bits[row, length] = 0
    if n == 0:
        return 0
    # leaves: the symbol that reserves the all-ones code, then the others from rare to frequent; inner nodes
    # are born in order of weight
    leaves = n + 1
    root = 2 * leaves - 2
    weight, depth, per_length = 256, 800, 1400  # where they begin in `work`
    work[weight] = 0
    for i in range(n):
        work[weight + i + 1] = work[i] >> 8
    leaf, inner = 0, leaves
    for born in range(leaves, root + 1):
        total = 0
        for _ in range(2):
            if leaf < leaves and (inner >= born or work[weight + leaf] <= work[weight + inner]):
                child = leaf
                leaf += 1
            else:
                child = inner
                inner += 1
            total += work[weight + child]
            work[depth + child] = born  # the parent, until the depths are known
        work[weight + born] = total
    for length in range(2 * leaves):
        work[per_length + length] = 0
    work[depth + root] = 0
    for node in range(root - 1, -1, -1):
        level = work[depth + work[depth + node]] + 1
        work[depth + node] = level
        if node < leaves:
            work[per_length + level] += 1
    for length in range(2 * leaves - 1, MAX_LENGTH, -1):
        while work[per_length + length] > 0:
            shorter = length - 2
            while work[per_length + shorter] == 0:
                shorter -= 1
            work[per_length + length] -= 2
            work[per_length + length - 1] += 1
            work[per_length + shorter + 1] += 2
            work[per_length + shorter] -= 1
    longest = min(MAX_LENGTH, 2 * leaves - 1)
    while work[per_length + longest] == 0:
        longest -= 1
    work[per_length + longest] -= 1  # the reserved symbol's
    for length in range(1, longest + 1):
        bits[row, length] = work[per_length + length]
    for i in range(n):
        values[row, i] = 255 - (work[n - 1 - i] & 255)
    return n


@inlined
def _fill(lut, bits, values, row):
    """Canonical codes (T.81 C.2) of one table, a row of the arrays, into `lut`."""
    code, k = 0, 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(bits[row, length]):
            symbol = np.int64(values[row, k])
            extra = symbol & 15
            if row >= AC and extra == 0 and symbol >> 4 < 15:
                extra = symbol >> 4  # EOBn is followed by n bits (T.81 G.1.2.2); n = 0 is the plain EOB
            lut[row << 8 | symbol] = (code << extra) << 5 | (length + extra)
            code += 1
            k += 1
        code <<= 1


@inlined
def _cost(counts, bits, values, row):
    """Bits of the codes of the counted symbols, and of the table itself."""
    total, k = 0, 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(bits[row, length]):
            total += length * counts[row, values[row, k]]
            k += 1
    return total + 8 * (17 + k)


@inlined
def _fill_lookup(lut, bits, values):
    """Codes of four tables, uint8[4, 17] and uint8[4, 256], into `lut` as `ScanTables` has it."""
    for symbol in range(SYMBOLS):
        lut[symbol] = symbol - RAW if RAW <= symbol < RAW + 16 else 0
    for table in range(4):
        _fill(lut, bits, values, table)


@inlined
def add_up(counts, total):
    """Sums of the rows of `counts`, uint32[n, 1024], by table, and of the two tables of a kind, in the rows
    of `total`, int64[6, 256].
    """
    source, target = address(counts), address(total)
    for at in range(0, 4 * SYMBOLS, 32):
        added = splat(0, "i64x8")
        for row in range(counts.shape[0]):
            added = added + convert(load(source + 4 * SYMBOLS * row + at, "u32x8"), "i64x8")
        store(target + 2 * at, added)
    for k in range(RAW, 256):
        total[0, k] = 0  # plain bits have no code
    for kind in range(2):
        for at in range(4096 * kind, 4096 * kind + 2048, 64):
            both = load(target + at, "i64x8") + load(target + at + 2048, "i64x8")
            store(target + 8 * SYMBOLS + at - 2048 * kind, both)


@inlined
def coded_bits(choice):
    """Bits of the symbols that `add_up` has counted in `choice`, coded with its `lut`. Plain bits do not
    count.
    """
    lut, total, work = address(choice.lut), address(choice.total), address(choice.work)
    bits = splat(0, "i64x8")
    for at in range(0, 4 * SYMBOLS, 32):
        bits = bits + convert(load(lut + at, "u32x8") & 31, "i64x8") * load(total + 2 * at, "i64x8")
    store(work, bits)
    for lane in range(1, 8):
        choice.work[0] += choice.work[lane]
    return choice.work[0]


@inlined
def choose(choice):
    """Make optimal tables for what `add_up` has counted: two of each kind, or one for all components if
    that is smaller.

    Fills `lut` and `dht` of `choice`, a record of `CHOICE`; returns how long the latter is, << 2, and bits 0
    and 1: whether there are two DC and two AC tables.
    """
    lut, dht, bits, values = choice.lut, choice.dht, choice.bits, choice.values
    total, work = choice.total, choice.work
    sizes, costs = 2048, 2054  # where they lie in `work`
    for row in range(6):
        work[sizes + row] = _optimal_code(total, bits, values, row, work)
        work[costs + row] = _cost(total, bits, values, row)
    length, two = 0, 0
    for table in range(4):
        kind, number = table >> 1, table & 1
        row = table
        if (
            work[costs + 4 + kind] <= work[costs + 2 * kind] + work[costs + 2 * kind + 1]
            or work[sizes + 2 * kind + 1] == 0
        ):
            row = 4 + kind
        elif number:
            two |= 1 << kind
        size = work[sizes + row]
        if row >= 4 and number:
            size = 0  # listed already
        if size > 0:
            dht[length] = kind << 4 | number
            for k in range(16):
                dht[length + 1 + k] = bits[row, k + 1]
            for k in range(size):
                dht[length + 17 + k] = values[row, k]
            length += 17 + size
        if row >= 4:
            for k in range(17):
                bits[table, k] = bits[row, k]
            for k in range(256):
                values[table, k] = values[row, k]
    _fill_lookup(lut, bits, values)
    return length << 2 | two


@kernel
def _choose(counts, choices):
    choice = choices[0]
    add_up(counts, choice.total)
    return choose(choice)


@kernel
def _look_up(lut, bits, values):
    _fill_lookup(lut, bits, values)


def chosen_tables(chosen: int, choice: np.ndarray) -> ScanTables:
    """The tables that `choose` left in an array of one record; `chosen`: its result."""
    dht = choice["dht"][0, : chosen >> 2].tobytes()
    return ScanTables(dht, ((0, 0), (chosen & 1, chosen >> 1 & 1)), choice["lut"][0])


def optimal_huffman(counts: np.ndarray) -> ScanTables:
    """The smallest tables for the symbols counted, uint32[n, 1024] rows to be added up: two of a kind, or one
    where that is smaller.
    """
    choice = np.empty(1, CHOICE)
    return chosen_tables(_choose(counts, choice), choice)


@cache
def standard_huffman(pairs: int) -> ScanTables:
    """The tables of T.81 K.3; the two for luminance alone where `pairs` is 1."""
    lut, bits, values = (
        np.empty(SYMBOLS, np.uint32),
        np.zeros((4, 17), np.uint8),
        np.zeros((4, 256), np.uint8),
    )
    for row, table in enumerate(STANDARD_HUFFMAN):
        bits[row] = np.frombuffer(table.bits, np.uint8)
        values[row, : len(table.values)] = np.frombuffer(table.values, np.uint8)
    _look_up(lut, bits, values)
    dht = b"".join(
        bytes([(row >> 1) << 4 | row & 1]) + STANDARD_HUFFMAN[row].bits[1:] + STANDARD_HUFFMAN[row].values
        for row in (range(4) if pairs == 2 else (0, AC))
    )
    return ScanTables(dht, ((0, 0), (1, 1)), lut)
