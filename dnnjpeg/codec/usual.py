"""Strips of the usual pictures, RGB at 4:2:0, for vectors of 32 bytes or fewer. `colour` has all others.

A vector holds eight pixels. Its lanes are put in order once, before the store.
"""

from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.native import multiply_pairs, pack
from dnnjpeg.machine.simd import load, reinterpret, shuffler, store

_JOIN = shuffler(range(32))
_SPREAD = shuffler([16 * (k // 4) + 3 * (k % 4) + byte for k in range(8) for byte in range(4)])
# sums of neighbours by shuffles that do not leave 16 bytes
_EVEN = shuffler([0, 2, 8, 10, 4, 6, 12, 14])
_ODD = shuffler([1, 3, 9, 11, 5, 7, 13, 15])
_LUMA_ORDER = shuffler([4 * word + byte for word in (0, 4, 1, 5, 2, 6, 3, 7) for byte in range(4)])
# what `_EVEN` and two packs leave: samples 0, 1, 4, 5, ... of Cb and of Cr, then the others
_CHROMA_ORDER = shuffler(
    [16 * (k // 2 % 2) + 8 * component + 2 * (k // 4) + k % 2 for component in range(2) for k in range(16)]
)
_CB, _CR = shuffler(range(16)), shuffler(range(16, 32))


@inlined
def _part(mix):
    """A component's part of a channel map, at address `mix`."""
    return load(mix, "i16x16"), load(mix + 64, "i16x16"), load(mix + 128, "i32x8"), load(mix + 192, "i32x8")


@inlined
def _channels(at, pixel_bytes):
    """Load eight pixels as two i16x16: channels 0 and 2, and channels 1 and 3, a pair for each pixel."""
    if pixel_bytes == 4:
        words = load(at, "u32x8")
    else:
        pixels = _JOIN(load(at, "u8x16"), load(at + 12, "u8x16"))
        words = reinterpret(_SPREAD(pixels, pixels), "u32x8")
    return reinterpret(words & 0x00FF00FF, "i16x16"), reinterpret(reinterpret(words, "u16x16") >> 8, "i16x16")


@inlined
def _weighted(even, odd, part):
    return part[2] + multiply_pairs(even, part[0]) + multiply_pairs(odd, part[1]) >> part[3]


@inlined
def _fold(a, b):
    """Sums of neighbouring pixels."""
    left, right = reinterpret(a, "i32x8"), reinterpret(b, "i32x8")
    return reinterpret(_EVEN(left, right) + _ODD(left, right), "i16x16")


@inlined
def _sixteen(source_0, source_1, pixel_bytes, parts):
    """Luma of sixteen columns of two rows, and their chroma."""
    even_0, odd_0 = _channels(source_0, pixel_bytes)
    even_1, odd_1 = _channels(source_0 + 8 * pixel_bytes, pixel_bytes)
    y_0 = pack(_weighted(even_0, odd_0, parts[0]), _weighted(even_1, odd_1, parts[0]))
    even_2, odd_2 = _channels(source_1, pixel_bytes)
    even_3, odd_3 = _channels(source_1 + 8 * pixel_bytes, pixel_bytes)
    y_1 = pack(_weighted(even_2, odd_2, parts[0]), _weighted(even_3, odd_3, parts[0]))
    even, odd = _fold(even_0 + even_2, even_1 + even_3), _fold(odd_0 + odd_2, odd_1 + odd_3)
    return y_0, y_1, _weighted(even, odd, parts[1]), _weighted(even, odd, parts[2])


@inlined
def usual_spans(source_0, source_1, y_0, y_1, cb, plane, width, pixel_bytes, mix):
    """Fill the strips of two rows of pixels, with addresses.

    source_0, source_1: the rows, uint8, 3 or 4 bytes a pixel. y_0, y_1: their luma.
    cb: the chroma Cb. Cr lies `plane` bytes behind it.
    width: in pixels, a multiple of 32. mix: of the map, see `colour.channel_map`.
    """
    parts = _part(mix), _part(mix + 256), _part(mix + 512)
    for x in range(0, width, 32):
        a_0, a_1, a_b, a_r = _sixteen(source_0, source_1, pixel_bytes, parts)
        step = 16 * pixel_bytes
        b_0, b_1, b_b, b_r = _sixteen(source_0 + step, source_1 + step, pixel_bytes, parts)
        first, second = pack(a_0, b_0), pack(a_1, b_1)
        store(y_0 + x, _LUMA_ORDER(first, first))
        store(y_1 + x, _LUMA_ORDER(second, second))
        both = pack(pack(a_b, b_b), pack(a_r, b_r))
        both = _CHROMA_ORDER(both, both)
        store(cb, _CB(both, both))
        store(cb + plane, _CR(both, both))
        cb += 16
        source_0 += 2 * step
        source_1 += 2 * step
