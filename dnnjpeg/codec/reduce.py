"""Chroma gets fewer samples without pixels.

Averaging neighbouring samples is linear, and so is the DCT: the coefficients of a block of averages are sums
of those of the blocks it is made of. Nothing is rounded or held to 0..255 on the way.
"""

import numpy as np

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, fused, load, load_scalar, mask_bits, splat, store
from dnnjpeg.machine.words import count_zeros_low

ACROSS_FIRST = np.argsort(NATURAL).reshape(8, 8).T.ravel().astype(np.uint8)
"""By frequencies across, then down: the place in zigzag order."""
_NATURAL = np.array(NATURAL, np.uint8)
_MOST = 4  # blocks side by side that become one


def _averaging() -> np.ndarray:
    """float32[factor, n, j, 8, 8]: the j-th of n blocks side by side, frequency by frequency, to the block of
    averages of `factor` samples. Where n < factor, the last sample stands for those that lack.
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
    """Address of those of `count` blocks."""
    return address(_AVERAGING) + (factor * (_MOST + 1) + count) * _MOST * 256


@inlined
def _add_down(block, steps, matrix, columns):
    """Add a block, its frequencies down taken through a matrix, to float32[8 across][8 down]; returns the
    columns that it adds to, a bit each.
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
    """The frequencies across of the `used` columns taken through a matrix, in place: to [across][down]."""
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
    """The coefficients of a block of averages of `across` x `down` samples in `room`, float32[8 across][8
    down]; there are further 256 bytes of that for each block across.

    source: address of a component's blocks in zigzag order, `rows` x `columns` that hold picture, rows of
        blocks `stride` apart. steps: float32[64].
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
