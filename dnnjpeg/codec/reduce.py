"""Reduce the samples of chroma without decoding to pixels.

Averaging neighbouring samples is linear, and so is the DCT. So each coefficient of the averages is a weighted
sum of the coefficients of the blocks that are averaged. Nothing is rounded or limited to 0..255 in between.
"""

import numpy as np

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, fused, load, load_scalar, mask_bits, splat, store
from dnnjpeg.machine.words import count_zeros_low

ACROSS_FIRST = np.argsort(NATURAL).reshape(8, 8).T.ravel().astype(np.uint8)
"""uint8[64]. Element 8·across + down is the position of these frequencies in zigzag order."""
_NATURAL = np.array(NATURAL, np.uint8)
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
def _add_down(block, steps, matrix, columns):
    """Apply a matrix to the vertical frequencies of a block, and add the result to `columns`.

    block: address of int16[64] in zigzag order. steps: address of float32[64], factors of the coefficients.
    columns: address of float32[8 across][8 down].

    Returns a uint64. Bit k is set if the block adds to column k.
    """
    low, high = mask_bits(load(block, "i16x32") != 0), mask_bits(load(block + 64, "i16x32") != 0)
    left, used = low | high << np.uint64(32), np.uint64(0)
    while left != 0:
        k = np.int64(count_zeros_low(left))
        left &= left - np.uint64(1)
        value = np.float32(load_scalar(block + 2 * k, "i16")) * load_scalar(steps + 4 * k, "f32")
        place = np.int64(load_scalar(address(_NATURAL) + k, "u8"))
        row = columns + (place & 7) * 32
        used |= np.uint64(1) << np.uint64(place & 7)
        store(
            row, fused(splat(value, "f32x8"), load(matrix + (place >> 3) * 32, "f32x8"), load(row, "f32x8"))
        )
    return used


@inlined
def _add(total, vector, weight):
    return fused(vector, splat(load_scalar(weight, "f32"), "f32x8"), total)


@inlined
def _take_across(room, used, matrix):
    """Apply a matrix to the horizontal frequencies, in place.

    room: address of float32[n][8 down], the result is float32[8 across][8 down]. used: bit k is set for each
    column k that is not zero.
    """
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    while used != 0:
        i = np.int64(count_zeros_low(used))
        used &= used - np.uint64(1)
        vector, weights = load(room + i * 32, "f32x8"), matrix + i * 32
        a, b = _add(a, vector, weights), _add(b, vector, weights + 4)
        c, d = _add(c, vector, weights + 8), _add(d, vector, weights + 12)
        e, f = _add(e, vector, weights + 16), _add(f, vector, weights + 20)
        g, h = _add(g, vector, weights + 24), _add(h, vector, weights + 28)
    store(room, a)
    store(room + 32, b)
    store(room + 64, c)
    store(room + 96, d)
    store(room + 128, e)
    store(room + 160, f)
    store(room + 192, g)
    store(room + 224, h)


@inlined
def average(source, stride, columns, rows, x, y, across, down, steps, room):
    """Compute one block of averages of `across` x `down` samples.

    source: address of the component's blocks, int16[64] in zigzag order. stride: blocks from one row to the
        next. columns, rows: the number of blocks that hold picture.
    x, y: the column and the row of the block of averages.
    steps: address of float32[64], factors of the coefficients, zigzag order.
    room: address of float32[8 · across][8]. The result is at its beginning, [8 across][8 down].
    """
    high, wide = min(down, rows - y * down), min(across, columns - x * across)
    for i in range(0, 256 * across, 32):
        store(room + i, splat(np.float32(0), "f32x8"))
    used = np.uint64(0)
    for j in range(high):
        for i in range(wide):
            block = source + ((y * down + j) * stride + x * across + i) * 128
            matrix = _matrices(down, high) + j * 256
            used |= _add_down(block, steps, matrix, room + i * 256) << np.uint64(8 * i)
    _take_across(room, used, _matrices(across, wide))
