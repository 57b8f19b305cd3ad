"""From DCT coefficients to integer indices, of several blocks at a time: nearest rounding, or sampled.

The probabilistic quantizer draws index i of a coefficient c with divisor q from P(i|c) ∝ exp(-κ (c/q - i)²),
κ being the hardness (alpha times the divisor squared). Random numbers are a function of (seed, component,
block, coefficient) alone, and every floating-point operation is the same on every machine, so one seed gives
the same indices whatever the thread count or the machine.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from dnnjpeg.codec.dct import SCALE
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import convert, floor, fused, load, load_scalar, reinterpret, select, splat, store

_TAIL = 14.5  # candidates whose weight is below exp(-14.5) = 5e-7 are not drawn
ROUNDER = 12582912.0  # 1.5·2^23: adding it leaves the nearest integer in the low bits of a float32
_LOG2_E = 1.4426950408889634
_EXP2 = (0.999928074, 0.693260986, 0.242611122, 0.0551716672)  # 2^z for |z| <= 1/2, minimax

STEEP = 69.0  # κ up to which no odds leave the range of `_exp2`

NEAREST, TWO, MIXED = 0, -1, 1
NO_LIMIT = 1024  # magnitude that no index exceeds (T.81 F.1.2, 8 bits)


def reach(hardness: float) -> int:
    """How the sampler treats a coefficient: `NEAREST` (hardness inf), `TWO` candidates, or K > 0: the 2K + 1
    around the nearest.
    """
    if math.isinf(hardness):
        return NEAREST
    if hardness >= 15.0:  # the third candidate weighs exp(-κ) at most
        return TWO
    return next(k for k in range(1, 1000) if hardness * k * (k + 1) >= _TAIL)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """What the kernels need to quantize, by component, natural order.

    `kinds`: int64[components], `NEAREST` or `TWO` where all of a component are treated so and none of two is
    steep, none of the nearest beyond what T.81 has room for, and none limited, else `MIXED`.
    `scale`: float32[components, 64], `dct.SCALE` over the divisors. `reach`: int64[components, 64], the
    function of that name of κ. `law`: float32[components, 64, 2], κ and -2κ in bits. `limit`:
    int16[components, 64], the largest magnitude of an index.
    """

    scale: np.ndarray
    law: np.ndarray
    reach: np.ndarray
    limit: np.ndarray

    @cached_property
    def kinds(self) -> np.ndarray:
        alike = [row[0] if np.all(row == row[0]) else MIXED for row in self.reach]
        steep = np.any(self.law[:, :, 0] > STEEP * _LOG2_E, axis=1)
        # eight bits have no coefficient beyond -1024..1023, so a divisor of 1 or more needs no clamp
        wide = np.any(self.scale > SCALE.astype(np.float32), axis=1)
        mixed = np.where(np.equal(alike, TWO), steep, wide) | np.any(self.limit < NO_LIMIT, axis=1)
        return np.where(mixed, MIXED, np.minimum(alike, MIXED))

    @cached_property
    def sampled(self) -> bool:
        return bool(np.any(self.reach != NEAREST))

    @cached_property
    def candidates(self) -> int:
        """The most that any coefficient draws from."""
        return max(2, 2 * int(self.reach.max()) + 1)


def quantizer_of(
    tables: tuple[tuple[float, ...], ...],
    hardness: tuple[tuple[float | None, ...], ...],
    max_index: tuple[tuple[int | None, ...], ...],
) -> Quantizer:
    """The quantizer of components with the given tables of divisors, κ `hardness` (None: nearest) and largest
    magnitudes of an index (None: what T.81 has room for).
    """
    scale = (SCALE / np.array(tables)).astype(np.float32)
    limit = np.array([[NO_LIMIT if i is None else i for i in row] for row in max_index], np.int16)
    if all(k is None for row in hardness for k in row):
        law, reaches = np.zeros((*scale.shape, 2), np.float32), np.zeros(scale.shape, np.int64)
        return Quantizer(scale, law, reaches, limit)
    rows = [[math.inf if k is None else min(k, 1e30) for k in table] for table in hardness]
    kappa = np.array(rows, np.float32)
    reaches = np.array([[reach(float(k)) for k in table] for table in kappa], np.int64)
    bits = np.where(np.isinf(kappa), 0, kappa) * _LOG2_E
    law = np.stack([bits, -2 * bits], axis=-1).astype(np.float32)
    return Quantizer(scale, law, reaches, limit)


@lru_cache(maxsize=64)
def random_keys(seed: int, components: int) -> np.ndarray:
    """uint32[components, 66]: what makes the random numbers of a picture encoded with `seed`; see
    `block_hash` and `uniform`.
    """
    keys = np.random.SeedSequence(seed).generate_state(components * 66, np.uint32).reshape(components, 66)
    keys[:, 2:] |= 1
    return keys


@inlined
def nearest(c, scale):
    """The nearest integers, ties to even, of c · scale, |c · scale| < 2^15, in the low halves of int32."""
    return reinterpret(_rounded(c, scale), "i32")


@inlined
def _rounded(c, scale):
    """The nearest integer in the low bits of a float32; subtract `ROUNDER` for its value."""
    return fused(c, scale, ROUNDER)


@inlined
def block_hash(blocks, keys):
    """Hash of the block numbers (u32) under a component's first two keys, at address `keys`."""
    # consecutive numbers are torn apart before the keys, or their hashes are a little too evenly spread
    x = blocks * np.uint32(0x9E3779B1)
    x = (x ^ (x >> 15)) * np.uint32(0x85EBCA6B)
    x = x ^ load_scalar(keys, "u32")
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) + load_scalar(keys + 4, "u32")
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


