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
    """How a coefficient of this hardness, > 0, is quantized.

    `NEAREST`: rounded, for hardness inf. `TWO`: one of the two integers around it is drawn, from hardness 15
    on. K > 0: one of the 2K + 1 integers around it is drawn; all others have a weight below 5e-7.
    """
    if math.isinf(hardness):
        return NEAREST
    if hardness >= 15.0:  # the third candidate weighs exp(-κ) at most
        return TWO
    return next(k for k in range(1, 1000) if hardness * k * (k + 1) >= _TAIL)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """The numbers that the kernels quantize with. A row is a component, a column a coefficient, natural
    order.

    scale: float32[components, 64], `dct.SCALE` divided by the divisors.
    law: float32[components, 64, 2], κ log2(e) and -2κ log2(e). Both are 0 for hardness inf.
    reach: int64[components, 64], what the function `reach` returns for κ.
    limit: int16[components, 64], the largest magnitude of an index.
    """

    scale: np.ndarray
    law: np.ndarray
    reach: np.ndarray
    limit: np.ndarray

    @cached_property
    def kinds(self) -> np.ndarray:
        """int64[components], the loop that quantizes a component.

        `NEAREST`: all coefficients are rounded, and none is limited. `TWO`: all are drawn from two, with κ up
        to `STEEP`, and none is limited. `MIXED`: anything else.
        """
        alike = [row[0] if np.all(row == row[0]) else MIXED for row in self.reach]
        steep = np.any(self.law[:, :, 0] > STEEP * _LOG2_E, axis=1)
        # eight bits have no coefficient beyond -1024..1023, so a rounded index needs no clamp if its divisor
        # is at least 1; a drawn one may be the next integer, and needs a slightly larger divisor
        least = np.where(np.equal(alike, TWO), 1.01, 1)[:, None]
        wide = np.any(self.scale * least > SCALE.astype(np.float32), axis=1)
        mixed = wide | steep | np.any(self.limit < NO_LIMIT, axis=1)
        return np.where(mixed, MIXED, np.minimum(alike, MIXED))

    @cached_property
    def sampled(self) -> bool:
        """Whether any coefficient is drawn at random."""
        return bool(np.any(self.reach != NEAREST))

    @cached_property
    def candidates(self) -> int:
        """The largest number of integers that a coefficient is drawn from; at least 2."""
        return max(2, 2 * int(self.reach.max()) + 1)


def quantizer_of(
    tables: tuple[tuple[float, ...], ...],
    hardness: tuple[tuple[float | None, ...], ...],
    max_index: tuple[tuple[int | None, ...], ...],
) -> Quantizer:
    """The quantizer of some components. Each argument has a row of 64 for each component, natural order.

    tables: divisors, > 0.
    hardness: κ, > 0. None rounds to the nearest integer.
    max_index: the largest magnitude of an index. None is the largest that T.81 has room for.
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
    """The keys of a picture's random numbers, uint32[components, 66].

    The first two of a row are for `block_hash`. The others, one for each coefficient in natural order, are
    odd and for `uniform`.
    """
    keys = np.random.SeedSequence(seed).generate_state(components * 66, np.uint32).reshape(components, 66)
    keys[:, 2:] |= 1
    return keys


@inlined
def nearest(c, scale):
    """The nearest integers of c · scale, ties to even, in the low 16 bits of int32 lanes. |c · scale| must be
    below 2^15.
    """
    return reinterpret(_rounded(c, scale), "i32")


@inlined
def _rounded(c, scale):
    """The nearest integer in the low bits of a float32; subtract `ROUNDER` for its value."""
    return fused(c, scale, ROUNDER)


@inlined
def block_hash(blocks, keys):
    """Hashes of block numbers, u32. keys: address of a component's keys, see `random_keys`."""
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
    """Random numbers, float32 in (0, 1), from the hashes of blocks and the odd key of a coefficient."""
    # 23 bits behind a 1: multiples of 2^-23 from 1 to 2
    return reinterpret(((hashed * key) >> 9) | 0x3F800000, "f32") - (1.0 - 2.0**-24)


@inlined
def _exp2(y):
    """2^y for |y| <= 120, with a relative error of 1e-4. A probability p changes by less than 1e-4 p (1 -
    p).
    """
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
    """What is needed to draw one of the two integers around t = c · scale: floor(t), int32, and log2 of the
    odds against the upper one, float32.

    The upper one has the probability sigmoid(κ (2f - 1)), with f = t - floor(t).

    law: address of κ log2(e) and -2κ log2(e), float32.
    """
    t = c * scale
    below = floor(t)
    exponent = fused(t - below, load_scalar(law + 4, "f32"), load_scalar(law, "f32"))
    return convert(below, "i32"), exponent


@inlined
def step_up(exponent, hashed, key, steep):
    """int32: 1 where the upper integer is drawn, else 0.

    exponent: log2 of the odds against it, from `between_two`.
    hashed, key: see `uniform`.
    steep: whether κ may be above `STEEP`. The exponent is clamped then.
    """
    odds_against = _exp2(_clamped(exponent) if steep else exponent)
    u = uniform(hashed, key)
    return convert(fused(u, odds_against, u) < 1.0, "i32")


@inlined
def one_of_two(c, scale, hashed, law, key, steep):
    """Draw one of the two integers around c · scale, int32. Arguments as in `between_two` and `step_up`."""
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
    """Quantize one coefficient of sixteen blocks: int16x16.

    c: float32x16. scale: a number. hashed, key: see `uniform`.
    law: address of the coefficient's law, and reach: a number, see `Quantizer`.
    weights: address of room for float32[2K + 1, 16].
    """
    if reach == TWO:
        return convert(one_of_two(c, scale, hashed, law, key, True), "i16")
    if reach == NEAREST:
        return convert(nearest(c, scale), "i16")
    return _one_of_many(c, scale, hashed, law, reach, key, weights)


@inlined
def legal(index, k, limit):
    """Clamp the indices of coefficient k, 0..63, to -limit..limit, and to the range of T.81 F.1.2: DC
    -1024..1023, AC -1023..1023.
    """
    high = min(limit, 1023)
    low = -limit if k == 0 else -high
    index = select(index < low, low, index)
    return select(index > high, high, index)
