"""From DCT coefficients to integer indices, sixteen blocks at a time: nearest rounding, or sampled.

The probabilistic quantizer draws index i of a coefficient c with step q from P(i|c) ∝ exp(-α (c - iq)²); with t = c/q and the hardness
κ = αq² this is exp(-κ (t - i)²). Random numbers are a function of (seed, component, block, coefficient) alone, and no operation is
fused or reordered, so the same seed gives the same indices whatever the thread count or the machine.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from dnnjpeg.codec.dct import SCALE
from dnnjpeg.simd import convert, floor, inlined, load, reinterpret, select, splat, store

MIN_HARDNESS = 0.01
_TAIL = 14.5  # candidates whose weight is below exp(-14.5) = 5e-7 are not drawn
_ROUNDER = 12582912.0  # 1.5·2^23: adding it leaves the nearest integer in the low bits of a float32
_LOG2_E = 1.4426950408889634
_EXP2 = tuple(math.log(2.0) ** k / math.factorial(k) for k in range(8))

NEAREST, TWO = 0, -1


def reach(hardness: float) -> int:
    """How the sampler treats a coefficient: `NEAREST` (hardness inf), `TWO` candidates, or K > 0: the 2K + 1 around the nearest."""
    if math.isinf(hardness):
        return NEAREST
    if hardness >= 15.0:  # the third candidate weighs exp(-κ) at most
        return TWO
    return next(k for k in range(1, 1000) if hardness * k * (k + 1) >= _TAIL)


@dataclass(frozen=True)
class Quantizer:
    """What the kernels need to quantize: by table, natural order, shape [tables, 64].

    `scale` float32: `dct.SCALE` over the steps. `hardness` float32 and `reach` int64: κ, and how it is sampled.
    """

    scale: np.ndarray
    hardness: np.ndarray
    reach: np.ndarray

    @cached_property
    def sampled(self) -> bool:
        return bool(np.any(self.reach != NEAREST))

    @cached_property
    def candidates(self) -> int:
        """The most that any coefficient draws from."""
        return max(2, 2 * int(self.reach.max()) + 1)


def quantizer(tables: tuple[tuple[int, ...], ...], hardness: tuple[tuple[float | None, ...], ...] | None) -> Quantizer:
    """The quantizer of some tables of steps: probabilistic with κ `hardness` (None: nearest), or nearest throughout.

    Raises ValueError for κ below `MIN_HARDNESS`.
    """
    scale = (SCALE / np.array(tables)).astype(np.float32)
    if hardness is None:
        return Quantizer(scale, np.zeros_like(scale), np.zeros(scale.shape, np.int64))
    kappa = np.array([[math.inf if k is None else k for k in table] for table in hardness], np.float32)
    if not np.all(kappa >= np.float32(MIN_HARDNESS)):
        raise ValueError(f"hardness is {kappa.min():g}, expected at least {MIN_HARDNESS}: below it an index says nothing")
    reaches = np.array([[reach(float(k)) for k in table] for table in kappa], np.int64)
    return Quantizer(scale, np.where(np.isinf(kappa), 0, kappa), reaches)


@lru_cache(maxsize=64)
def random_keys(seed: int, components: int) -> np.ndarray:
    """uint32[components, 64, 2]: the two keys of `uniform_16` for each component and coefficient of a picture encoded with `seed`."""
    words = np.random.SeedSequence(seed).generate_state(components * 64 * 2, np.uint32)
    return words.reshape(components, 64, 2)


@inlined
def nearest_16(t):
    """int16x16 nearest integers, ties to even, of float32x16 |t| < 2^15."""
    return convert(reinterpret(t + _ROUNDER, "i32x16"), "i16x16")


@inlined
def uniform_16(blocks, key_a, key_b):
    """float32x16 in (0, 1), 24 bits each: a hash of the block numbers (u32x16) under two 32-bit keys."""
    x = blocks ^ key_a
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) + key_b
    x = x * np.uint32(0x846CA68B)
    x = (x ^ (x >> 16)) >> 8
    return (convert(reinterpret(x, "i32x16"), "f32x16") + 0.5) * (1.0 / 16777216.0)


@inlined
def _exp(x):
    """e^x of float32x16 to 2e-7, saturating at 2^±120."""
    y = x * _LOG2_E
    y = select(y > 120.0, splat(120.0, "f32x16"), y)
    y = select(y < -120.0, splat(-120.0, "f32x16"), y)
    whole = floor(y + 0.5)
    z = y - whole
    p = z * _EXP2[7] + _EXP2[6]
    p = p * z + _EXP2[5]
    p = p * z + _EXP2[4]
    p = p * z + _EXP2[3]
    p = p * z + _EXP2[2]
    p = p * z + _EXP2[1]
    p = p * z + 1.0
    return p * reinterpret((convert(whole, "i32x16") + 127) << 23, "f32x16")


@inlined
def _two(t, u, hardness):
    """The lower neighbour, or the upper one with probability sigmoid(κ (2f - 1)), f the fractional part."""
    lower = floor(t)
    odds_against = _exp((1.0 - (t - lower) * 2.0) * hardness)
    return select((odds_against + 1.0) * u < 1.0, lower + 1.0, lower)


@inlined
def _many(t, u, hardness, k_max, weights):
    """One of the 2K + 1 candidates around the nearest; `weights` is room for 2K + 1 vectors."""
    middle = floor(t + 0.5)
    slope = (t - middle) * (2.0 * hardness)
    total = splat(0.0, "f32x16")
    for j in range(2 * k_max + 1):
        k = j - k_max
        total = total + _exp(slope * k - hardness * (k * k))
        store(weights + j * 64, total)
    draw = u * total
    index = middle - k_max
    for j in range(2 * k_max):
        index = index + select(draw >= load(weights + j * 64, "f32x16"), splat(1.0, "f32x16"), splat(0.0, "f32x16"))
    return index


@inlined
def sample_16(t, u, hardness, reach, weights):
    """float32x16 index drawn for each t = c/q by the uniform u; `reach` as the function of that name says, `weights` scratch."""
    if reach == TWO:
        return _two(t, u, hardness)
    if reach == NEAREST:
        return t
    return _many(t, u, hardness, reach, weights)


@inlined
def clamp_16(t, low, high):
    """float32x16 held to low..high."""
    t = select(t < low, splat(low, "f32x16"), t)
    return select(t > high, splat(high, "f32x16"), t)
