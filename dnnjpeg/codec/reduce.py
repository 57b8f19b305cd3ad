"""Reduce the samples of chroma without decoding to pixels.

Averaging neighbouring samples is linear, and so is the DCT. So each coefficient of the averages is a weighted
sum of the coefficients of the blocks that are averaged. Nothing is rounded or limited to 0..255 in between.
"""

import numpy as np

from dnnjpeg.codec.dct import store_8
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
def _add_row(a, b, c, d, values, row, i, j, k, n):
    """Add four coefficients of one vertical frequency to their columns. i to n: their zigzag positions."""
    vector = load(row, "f32x8")
    a, b = _add(a, vector, values + 4 * i), _add(b, vector, values + 4 * j)
    return a, b, _add(c, vector, values + 4 * k), _add(d, vector, values + 4 * n)


@inlined
def _take_down(block, stride, high, steps, matrix, columns, values):
    """Apply matrices to the vertical frequencies of blocks below each other, and add up the results.

    block, stride: address of the first block, int16[64] in zigzag order, and blocks from one to the next.
    high: the number of blocks. steps: address of float32[64], factors of the coefficients.
    matrix: address of `high` matrices, float32[8][8]. values: address of scratch, float32[64].
    columns: address of the result, float32[8 across][8 down].

    Returns whether the last four columns are not all zero.
    """
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    wide = np.int64(0)
    for rows in range(matrix, matrix + 256 * high, 256):
        low, rest = mask_bits(load(block, "i16x32") != 0), mask_bits(load(block + 64, "i16x32") != 0)
        for i in range(0, 64, 16):
            indices = convert(load(block + 2 * i, "i16x16"), "f32x16")
            store(values + 4 * i, indices * load(steps + 4 * i, "f32x16"))
        block += stride * 128
        # by rows; the numbers are places in zigzag order
        a, b, c, d = _add_row(a, b, c, d, values, rows, 0, 1, 5, 6)
        a, b, c, d = _add_row(a, b, c, d, values, rows + 32, 2, 4, 7, 13)
        a, b, c, d = _add_row(a, b, c, d, values, rows + 64, 3, 8, 12, 17)
        a, b, c, d = _add_row(a, b, c, d, values, rows + 96, 9, 11, 18, 24)
        if low & np.uint64(_HIGH) | rest != 0:  # half of all blocks of chroma
            wide = 1
            e, f, g, h = _add_row(e, f, g, h, values, rows, 14, 15, 27, 28)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 32, 16, 26, 29, 42)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 64, 25, 30, 41, 43)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 96, 31, 40, 44, 53)
            a, b, c, d = _add_row(a, b, c, d, values, rows + 128, 10, 19, 23, 32)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 128, 39, 45, 52, 54)
            a, b, c, d = _add_row(a, b, c, d, values, rows + 160, 20, 22, 33, 38)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 160, 46, 51, 55, 60)
            a, b, c, d = _add_row(a, b, c, d, values, rows + 192, 21, 34, 37, 47)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 192, 50, 56, 59, 61)
            a, b, c, d = _add_row(a, b, c, d, values, rows + 224, 35, 36, 48, 49)
            e, f, g, h = _add_row(e, f, g, h, values, rows + 224, 57, 58, 62, 63)
    store_8(columns, 32, a, b, c, d, e, f, g, h)
    return wide


@inlined
def _take_across(columns, wide, count, matrix, out):
    """Apply matrices to the horizontal frequencies of `count` times eight columns.

    columns: address of float32[count][8 across][8 down]. wide: bit n is not set if the last four of the eight
    columns n are zero. out: address of the result, float32[8 across][8 down].
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
    room: address of float32[8 · across][8]. The result is at its beginning, [8 across][8 down].
    """
    high, count = min(down, rows - y * down), min(across, columns - x * across)
    matrix, wide = _matrices(down, high), np.int64(0)
    for i in range(count):
        block = source + (y * down * stride + x * across + i) * 128
        wide |= _take_down(block, stride, high, steps, matrix, room + 256 * i + 256, room) << i
    _take_across(room + 256, wide, count, _matrices(across, count), room)