@inlined
def uniform(hashed, key):
    """float32 in (0, 1) from the hashes of blocks and the odd key of a coefficient."""
    # 23 bits behind a 1: multiples of 2^-23 from 1 to 2
    return reinterpret(((hashed * key) >> 9) | 0x3F800000, "f32") - (1.0 - 2.0**-24)


@inlined
def _exp2(y):
    """2^y, |y| <= 120, to 1e-4, which changes a probability p by less than 1e-4 p (1 - p)."""
    shifted = y + ROUNDER
    z = y - (shifted - ROUNDER)
    p = fused(fused(fused(z, _EXP2[3], _EXP2[2]), z, _EXP2[1]), z, _EXP2[0])
    return reinterpret(reinterpret(p, "i32") + (reinterpret(shifted, "i32") << 23), "f32")


@inlined
def _clamped(y):
    y = select(y < 100.0, y, 100.0)
    return select(y > -100.0, y, -100.0)


@inlined
def between_two(c, scale, law):
    """floor(t) as int32, t = c · scale; and the exponent of 2 of the odds against the next integer, which has
    probability sigmoid(κ (2f - 1)), f = t - floor(t). `law`: address of κ and -2κ in bits.
    """
    t = c * scale
    below = floor(t)
    exponent = fused(t - below, load_scalar(law + 4, "f32"), load_scalar(law, "f32"))
    return convert(below, "i32"), exponent


@inlined
def step_up(exponent, hashed, key, steep):
    """int32 1 where the next integer is drawn, else 0. `steep`: whether κ may be above `STEEP`."""
    odds_against = _exp2(_clamped(exponent) if steep else exponent)
    u = uniform(hashed, key)
    return convert(fused(u, odds_against, u) < 1.0, "i32")


@inlined
def one_of_two(c, scale, hashed, law, key, steep):
    """int32: one of the two integers around c · scale."""
    below, exponent = between_two(c, scale, law)
    return below + step_up(exponent, hashed, key, steep)


@inlined
def _one_of_many(c, scale, hashed, law, k_max, key, weights):
    """One of the 2K + 1 integers around the nearest; `weights` is room for 2K + 1 vectors."""
    rounded = _rounded(c, scale)
    offset = fused(c, scale, ROUNDER - rounded)
    bits = load_scalar(law, "f32")
    slope = offset * (bits + bits)
    total = splat(0.0, "f32x16")
    for j in range(2 * k_max + 1):
        k = j - k_max
        exponent = slope * k - bits * (k * k)
        total = total + _exp2(_clamped(exponent))
        store(weights + j * 64, total)
    draw = uniform(hashed, key) * total
    index = reinterpret(rounded, "i32") - k_max
    for j in range(2 * k_max):
        index = index + convert(draw >= load(weights + j * 64, "f32x16"), "i32")
    return convert(index, "i16")


@inlined
def sample_16(c, scale, hashed, law, reach, key, weights):
    """int16x16 index drawn for each c · scale; `law`, an address, and `reach` as in `Quantizer`, `weights`
    scratch.
    """
    if reach == TWO:
        return convert(one_of_two(c, scale, hashed, law, key, True), "i16")
    if reach == NEAREST:
        return convert(nearest(c, scale), "i16")
    return _one_of_many(c, scale, hashed, law, reach, key, weights)


@inlined
def legal(index, k, limit):
    """Indices of coefficient `k` held to ±limit, and to what T.81 F.1.2 has room for: DC
    -1024..1023, AC -1023..1023.
    """
    high = min(limit, 1023)
    low = -limit if k == 0 else -high
    index = select(index < low, low, index)
    return select(index > high, high, index)
