"""Halve the samples of chroma across and down at once, coefficients to coefficients.

Where pairs of samples are averaged, frequencies k and 8 - k of a block cannot be told apart, and frequency 4
is lost. So a block is first folded into the four by four coefficients of its averages. Then four blocks side
by side are joined: an even frequency of the result is a sum or a difference of two of theirs, an odd one is a
weighted sum of four.
"""

import numpy as np

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, convert, fused, load, shuffler, store


def _dct(size: int) -> np.ndarray:
    k, n = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    scale = np.where(k == 0, np.sqrt(1 / size), np.sqrt(2 / size))
    return scale * np.cos((2 * n + 1) * k * np.pi / (2 * size))


# Vectors of sixteen hold four frequencies across times four down: lane 4·across + down.
_ACROSS, _DOWN = (lanes.ravel() for lanes in np.meshgrid(range(4), range(4), indexing="ij"))


def _folded_order() -> tuple[np.ndarray, np.ndarray]:
    weights = _dct(4) @ np.kron(np.eye(4), [[0.5, 0.5]]) @ _dct(8).T
    order, scale = np.full((4, 16), -1), np.zeros((4, 16))
    for part in range(4):
        for lane in range(16):
            m, n = _DOWN[lane], _ACROSS[lane]
            down, across = (8 - m if part & 1 else m), (8 - n if part & 2 else n)
            if down < 8 and across < 8:
                order[part, lane] = NATURAL.index(8 * down + across)
                scale[part, lane] = weights[m, down] * weights[n, across] / 2  # the half is `_join`'s
    order[order < 0] = np.setdiff1d(np.arange(64), order)
    return order.ravel().astype(np.uint8), scale.ravel()


FOLDED, _SCALE = _folded_order()
"""The folded order of a block: uint8[64], by element its position in zigzag order. Elements k, 16 + k, 32 + k
and 48 + k become one, except for frequencies 4, which have a scale of 0.
"""
JOINED = np.array(
    [
        NATURAL.index(8 * (2 * _DOWN[lane] + odd % 2) + 2 * _ACROSS[lane] + odd // 2)
        for odd in range(4)
        for lane in range(16)
    ],
    np.uint8,
)
"""The order of coefficients of averages: uint8[64], by element its position in zigzag order. Sixteen of even
frequencies, of odd ones down, of odd ones across, and of odd ones in both directions.
"""

_ODD = np.sqrt(2) * (_dct(8)[1::2, :4] @ _dct(4).T)
_CONSTANTS = np.array(
    [
        (-1.0) ** _DOWN,
        (-1.0) ** _ACROSS,
        *(_ODD[_DOWN, k] for k in range(4)),
        *(_ODD[_ACROSS, k] for k in range(4)),
    ],
    np.float32,
)
_SIGNS_DOWN, _SIGNS_ACROSS, _ODD_DOWN, _ODD_ACROSS = 0, 64, 128, 384  # places in `_CONSTANTS`, in bytes

_DOWN_0, _DOWN_1, _DOWN_2, _DOWN_3 = (shuffler(4 * _ACROSS + k) for k in range(4))
_ACROSS_0, _ACROSS_1, _ACROSS_2, _ACROSS_3 = (shuffler(4 * k + _DOWN) for k in range(4))
_FIRST, _LAST = shuffler(FOLDED[:32]), shuffler(FOLDED[32:])


def folding(steps: np.ndarray) -> np.ndarray:
    """The weights of `halved`: float32[64]. steps: of the source, in folded order."""
    return (steps * _SCALE).astype(np.float32)


@inlined
def fold_order(block, out):
    """Put a block from zigzag order into folded order. block, out: addresses of int16[64]."""
    low, high = load(block, "i16x32"), load(block + 64, "i16x32")
    store(out, _FIRST(low, high))
    store(out + 64, _LAST(low, high))


@inlined
def _fold(block, weights):
    """f32x16 of int16[64] in folded order, at an address, and of float32[64] at another."""
    total = convert(load(block, "i16x16"), "f32x16") * load(weights, "f32x16")
    total = fused(convert(load(block + 32, "i16x16"), "f32x16"), load(weights + 64, "f32x16"), total)
    total = fused(convert(load(block + 64, "i16x16"), "f32x16"), load(weights + 128, "f32x16"), total)
    return fused(convert(load(block + 96, "i16x16"), "f32x16"), load(weights + 192, "f32x16"), total)


@inlined
def _constant(place):
    return load(address(_CONSTANTS) + place, "f32x16")


@inlined
def _join_down(above, below):
    """The even and the odd frequencies down of two blocks, of which one is below the other."""
    signed = below * _constant(_SIGNS_DOWN)
    apart = above - signed
    odd = _DOWN_0(apart, apart) * _constant(_ODD_DOWN)
    odd = fused(_DOWN_1(apart, apart), _constant(_ODD_DOWN + 64), odd)
    odd = fused(_DOWN_2(apart, apart), _constant(_ODD_DOWN + 128), odd)
    return above + signed, fused(_DOWN_3(apart, apart), _constant(_ODD_DOWN + 192), odd)


@inlined
def _join_across(left, right):
    """The even and the odd frequencies across of two blocks side by side."""
    signed = right * _constant(_SIGNS_ACROSS)
    apart = left - signed
    odd = _ACROSS_0(apart, apart) * _constant(_ODD_ACROSS)
    odd = fused(_ACROSS_1(apart, apart), _constant(_ODD_ACROSS + 64), odd)
    odd = fused(_ACROSS_2(apart, apart), _constant(_ODD_ACROSS + 128), odd)
    return left + signed, fused(_ACROSS_3(apart, apart), _constant(_ODD_ACROSS + 192), odd)


@inlined
def halved(block, below, weights):
    """The block of averages of 2x2 samples, of two blocks at an address and two at another, int16[2][64] in
    folded order. weights: address of those of `folding`. Returns four vectors f32x16, as `JOINED` says.
    """
    left_even, left_odd = _join_down(_fold(block, weights), _fold(below, weights))
    right_even, right_odd = _join_down(_fold(block + 128, weights), _fold(below + 128, weights))
    a, c = _join_across(left_even, right_even)
    b, d = _join_across(left_odd, right_odd)
    return a, b, c, d
