"""Blocks become entries, and entries become tokens.

A row of MCUs is first laid out as entries: the DC difference, the AC coefficients that are not zero, and
the EOB of each block, one after another, as int16 values and uint8 positions. Then all of them become
tokens, sixteen at a time, whatever block they are of.
"""

import numpy as np

from dnnjpeg.codec.huffman import AC
from dnnjpeg.machine.jit import host_has, inlined
from dnnjpeg.machine.native import pick_bytes
from dnnjpeg.machine.simd import (
    address,
    compress,
    convert,
    count_set,
    lanes_of,
    load,
    load_scalar,
    magnitude_bits,
    mask_bits,
    select,
    shuffler,
    splat,
    store,
)
from dnnjpeg.machine.words import count_ones, count_zeros_low, highest_bit

_EOB = 64  # position of the end of a block among the entries
CHROMA = 128  # added to the positions of entries that are coded with the second pair of tables
_POSITIONS = np.arange(64, dtype=np.uint8)
_DC = np.array([1] + [0] * 31, dtype=np.int16)
_FIRST_HALF = shuffler(range(32))
_FIRST_16 = shuffler(range(16))
_TOKENS = shuffler([lane + part for lane in range(16) for part in (0, 16)])  # extra bits below the symbol


@inlined
def category(value):
    """The number of bits of |value|, 0 for 0: the category of T.81 Table F.1."""
    return highest_bit(np.uint64(2 * abs(value) + 1))


@inlined
def put_token(out, symbol, size, extra):
    """Write one token at address `out`: a symbol, and the low `size` bits of `extra`. Returns the address
    behind it.
    """
    store(out, np.uint32(symbol << 16 | extra & ((1 << size) - 1)))
    return out + 4


@inlined
def put_dc(out, table, difference):
    """Write the token of a DC difference (T.81 F.1.2.1) at address `out`. Returns the address behind it.

    table: number of the DC Huffman table, 0 or 1.
    """
    size = category(difference)
    return put_token(out, table << 8 | size, size, difference - (difference < 0))


@inlined
def _append_compressed(values, positions, block, chroma):
    """Write the entries of a block, but not the value of its DC. Returns their number, and a uint64 whose bit
    k is set where coefficient k is not zero; bit 0 is always set.
    """
    low, high = load(block, "i16x32") | load(address(_DC), "i16x32"), load(block + 64, "i16x32")
    in_low, in_high = low != 0, high != 0
    low_bits, high_bits = mask_bits(in_low), mask_bits(in_high)
    bits = low_bits | high_bits << np.uint64(32)
    if bits == 1:
        store(positions, np.uint8(chroma))
        return 1, bits
    packed = compress(low, in_low)
    here = count_ones(low_bits)
    if here <= 16:
        store(values, _FIRST_16(packed, packed))
    else:
        store(values, packed)
    placed = compress(load(address(_POSITIONS), "u8x64") + chroma, lanes_of(bits, "i1x64"))
    if high_bits == 0:  # stores as wide as these cost more than what is compressed
        store(positions, _FIRST_HALF(placed, placed))
    else:
        store(values + 2 * np.int64(here), compress(high, in_high))
        store(positions, placed)
    return np.int64(count_ones(bits)), bits


@inlined
def _append_one_by_one(values, positions, block, chroma):
    low, high = load(block, "i16x32") | load(address(_DC), "i16x32"), load(block + 64, "i16x32")
    bits = mask_bits(low != 0) | mask_bits(high != 0) << np.uint64(32)
    left = bits
    n = 0
    while left != 0:
        k = np.int64(count_zeros_low(left))
        left &= left - np.uint64(1)
        store(values + 2 * n, load_scalar(block + 2 * k, "i16"))
        store(positions + n, np.uint8(k + chroma))
        n += 1
    return n, bits


def _compressing() -> np.ndarray:
    """uint8[256, 32]. The row is a mask of eight int16 coefficients. Its first half has the numbers of the
    bytes to move to the front, its second half the numbers of the coefficients.
    """
    table = np.zeros((256, 32), np.uint8)
    for mask in range(256):
        lanes = np.array([k for k in range(8) if mask >> k & 1], np.uint8)
        table[mask, : 2 * lanes.size] = (2 * lanes[:, None] + np.array([0, 1], np.uint8)).ravel()
        table[mask, 16 : 16 + lanes.size] = lanes
    return table


_EIGHTS = _compressing()
_EVERY_BYTE = 0x0101010101010101


@inlined
def _append_eight(values, positions, n, block, bits, k, added):
    """Write the entries of the coefficients k..k + 7 behind n others. Returns how many there are now."""
    row = address(_EIGHTS) + (bits >> k & 255) * 32
    store(values + 2 * n, pick_bytes(load(block + 2 * k, "u8x16"), load(row, "u8x16")))
    store(positions + n, load_scalar(row + 16, "i64") + (added + k * _EVERY_BYTE))
    return n + np.int64(count_ones(np.uint64(bits >> k & 255)))


