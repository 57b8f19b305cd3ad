"""Reduce the samples of chroma without decoding to pixels.

Averaging neighbouring samples is linear, and so is the DCT. So each coefficient of the averages is a weighted
sum of the coefficients of the blocks that are averaged. Nothing is rounded or limited to 0..255 in between.
"""

import numpy as np

from dnnjpeg.codec.dct import store_8
from dnnjpeg.codec.halve import FOLDED, fold_order, halved
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import (
    address,
    convert,
    fused,
    load,
    load_scalar,
    shuffler,
    splat,
    store,
)

_MOST = 4  # blocks side by side that become one
_VALUES = 256 * _MOST  # in the room of `average`, where values are kept
_FOLDED = _VALUES + 256 * _MOST  # where blocks are put into folded order
ROOM = _FOLDED + 128 * _MOST * _MOST  # bytes that `average` works in

_PLACES = (4 * np.argsort(np.array(NATURAL)[FOLDED])).astype(np.uint8)
"""Where in a block of floats in folded order the coefficient 8·down + across is, in bytes."""
_EVENS = shuffler([0, 2, 4, 6, 8, 10, 12, 14])
_ODDS = shuffler([1, 3, 5, 7, 9, 11, 13, 15])
_BOTH = shuffler(range(16))


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
    """Multiply the coefficients of a block by their factors. All arguments are addresses."""
    for i in range(0, 64, 16):
        indices = convert(load(block + 2 * i, "i16x16"), "f32x16")
        store(out + 4 * i, indices * load(steps + 4 * i, "f32x16"))


@inlined
def _placed(values, down, across):
    return values + np.int64(load_scalar(address(_PLACES) + 8 * down + across, "u8"))


@inlined
def _take_down(block, stride, high, steps, matrix, columns, values):
    """Apply matrices to the vertical frequencies of blocks below each other, and add up the results.

    block: address of the first block, int16[64] in folded order. stride: blocks from one to the next.
    high: the number of blocks. steps: address of float32[64], factors of the coefficients.
    matrix: address of `high` matrices, float32[8][8]. values: address of scratch, float32[high][64].
    columns: address of the results, float32[8 across][8 down].
    """
    for n in range(high):
        _values(block + n * stride * 128, steps, values + 256 * n)
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for n in range(high):
        for down in range(8):
            vector, at = load(matrix + 256 * n + 32 * down, "f32x8"), values + 256 * n
            a, b = _add(a, vector, _placed(at, down, 0)), _add(b, vector, _placed(at, down, 1))
            c, d = _add(c, vector, _placed(at, down, 2)), _add(d, vector, _placed(at, down, 3))
            e, f = _add(e, vector, _placed(at, down, 4)), _add(f, vector, _placed(at, down, 5))
            g, h = _add(g, vector, _placed(at, down, 6)), _add(h, vector, _placed(at, down, 7))
    store_8(columns, 32, a, b, c, d, e, f, g, h)


@inlined
def _take_across(columns, count, matrix):
    """Apply matrices to the horizontal frequencies of `count` times eight columns.

    columns: address of float32[count][8 across][8 down]. Returns the eight columns of the result.
    """
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for at in range(0, 256 * count, 32):
        vector, weights = load(columns + at, "f32x8"), matrix + at
        a, b = _add(a, vector, weights), _add(b, vector, weights + 4)
        c, d = _add(c, vector, weights + 8), _add(d, vector, weights + 12)
        e, f = _add(e, vector, weights + 16), _add(f, vector, weights + 20)
        g, h = _add(g, vector, weights + 24), _add(h, vector, weights + 28)
    return a, b, c, d, e, f, g, h


@inlined
def _reduced(block, stride, high, count, across, down, steps, room):
    """Any number of blocks, see `average`."""
    for i in range(count):
        _take_down(
            block + 128 * i, stride, high, steps, _matrices(down, high), room + 256 * i, room + _VALUES
        )
    a, b, c, d, e, f, g, h = _take_across(room, count, _matrices(across, count))
    even_even, even_odd = _BOTH(_EVENS(a, c), _EVENS(e, g)), _BOTH(_EVENS(b, d), _EVENS(f, h))
    return even_even, _BOTH(_ODDS(a, c), _ODDS(e, g)), even_odd, _BOTH(_ODDS(b, d), _ODDS(f, h))


@inlined
def average(source, stride, columns, rows, x, y, across, down, folded, steps, weights, room):
    """Compute one block of averages of `across` x `down` samples.

    source: address of the component's blocks, int16[64]. stride: blocks from one row to the next. columns,
        rows: the number of blocks that hold picture.
    x, y: the column and the row of the block of averages.
    folded: whether the blocks are in folded order, see `halve`, and not in zigzag order.
    steps: address of float32[64], factors of the coefficients, folded order. weights: see `halve.halved`.
    room: address of `ROOM` bytes.

    Returns four vectors f32x16, as `halve.JOINED` says.
    """
    high, count = min(down, rows - y * down), min(across, columns - x * across)
    block = source + (y * down * stride + x * across) * 128
    if not folded:
        for n in range(high):
            for i in range(count):
                fold_order(block + (n * stride + i) * 128, room + _FOLDED + (n * count + i) * 128)
        block, stride = room + _FOLDED, count
    if across == 2 and down == 2 and high == 2 and count == 2:
        return halved(block, block + stride * 128, weights)
    return _reduced(block, stride, high, count, across, down, steps, room)
