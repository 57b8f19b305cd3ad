"""Forward 8x8 DCT (T.81 A.3.3) of sixteen blocks at a time, one block a lane.

The factorisation is Arai, Agui and Nakajima's: 5 multiplications a row, each output has a known
factor for its frequency. `SCALE` removes it in the multiplication of the quantizer, at no cost.
"""

import numpy as np

from dnnjpeg.machine.jit import host_has, inlined
from dnnjpeg.machine.simd import fused, load, mask_bits, reinterpret, shuffler, splat, store

LANES = 16  # blocks in a batch
WIDTH = 16 if host_has("avx512bw") else 8 if host_has("avx2") else 4
"""Blocks in a vector. The DCT works on eight vectors, and they should fit the registers."""

ORDER = (0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15) if WIDTH == 8 else tuple(range(LANES))
"""The number of the block in each lane. Vectors of 32 bytes are loaded by shuffles within 16 bytes, which are
cheap and leave the blocks in another order.
"""

_FLOATS, _WORDS, _BYTES = f"f32x{WIDTH}", f"u32x{WIDTH}", f"u8x{4 * WIDTH}"

_AAN = np.array([1.0] + [np.sqrt(2.0) * np.cos(k * np.pi / 16) for k in range(1, 8)])
SCALE = (1.0 / (8.0 * np.outer(_AAN, _AAN))).reshape(64)
"""float64[64], natural order. The output of `forward_column` times this is the DCT of T.81 A.3.3."""

_LEFT_HALVES = shuffler([2 * block for block in ORDER[:WIDTH]])
_RIGHT_HALVES = shuffler([2 * block + 1 for block in ORDER[:WIDTH]])
_BYTE_0, _BYTE_1, _BYTE_2, _BYTE_3 = (
    shuffler([4 * lane + byte if place == 1 else 4 * WIDTH for lane in range(WIDTH) for place in range(4)])
    for byte in range(4)
)
_LOW = shuffler([lane + row for lane in range(8) for row in (0, 16)])
_HIGH = shuffler([lane + row for lane in range(8, 16) for row in (0, 16)])
_FIRST = shuffler(range(8))
_SECOND = shuffler(range(8, 16))

COS_2 = 0.5411961001461970  # √2 cos(6π/16)
COS_4 = 0.7071067811865476
COS_6 = 0.3826834323650898  # cos(6π/16)
SIN_2 = 1.3065629648763766  # √2 cos(2π/16)


@inlined
def _dct_8(a, b, c, d, e, f, g, h):
    """Eight-point DCT-II over eight vectors, each output k scaled by 8-point AAN factor k."""
    s0, s1, s2, s3 = a + h, b + g, c + f, d + e
    d0, d1, d2, d3 = a - h, b - g, c - f, d - e

    t0, t1, t3 = s0 + s3, s1 + s2, s0 - s3
    turned = (s1 - s2) + t3

    u0, u1, u2 = d3 + d2, d2 + d1, d1 + d0
    shared = (u0 - u2) * COS_6
    v0, v2 = fused(u0, COS_2, shared), fused(u2, SIN_2, shared)
    w0, w1 = fused(u1, COS_4, d0), fused(u1, -COS_4, d0)
    return (
        t0 + t1, w0 + v2, fused(turned, COS_4, t3), w1 - v0,
        t0 - t1, w1 + v0, fused(turned, -COS_4, t3), w0 - v2,
    )  # fmt: skip


@inlined
def _moved_bits(four):
    """256 + x for each of four bytes, which are in bits 15-22: the mantissa of a number from 256 to 511."""
    return (
        _with_exponent(four << 15),
        _with_exponent(four << 7),
        _with_exponent(four >> 1),
        _with_exponent(four >> 9),
    )


@inlined
def _with_exponent(moved):
    return reinterpret((moved & 0x007F8000) | 0x43800000, "f32")


@inlined
def _moved_bytes(four):
    """32768 + x for each of four bytes, which are in bits 8-15."""
    v, zero = reinterpret(four, _BYTES), splat(0, _BYTES)
    return (
        reinterpret(reinterpret(_BYTE_0(v, zero), _WORDS) | 0x47000000, "f32"),
        reinterpret(reinterpret(_BYTE_1(v, zero), _WORDS) | 0x47000000, "f32"),
        reinterpret(reinterpret(_BYTE_2(v, zero), _WORDS) | 0x47000000, "f32"),
        reinterpret(reinterpret(_BYTE_3(v, zero), _WORDS) | 0x47000000, "f32"),
    )


