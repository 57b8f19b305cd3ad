"""Reduce the samples of chroma without decoding to pixels.

Averaging neighbouring samples is linear, and so is the DCT. So each coefficient of the averages is a weighted
sum of the coefficients of the blocks that are averaged. Nothing is rounded or limited to 0..255 in between.
"""

import numpy as np

from dnnjpeg.codec.dct import store_4, store_8
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import (
    address,
    convert,
    fused,
    load,
    load_scalar,
    mask_bits,
    splat,
    store,
)

ACROSS_FIRST = np.argsort(NATURAL).reshape(8, 8).T.ravel().astype(np.uint8)
"""uint8[64]. Element 8·across + down is the position of these frequencies in zigzag order."""
_HIGH = sum(1 << k for k in range(32) if NATURAL[k] // 8 > 3 or NATURAL[k] % 8 > 3)
"""Bit k is set if coefficient k, in zigzag order, is beyond the lowest four frequencies; k below 32."""
_MOST = 4  # blocks side by side that become one
ROOM = 256 * (_MOST + 1) + 512 * _MOST  # bytes that `average` works in


def _averaging() -> np.ndarray:
    """Matrices that average samples in one direction: float32[factor, n, j, 8, 8].

    Matrix [factor, n, j] says how block j of n neighbours adds to the block of averages of `factor` samples.
    Its rows are the frequencies of block j, its columns those of the averages. If n < factor, the picture
    ends there, and its last sample is repeated.
    """
    k, n = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    dct = np.where(k == 0, np.sqrt(1 / 8), 0.5) * np.cos((2 * n + 1) * k * np.pi / 16)
    repeat = dct @ np.outer(np.ones(8), dct.T[7])
    matrices = np.zeros((_MOST + 1, _MOST + 1, _MOST, 8, 8), np.float32)
    for factor in range(1, _MOST + 1):
        average = np.kron(np.eye(8), np.full((1, factor), 1 / factor))
        parts = [dct @ average[:, 8 * j : 8 * j + 8] @ dct.T for j in range(factor)]
        for count in range(1, factor + 1):
            for j, part in enumerate(parts):
                if j < count:
                    matrices[factor, count, j] += part.T
                else:
                    matrices[factor, count, count - 1] += (part @ repeat).T
    return matrices


_AVERAGING = _averaging()


@inlined
def _matrices(factor, count):
    """Address of the matrices [factor, count]."""
    return address(_AVERAGING) + (factor * (_MOST + 1) + count) * _MOST * 256


@inlined
def _add(total, vector, weight):
    return fused(vector, splat(load_scalar(weight, "f32"), "f32x8"), total)


@inlined
def _values(block, steps, out):
    """Multiply the coefficients of a block by their factors. Returns a mask of those beyond the lowest four
    frequencies that are not zero. All arguments are addresses.
    """
    low, rest = mask_bits(load(block, "i16x32") != 0), mask_bits(load(block + 64, "i16x32") != 0)
    for i in range(0, 64, 16):
        indices = convert(load(block + 2 * i, "i16x16"), "f32x16")
        store(out + 4 * i, indices * load(steps + 4 * i, "f32x16"))
    return low & np.uint64(_HIGH) | rest


@inlined
def _add_row(a, b, c, d, e, f, g, h, values, row, i, j, k, n):
    """Add four coefficients of one vertical frequency to their columns, of two blocks. i to n: their zigzag
    positions.
    """
    vector, second = load(row, "f32x8"), values + 256
    a, b = _add(a, vector, values + 4 * i), _add(b, vector, values + 4 * j)
    c, d = _add(c, vector, values + 4 * k), _add(d, vector, values + 4 * n)
    e, f = _add(e, vector, second + 4 * i), _add(f, vector, second + 4 * j)
    return a, b, c, d, e, f, _add(g, vector, second + 4 * k), _add(h, vector, second + 4 * n)


@inlined
def _store_columns(columns, a, b, c, d, e, f, g, h):
    store_4(columns, 32, a, b, c, d)
    store_4(columns + 256, 32, e, f, g, h)


@inlined
def _take_down(first, second, stride, high, steps, matrix, columns, values):
    """Apply matrices to the vertical frequencies of blocks below each other, and add up the results. It does
    so for two columns of blocks, because the sums of one would wait for each other.

    first, second: addresses of the first blocks, int16[64] in zigzag order. stride: blocks from one to the
        next.
    high: the number of blocks. steps: address of float32[64], factors of the coefficients.
    matrix: address of `high` matrices, float32[8][8]. values: address of scratch, float32[high][2][64].
    columns: address of the results, float32[2][8 across][8 down].

    Returns whether the last four columns are not all zero. If they are, they are not stored.
    """
    wide = np.uint64(0)
    for n in range(high):
        at = n * stride * 128
        wide |= _values(first + at, steps, values + 512 * n)
        wide |= _values(second + at, steps, values + 512 * n + 256)
    zero = splat(np.float32(0), "f32x8")
    # by rows; the numbers are places in zigzag order
    s = zero, zero, zero, zero, zero, zero, zero, zero
    for n in range(high):
        rows, at = matrix + 256 * n, values + 512 * n
        s = _add_row(*s, at, rows, 0, 1, 5, 6)
        s = _add_row(*s, at, rows + 32, 2, 4, 7, 13)
        s = _add_row(*s, at, rows + 64, 3, 8, 12, 17)
        s = _add_row(*s, at, rows + 96, 9, 11, 18, 24)
        if wide != 0:
            s = _add_row(*s, at, rows + 128, 10, 19, 23, 32)
            s = _add_row(*s, at, rows + 160, 20, 22, 33, 38)
            s = _add_row(*s, at, rows + 192, 21, 34, 37, 47)
            s = _add_row(*s, at, rows + 224, 35, 36, 48, 49)
    _store_columns(columns, *s)
    if wide == 0:
        return False
    s = zero, zero, zero, zero, zero, zero, zero, zero
    for n in range(high):
        rows, at = matrix + 256 * n, values + 512 * n
        s = _add_row(*s, at, rows, 14, 15, 27, 28)
        s = _add_row(*s, at, rows + 32, 16, 26, 29, 42)
        s = _add_row(*s, at, rows + 64, 25, 30, 41, 43)
        s = _add_row(*s, at, rows + 96, 31, 40, 44, 53)
        s = _add_row(*s, at, rows + 128, 39, 45, 52, 54)
        s = _add_row(*s, at, rows + 160, 46, 51, 55, 60)
        s = _add_row(*s, at, rows + 192, 50, 56, 59, 61)
        s = _add_row(*s, at, rows + 224, 57, 58, 62, 63)
    _store_columns(columns + 128, *s)
    return True


@inlined
def _take_across(columns, wide, count, matrix, out):
    """Apply matrices to the horizontal frequencies of `count` times eight columns.

    columns: address of float32[count][8 across][8 down]. wide: bit n is not set if the last four of the eight
    columns n count as zero. out: address of the result, float32[8 across][8 down].
    """
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(count):
        for at in range(256 * i, 256 * i + 128 + 128 * (wide >> i & 1), 32):
            vector, weights = load(columns + at, "f32x8"), matrix + at
            a, b = _add(a, vector, weights), _add(b, vector, weights + 4)
            c, d = _add(c, vector, weights + 8), _add(d, vector, weights + 12)
            e, f = _add(e, vector, weights + 16), _add(f, vector, weights + 20)
            g, h = _add(g, vector, weights + 24), _add(h, vector, weights + 28)
    store_8(out, 32, a, b, c, d, e, f, g, h)


@inlined
def average(source, stride, columns, rows, x, y, across, down, steps, room):
    """Compute one block of averages of `across` x `down` samples.

    source: address of the component's blocks, int16[64] in zigzag order. stride: blocks from one row to the
        next. columns, rows: the number of blocks that hold picture.
    x, y: the column and the row of the block of averages.
    steps: address of float32[64], factors of the coefficients, zigzag order.
    room: address of `ROOM` bytes. The result is at their beginning, float32[8 across][8 down].
    """
    high, count = min(down, rows - y * down), min(across, columns - x * across)
    matrix, wide = _matrices(down, high), np.int64(0)
    for i in range(0, count, 2):
        block = source + (y * down * stride + x * across + i) * 128
        second = block + 128 * (i + 1 < count)  # the last of an odd number twice
        is_wide = _take_down(
            block, second, stride, high, steps, matrix, room + 256 * i + 256, room + 256 * (_MOST + 1)
        )
        wide |= (3 if is_wide else 0) << i
    _take_across(room + 256, wide, count, _matrices(across, count), room)
