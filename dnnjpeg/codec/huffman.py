"""Huffman tables: the best ones for counted symbols (T.81 K.2), and the standard ones."""

from functools import cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.jpeg.standard import STANDARD_HUFFMAN
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, convert, load, mask_bits, splat, store
from dnnjpeg.machine.words import count_ones

MAX_LENGTH = 16
SYMBOLS = 1024  # four tables of 256: DC 0, DC 1, AC 0, AC 1
AC = 2  # first of the two AC tables
_UNSORTED = 1400  # where keys lie in `work` before they are sorted
_ENDLESS = 1 << 62  # larger than all keys
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
"""The memory of `choose`.

`add_up` fills `total`. `choose` fills `lut` and `dht`, see `ScanTables`, and works in the others. The rows of
`bits`, `values` and `total` are the tables DC 0, DC 1, AC 0, AC 1, one DC table for all components, and one
AC table for all components.
"""


class ScanTables(NamedTuple):
    """The Huffman tables of a scan.

    dht: the payload of the DHT segment.
    destinations: the numbers of the DC and the AC table, for components of the first pair of Huffman tables
        and for those of the second.
    lut: uint32[1024], one number for each symbol: code << (extra bits + 5) | length of the code + extra bits.
    """

    dht: bytes
    destinations: tuple[tuple[int, int], tuple[int, int]]
    lut: np.ndarray


# The kernels below take a row's number, not the row: numpy's own operations inside them cost seconds of
# compilation.


@inlined
def _sort_by_count(counts, row, keys):
    """Write count << 8 | 255 - symbol of each symbol that occurs to `keys`, rarest first.

    Returns the number of these symbols. `keys[_UNSORTED:]` is scratch.
    """
    n = 0
    for symbol in range(256):
        count = counts[row, symbol]
        keys[_UNSORTED + n] = count << 8 | (255 - symbol)
        n += np.int64(count > 0)
    for i in range(n, n + 7):
        keys[_UNSORTED + i] = _ENDLESS
    # the place of each is the number of smaller ones: no branch has to be guessed
    begin = address(keys) + 8 * _UNSORTED
    for i in range(n):
        key = keys[_UNSORTED + i]
        place = 0
        for at in range(begin, begin + 8 * n, 64):
            place += np.int64(count_ones(mask_bits(load(at, "i64x8") < key)))
        keys[place] = key
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
    """Write the canonical codes (T.81 C.2) of one table to `lut`. row: its row in `bits` and `values`."""
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
    """The number of bits that the counted symbols take with a table, and the table itself in DHT."""
    total, k = 0, 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(bits[row, length]):
            total += length * counts[row, values[row, k]]
            k += 1
    return total + 8 * (17 + k)


@inlined
def _fill_lookup(lut, bits, values):
    """Write the codes of the tables DC 0, DC 1, AC 0 and AC 1 to `lut`, see `ScanTables`."""
    for symbol in range(SYMBOLS):
        lut[symbol] = symbol - RAW if RAW <= symbol < RAW + 16 else 0
    for table in range(4):
        _fill(lut, bits, values, table)


@inlined
def add_up(counts, total):
    """Add up how often each symbol occurs.

    counts: uint32[n, 1024]. Its rows are added.
    total: int64[6, 256], the output: the counts of DC 0, DC 1, AC 0, AC 1, of both DC, and of both AC tables.
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
    """The number of bits that the symbols counted by `add_up` take with the codes in `lut`.

    Plain bits are not counted. choice: a record of `CHOICE`.
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
    """Make the best tables for the symbols that `add_up` has counted.

    There are two DC tables, or one for all components if that is smaller. The same holds for AC tables.

    choice: a record of `CHOICE`. Its `lut` and `dht` are filled.

    Returns the length of `dht` << 2. Bit 0 is set if there are two DC tables, bit 1 if there are two AC
    tables.
    """
    lut, dht, bits, values = choice.lut, choice.dht, choice.bits, choice.values
    total, work = choice.total, choice.work
    sizes, costs = 2048, 2054  # where these begin in `work`
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
            size = 0  # the one table is in `dht` already
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
    """The tables that `choose` has made. chosen: its result. choice: an array of one record of `CHOICE`."""
    dht = choice["dht"][0, : chosen >> 2].tobytes()
    return ScanTables(dht, ((0, 0), (chosen & 1, chosen >> 1 & 1)), choice["lut"][0])


def optimal_huffman(counts: np.ndarray) -> ScanTables:
    """The best tables for counted symbols, see `choose`. counts: uint32[n, 1024]; its rows are added."""
    choice = np.empty(1, CHOICE)
    return chosen_tables(_choose(counts, choice), choice)


@cache
def standard_huffman(pairs: int) -> ScanTables:
    """The tables of T.81 K.3. pairs: 2 for luminance and chrominance, 1 for luminance alone."""
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