# sums of eight such numbers are exact, so it does not matter what has been added to x
_as_floats, _ADDED = (_moved_bits, 256) if WIDTH == 16 else (_moved_bytes, 32768)


@inlined
def store_4(at, stride, a, b, c, d):
    """Store four vectors, `stride` bytes apart."""
    store(at, a)
    store(at + stride, b)
    store(at + 2 * stride, c)
    store(at + 3 * stride, d)


@inlined
def store_8(at, stride, a, b, c, d, e, f, g, h):
    """Store eight vectors, `stride` bytes apart."""
    store_4(at, stride, a, b, c, d)
    store_4(at + 4 * stride, stride, e, f, g, h)


@inlined
def forward_rows_16(source, stride, out):
    """The DCT along the rows of sixteen neighbouring blocks, with the level shift of T.81 A.3.1.

    source: address of the blocks' first sample, uint8; the rows of the strip are `stride` bytes apart.
    out: address of float32 [8 rows][8 frequencies][16 lanes]. `ORDER` says which block a lane holds.
    """
    for y in range(8):
        for lane in range(0, LANES, WIDTH):
            row = source + y * stride + lane * 8
            # a block's row of 8 samples is two 32-bit words
            first, second = load(row, _WORDS), load(row + 4 * WIDTH, _WORDS)
            left, right = _LEFT_HALVES(first, second), _RIGHT_HALVES(first, second)
            a, b, c, d, e, f, g, h = _dct_8(*_as_floats(left), *_as_floats(right))
            # the level shift (A.3.1) matters to the mean alone
            store_8(out + y * 512 + lane * 4, 64, a - 8 * (_ADDED + 128), b, c, d, e, f, g, h)


@inlined
def forward_column(at):
    """The DCT along the columns of `WIDTH` blocks, for one horizontal frequency. Returns eight float32
    vectors, the vertical frequencies 0 to 7, to be multiplied by `SCALE`.

    at: address in the output of `forward_rows_16`, of row 0 of this frequency.
    """
    return _dct_8(
        load(at, _FLOATS), load(at + 512, _FLOATS),
        load(at + 1024, _FLOATS), load(at + 1536, _FLOATS),
        load(at + 2048, _FLOATS), load(at + 2560, _FLOATS),
        load(at + 3072, _FLOATS), load(at + 3584, _FLOATS),
    )  # fmt: skip


@inlined
def _interleave(a, b, c, d, e, f, g, h):
    return _LOW(a, e), _HIGH(a, e), _LOW(b, f), _HIGH(b, f), _LOW(c, g), _HIGH(c, g), _LOW(d, h), _HIGH(d, h)


@inlined
def _pair(at):
    """The low halves of two successive coefficients of sixteen blocks, a pair a lane."""
    return (load(at, "i32x16") & 0xFFFF) | (load(at + 64, "i32x16") << 16)


@inlined
def transpose_16(source, target):
    """Transpose the low halves of int32 [64 coefficients][16 blocks] at one address to int16 [16 blocks][64
    coefficients] at another.
    """
    for tile in range(4):
        at = source + tile * 1024
        v = (
            _pair(at), _pair(at + 128), _pair(at + 256), _pair(at + 384),
            _pair(at + 512), _pair(at + 640), _pair(at + 768), _pair(at + 896),
        )  # fmt: skip
        to = target + tile * 32
        some = v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7]
        if mask_bits(some != 0) == 0:  # as most of the high frequencies
            for block in range(16):
                store(to + block * 128, splat(0, "i32x8"))
            continue
        # three perfect shuffles move the three bits of the pair's number below the block's number
        v = _interleave(*v)
        v = _interleave(*v)
        v = _interleave(*v)
        _store_two_blocks(to, v[0])
        _store_two_blocks(to + 256, v[1])
        _store_two_blocks(to + 512, v[2])
        _store_two_blocks(to + 768, v[3])
        _store_two_blocks(to + 1024, v[4])
        _store_two_blocks(to + 1280, v[5])
        _store_two_blocks(to + 1536, v[6])
        _store_two_blocks(to + 1792, v[7])


@inlined
def _store_two_blocks(at, blocks):
    store(at, _FIRST(blocks, blocks))
    store(at + 128, _SECOND(blocks, blocks))