@inlined
def _append_by_eights(values, positions, block, chroma):
    low, high = load(block, "i16x32") | load(address(_DC), "i16x32"), load(block + 64, "i16x32")
    low_bits, high_bits = np.int64(mask_bits(low != 0)), np.int64(mask_bits(high != 0))
    added = chroma * _EVERY_BYTE
    n = _append_eight(values, positions, 0, block, low_bits, 0, added)
    if low_bits > 255:
        n = _append_eight(values, positions, n, block, low_bits, 8, added)
        n = _append_eight(values, positions, n, block, low_bits, 16, added)
        n = _append_eight(values, positions, n, block, low_bits, 24, added)
    if high_bits != 0:
        n = _append_eight(values, positions, n, block + 64, high_bits, 0, added + 32 * _EVERY_BYTE)
        n = _append_eight(values, positions, n, block + 64, high_bits, 8, added + 32 * _EVERY_BYTE)
        n = _append_eight(values, positions, n, block + 64, high_bits, 16, added + 32 * _EVERY_BYTE)
        n = _append_eight(values, positions, n, block + 64, high_bits, 24, added + 32 * _EVERY_BYTE)
    return n, np.uint64(low_bits | high_bits << 32)


if host_has("avx512vbmi2"):
    _append_non_zeros = _append_compressed
elif host_has("ssse3"):
    _append_non_zeros = _append_by_eights
else:
    _append_non_zeros = _append_one_by_one


@inlined
def append_block(values, positions, block, chroma, difference):
    """Write the entries of a block. Returns their number.

    values: address for int16 values. positions: address for uint8 positions: 0 is DC, 1..63 are AC in zigzag
        order, 64 is EOB. Whole vectors are stored, so bytes behind the entries are overwritten.
    block: address of int16[64] in zigzag order.
    chroma: 0, or `CHROMA` for the second pair of Huffman tables; it is added to the positions.
    difference: of the DC, to the block before.
    """
    n, bits = _append_non_zeros(values, positions, block, chroma)
    store(values, np.int16(difference))
    store(values + 2 * n, np.int16(0))
    store(positions + n, np.uint8(_EOB + chroma))
    return n + 1 - np.int64(bits >> np.uint64(63))  # the last coefficient is its own end


@inlined
def append_nothing(values, positions, chroma):
    """Write the entries of a block outside the picture: a DC difference of 0 and an EOB, which take the
    fewest bits. Arguments as in `append_block`. Returns their number.
    """
    store(values, np.uint32(0))
    store(positions, np.uint8(chroma))
    store(positions + 1, np.uint8(_EOB + chroma))
    return 2


@inlined
def _tokens_wide(here, before, value):
    """Make the tokens of sixteen entries, u32x16. Returns them, and a mask of those that are wrong because
    more than 15 zeros come before them.

    here, before, value: addresses of the positions, of the positions one entry earlier, and of the values.
    """
    here, value = convert(load(here, "u8x16"), "i32x16"), convert(load(value, "i16x16"), "i32x16")
    run = here - convert(load(before, "u8x16"), "i32x16") - 1
    size = magnitude_bits(value)
    table = (here & CHROMA) << 1
    position = here & (CHROMA - 1)
    is_dc, is_eob = position == 0, position == _EOB
    prefix = select(is_dc | is_eob, 0, run << 4)
    symbol = select(is_dc, table, table + (AC << 8)) | prefix | size
    extra = (value + (value >> 31)) & ((splat(1, "i32x16") << size) - 1)
    return (symbol << 16) | extra, mask_bits(prefix > 0xF0)


@inlined
def _tokens_narrow(here, before, value):
    """`_tokens_wide` in vectors of int16."""
    here, value = convert(load(here, "u8x16"), "i16x16"), load(value, "i16x16")
    run = here - convert(load(before, "u8x16"), "i16x16") - 1
    # ones from the highest set bit on downwards
    ones = select(value < 0, 0 - value, value)
    ones = ones | ones >> 1
    ones = ones | ones >> 2
    ones = ones | ones >> 4
    ones = ones | ones >> 8
    table = (here & CHROMA) << 1
    position = here & (CHROMA - 1)
    is_dc, is_eob = position == 0, position == _EOB
    prefix = select(is_dc | is_eob, 0, run << 4)
    symbol = select(is_dc, table, table + (AC << 8)) | prefix | count_set(ones)
    return _TOKENS((value + (value >> 15)) & ones, symbol), mask_bits(prefix > 0xF0)


_sixteen_tokens = _tokens_wide if host_has("avx512bw") else _tokens_narrow


@inlined
def put_entries(out, values, positions, count):
    """Write the tokens of `count` entries at address `out`. Returns the address behind them.

    values, positions: addresses, see `append_block`. The byte before `positions` is read, too.
    """
    i = 0
    while i < count:
        tokens, long = _sixteen_tokens(positions + i, positions + i - 1, values + 2 * i)
        store(out, tokens)
        n = min(count - i, 16)
        long &= (np.uint64(1) << np.uint64(n)) - np.uint64(1)
        if long != 0:  # a run of more than 15 zeros, which ends the tokens that are right
            n = np.int64(count_zeros_low(long))
            out = _put_long_run(out + 4 * n, values + 2 * (i + n), positions + i + n)
            i += n + 1
        else:
            out += 4 * n
            i += n
    return out


@inlined
def _put_long_run(out, value, position):
    """Write the tokens of one entry with more than 15 zeros before it. value, position: its addresses."""
    place, amount = np.int64(load_scalar(position, "u8")), np.int64(load_scalar(value, "i16"))
    table = AC << 8 | (place & CHROMA) << 1
    zeros = place - np.int64(load_scalar(position - 1, "u8")) - 1
    while zeros > 15:
        out = put_token(out, table | 0xF0, 0, 0)
        zeros -= 16
    size = category(amount)
    return put_token(out, table | zeros << 4 | size, size, amount - (amount < 0))
