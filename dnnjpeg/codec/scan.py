"""Baseline scans (T.81 F.1.2): quantized blocks to tokens, the symbols to be coded with their extra bits.

A token is a uint32: symbol << 16 | value of the extra bits, the symbol being table << 8 | byte with tables DC 0, DC 1, AC 0, AC 1. How
many extra bits follow is known from the symbol. Code and extra bits together are at most 27 bits.
"""

import numpy as np

from dnnjpeg.codec.huffman import AC
from dnnjpeg.simd import (
    address,
    compress,
    convert,
    count_ones,
    count_zeros_low,
    highest_bit,
    host_has,
    inlined,
    kernel,
    load,
    load_scalar,
    magnitude_bits,
    mask_bits,
    shuffler,
    splat,
    store,
)

H, V, COLUMNS, ROWS, STRIDE, PLANE, STEPS, CODE = range(8)
"""Fields of a component: sampling factors; blocks that hold picture, across and down; blocks between rows of its plane of coefficients;
first block of that plane; quantization table; Huffman table pair."""

MAX_BLOCK_TOKENS = 64 + 2  # DC, 63 AC or fewer with ZRL and EOB

_POSITIONS = np.arange(64, dtype=np.int16)
_NO_DC = np.array([0] + [-1] * 31, dtype=np.int16)
_PREVIOUS = shuffler([32, *range(31)])
_LOW = shuffler(range(16))
_HIGH = shuffler(range(16, 32))


@inlined
def category(value):
    """Bits of |value| (T.81 Table F.1)."""
    return highest_bit(np.uint64(2 * abs(value) + 1))


@inlined
def put_token(out, symbol, size, extra):
    """Write one token at `out`; return the address behind it."""
    store(out, np.uint32(symbol << 16 | extra & ((1 << size) - 1)))
    return out + 4


@inlined
def put_dc(out, table, difference):
    """DC difference (T.81 F.1.2.1)."""
    size = category(difference)
    return put_token(out, table << 8 | size, size, difference - (difference < 0))


@inlined
def ac_bits(block):
    """Bit k is set where AC coefficient k (zigzag) is not zero."""
    low = load(block, "i16x32") & load(address(_NO_DC), "i16x32")
    return mask_bits(low != 0) | mask_bits(load(block + 64, "i16x32") != 0) << np.uint64(32)


@inlined
def _put_ac_one_by_one(out, block, symbols):
    left = ac_bits(block)
    previous = 0
    while left != 0:
        k = np.int64(count_zeros_low(left))
        left &= left - np.uint64(1)
        run = k - previous - 1
        previous = k
        while run > 15:
            out = put_token(out, symbols | 0xF0, 0, 0)
            run -= 16
        value = np.int64(load_scalar(block + 2 * k, "i16"))
        size = category(value)
        out = put_token(out, symbols | run << 4 | size, size, value - (value < 0))
    if previous != 63:
        out = put_token(out, symbols, 0, 0)
    return out


@inlined
def _tokens_16(values, runs, symbols):
    value = convert(values, "i32x16")
    size = magnitude_bits(value)
    extra = (value + (value >> 31)) & ((splat(1, "i32x16") << size) - 1)
    return (((convert(runs, "i32x16") << 4) | size | symbols) << 16) | extra


@inlined
def _put_half(out, values, positions, before, bits, symbols):
    """Tokens of the 32 coefficients whose non-zeros are `bits`; `before` is the position of the last non-zero before them."""
    n = np.int64(count_ones(bits))
    runs = positions - _PREVIOUS(positions, splat(before, "i16x32")) - 1
    too_long = mask_bits(runs > 15) & ((np.uint64(1) << np.uint64(n)) - np.uint64(1))
    store(out, _tokens_16(_LOW(values, values), _LOW(runs, runs), symbols))
    if n > 16:
        store(out + 64, _tokens_16(_HIGH(values, values), _HIGH(runs, runs), symbols))
    return out + 4 * n, too_long


@inlined
def _put_ac_in_vectors(out, block, symbols):
    """The same tokens as `_put_ac_one_by_one`, sixteen at a time; falls back to it where a run is longer than 15."""
    low = load(block, "i16x32") & load(address(_NO_DC), "i16x32")
    high = load(block + 64, "i16x32")
    is_low, is_high = low != 0, high != 0
    low_bits, high_bits = mask_bits(is_low), mask_bits(is_high)
    start = out
    last = 0
    long_run = np.uint64(0)
    if low_bits != 0:
        positions = compress(load(address(_POSITIONS), "i16x32"), is_low)
        out, long_run = _put_half(out, compress(low, is_low), positions, 0, low_bits, symbols)
        last = highest_bit(low_bits)
    if high_bits != 0:
        positions = compress(load(address(_POSITIONS) + 64, "i16x32"), is_high)
        out, long_high = _put_half(out, compress(high, is_high), positions, last, high_bits, symbols)
        long_run |= long_high
        last = 32 + highest_bit(high_bits)
    if long_run != 0:
        return _put_ac_one_by_one(start, block, symbols)
    if last != 63:
        out = put_token(out, symbols, 0, 0)
    return out


put_ac = _put_ac_in_vectors if host_has("avx512vbmi2") else _put_ac_one_by_one


@inlined
def mcu_row_tokens(out, coefficients, geometry, first_row, mcu_row, mcus, restart, state, bounds):
    """Tokens of one row of MCUs (T.81 A.2.3) written at `out`; returns the address behind them.

    `coefficients`: address of int16 blocks in zigzag order. `geometry`: int64[components, 8], fields as above. Block row y of
    a component is found at row y - first_row · v of its plane. `state`: int64[components] DC predictions, kept between calls.
    `bounds`: int64 array with the number of restart intervals begun in its first element and, behind it, the address of the tokens
    at which each begins.
    """
    for mcu in range(mcus):
        index = mcu_row * mcus + mcu
        if restart > 0 and index % restart == 0:
            state[:] = 0
            bounds[0] += 1
            bounds[bounds[0]] = out
        for c in range(geometry.shape[0]):
            h, v, columns, rows = geometry[c, H], geometry[c, V], geometry[c, COLUMNS], geometry[c, ROWS]
            stride, plane, tables = geometry[c, STRIDE], geometry[c, PLANE], geometry[c, CODE]
            prediction = state[c]
            for y in range(mcu_row * v, mcu_row * v + v):
                row = coefficients + (plane + (y - first_row * v) * stride) * 128
                for x in range(mcu * h, mcu * h + h):
                    if x < columns and y < rows:
                        block = row + x * 128
                        dc = np.int64(load_scalar(block, "i16"))
                        out = put_dc(out, tables, dc - prediction)
                        prediction = dc
                        out = put_ac(out, block, (AC + tables) << 8)
                    else:  # outside the picture: nothing is cheaper than no change and no AC
                        out = put_dc(out, tables, 0)
                        out = put_token(out, (AC + tables) << 8, 0, 0)
            state[c] = prediction
    return out


@kernel
def plane_tokens(out, coefficients, geometry, mcus, mcu_rows, restart, bounds):
    """Tokens of a baseline scan of whole planes; returns the address behind them."""
    state = np.zeros(geometry.shape[0], np.int64)
    for mcu_row in range(mcu_rows):
        out = mcu_row_tokens(out, coefficients, geometry, 0, mcu_row, mcus, restart, state, bounds)
    return out
