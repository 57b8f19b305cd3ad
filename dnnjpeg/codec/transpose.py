"""Coefficients of sixteen blocks side by side to blocks in zigzag order, for vectors of 32 bytes or fewer."""

import numpy as np

from dnnjpeg.codec.dct import ORDER
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, load, load_scalar, reinterpret, shuffler, store

_PLACES = 64 * np.array(NATURAL, np.int64)
"""Where the words of each coefficient begin, by zigzag."""

_JOIN = shuffler([word + row for word in range(0, 16, 2) for row in (0, 16)])
# within 16 bytes
_LOW = shuffler([0, 8, 1, 9, 4, 12, 5, 13])
_HIGH = shuffler([2, 10, 3, 11, 6, 14, 7, 15])
_FIRST = shuffler([0, 1, 2, 3, 8, 9, 10, 11])
_SECOND = shuffler([4, 5, 6, 7, 12, 13, 14, 15])
_BLOCK_0, _BLOCK_1, _BLOCK_2, _BLOCK_3, _BLOCK_4, _BLOCK_5, _BLOCK_6, _BLOCK_7 = (
    128 * block for block in ORDER[:8]
)


@inlined
def _pair(words, places):
    """The low halves of two successive coefficients of eight blocks, a pair a lane."""
    first = load(words + load_scalar(places, "i64"), "i16x16")
    second = load(words + load_scalar(places + 8, "i64"), "i16x16")
    return reinterpret(_JOIN(first, second), "i32x8")


@inlined
def _interleave(a, b, c, d):
    return _LOW(a, c), _HIGH(a, c), _LOW(b, d), _HIGH(b, d)


@inlined
def _four_pairs(words, places):
    """Lane k of half h of vector i is pair k of block i + 4h."""
    a, b = _pair(words, places), _pair(words, places + 16)
    c, d = _pair(words, places + 32), _pair(words, places + 48)
    a, b, c, d = _interleave(a, b, c, d)
    return _interleave(a, b, c, d)


@inlined
def transpose_words(words, target):
    """int32 [64 coefficients][16 lanes] at `words`, natural order, lanes as `ORDER` says, to int16 [16
    blocks][64 coefficients] at `target`.
    """
    for half in range(2):
        for tile in range(4):
            places = address(_PLACES) + tile * 128
            a, b, c, d = _four_pairs(words + half * 32, places)
            e, f, g, h = _four_pairs(words + half * 32, places + 64)
            to = target + half * 1024 + tile * 32
            store(to + _BLOCK_0, _FIRST(a, e))
            store(to + _BLOCK_1, _FIRST(b, f))
            store(to + _BLOCK_2, _FIRST(c, g))
            store(to + _BLOCK_3, _FIRST(d, h))
            store(to + _BLOCK_4, _SECOND(a, e))
            store(to + _BLOCK_5, _SECOND(b, f))
            store(to + _BLOCK_6, _SECOND(c, g))
            store(to + _BLOCK_7, _SECOND(d, h))
