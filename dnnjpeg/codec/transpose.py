"""Transpose the coefficients of sixteen blocks, for vectors of 32 bytes or fewer."""

from dnnjpeg.codec.dct import ORDER
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import load, shuffler, store

# within 16 bytes
_LOW = shuffler([0, 8, 1, 9, 4, 12, 5, 13])
_HIGH = shuffler([2, 10, 3, 11, 6, 14, 7, 15])
_FIRST = shuffler([0, 1, 2, 3, 8, 9, 10, 11])
_SECOND = shuffler([4, 5, 6, 7, 12, 13, 14, 15])
_BLOCK_0, _BLOCK_1, _BLOCK_2, _BLOCK_3, _BLOCK_4, _BLOCK_5, _BLOCK_6, _BLOCK_7 = (
    128 * block for block in ORDER[:8]
)


@inlined
def _pair(words):
    """The low halves of two successive coefficients of eight blocks, a pair a lane."""
    return (load(words, "i32x8") & 0xFFFF) | (load(words + 64, "i32x8") << 16)


@inlined
def _interleave(a, b, c, d):
    return _LOW(a, c), _HIGH(a, c), _LOW(b, d), _HIGH(b, d)


@inlined
def _four_pairs(words):
    """Lane k of half h of vector i is pair k of block i + 4h."""
    a, b, c, d = _pair(words), _pair(words + 128), _pair(words + 256), _pair(words + 384)
    a, b, c, d = _interleave(a, b, c, d)
    return _interleave(a, b, c, d)


@inlined
def transpose_words(words, target):
    """Transpose the low halves of int32 [64 coefficients][16 lanes] at one address to int16 [16 blocks][64
    coefficients] at another. `dct.ORDER` says which block a lane holds.
    """
    for half in range(2):
        for tile in range(4):
            at, to = words + half * 32 + tile * 1024, target + half * 1024 + tile * 32
            a, b, c, d = _four_pairs(at)
            e, f, g, h = _four_pairs(at + 512)
            store(to + _BLOCK_0, _FIRST(a, e))
            store(to + _BLOCK_1, _FIRST(b, f))
            store(to + _BLOCK_2, _FIRST(c, g))
            store(to + _BLOCK_3, _FIRST(d, h))
            store(to + _BLOCK_4, _SECOND(a, e))
            store(to + _BLOCK_5, _SECOND(b, f))
            store(to + _BLOCK_6, _SECOND(c, g))
            store(to + _BLOCK_7, _SECOND(d, h))
