"""Halve the samples of chroma across and down at once, coefficients to coefficients.

Where pairs of samples are averaged, frequencies k and 8 - k of a block cannot be told apart, and frequency 4
is lost. So a block is first folded into the four by four coefficients of its averages. Then four blocks side
by side are joined: an even frequency of the result is a sum or a difference of two of theirs, an odd one is a
weighted sum of four.
"""

from typing import Any

import numpy as np

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, convert, fused, load, shuffler, store


def _dct(size: int) -> np.ndarray:
    places = np.arange(size)
    basis = np.cos(np.outer(places, 2 * places + 1) * np.pi / (2 * size)) * np.sqrt(2 / size)
    basis[0] = np.sqrt(1 / size)
    return basis


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
                # by 2, because both joins leave out sqrt(1/2)
                scale[part, lane] = weights[m, down] * weights[n, across] / 2
    order[order < 0] = [k for k in range(64) if k not in order]
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
    [row for lanes in (_DOWN, _ACROSS) for row in ((-1.0) ** lanes, *(_ODD[lanes, k] for k in range(4)))],
    np.float32,
)
"""Signs and the weights of odd frequencies, down and across: float32[10, 16]."""

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


def _joiner(place: int, lanes: np.ndarray, step: int) -> Any:
    """Make the function that joins two blocks in one direction.

    place: of the direction in `_CONSTANTS`, in bytes. lanes, step: lane i of the frequencies k of a vector is
        its lane lanes[i] + step·k.
    """
    first, second, third, fourth = (shuffler(lanes + step * k) for k in range(4))

    @inlined
    def join(one, other):
        """The even and the odd frequencies of two blocks, of which the other is behind or below."""
        signed = other * _constant(place)
        apart = one - signed
        odd = first(apart, apart) * _constant(place + 64)
        odd = fused(second(apart, apart), _constant(place + 128), odd)
        odd = fused(third(apart, apart), _constant(place + 192), odd)
        return one + signed, fused(fourth(apart, apart), _constant(place + 256), odd)

    return join


_join_down, _join_across = _joiner(0, 4 * _ACROSS, 1), _joiner(320, _DOWN, 4)


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
