"""Sampled indices against the distribution P(i) ∝ exp(-κ (t - i)²), and against one another."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytest
from decoders import Decode, Read
from scipy.fft import dctn
from scipy.special import entr, expit, softmax
from scipy.stats import chi2, kstest, norm, poisson

from dnnjpeg import OperatingPoint, encode
from dnnjpeg.codec.quantize import uniform
from dnnjpeg.machine.simd import address, load, select, splat, store
from dnnjpeg.table.fields import MIN_HARDNESS

KAPPAS = (0.3, 0.7, 1, 2.2, 4, 7, 14.9, 15, 30, 100, 1000)
ROWS, COLUMNS = 128, 256  # blocks
PATTERNS = 16  # different blocks: 2048 copies of each, 2.1 million coefficients in all
OFFSETS = np.arange(
    -12, 14
)  # candidates around floor(t) that the reference looks at: exp(-0.3 · 12²) is nothing


@dataclass
class Draws:
    """Indices [PATTERNS, copies, 64] drawn for the coefficients over their steps, t [PATTERNS, 64]."""

    t: np.ndarray
    indices: np.ndarray


def choose_steps(coefficients: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """The step 4..255 of each coefficient that leaves the most to chance: where κ is large, few do at all."""
    steps = np.arange(4, 256)[:, None, None]
    t = coefficients / steps
    upper = expit(kappa * (2 * (t - np.floor(t)) - 1))
    return 4 + (entr(upper) + entr(1 - upper)).sum(axis=1).argmax(axis=0)


def draw(kappa: Any, seed: int, read_dct: Read) -> Draws:
    """Random blocks scattered over a gray picture, of low contrast for the sake of float32."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(108, 149, (PATTERNS, 8, 8))
    coefficients = dctn(patterns - 128.0, axes=(1, 2), norm="ortho").reshape(PATTERNS, 64)
    steps = choose_steps(
        coefficients, np.broadcast_to([1000 if k is None else k for k in np.ravel(kappa)], 64)
    )
    where = rng.permutation(np.arange(ROWS * COLUMNS) % PATTERNS)
    picture = patterns[where].reshape(ROWS, COLUMNS, 8, 8).swapaxes(1, 2).reshape(8 * ROWS, 8 * COLUMNS)
    point = OperatingPoint(50, "4:4:4", steps, steps, kappa)
    (plane,), _ = read_dct(encode(picture.astype(np.uint8), point, seed=seed))
    plane = plane.reshape(-1, 64)
    return Draws(coefficients / steps, np.stack([plane[where == p] for p in range(PATTERNS)]))


def probabilities(t: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """P of the candidates floor(t) + OFFSETS, on a last axis."""
    distance = (t - np.floor(t))[..., None] - OFFSETS
    return softmax(-np.broadcast_to(kappa, t.shape)[..., None] * distance**2, axis=-1)


def goodness(draws: Draws, kappa: np.ndarray) -> tuple[float, float]:
    """p of a chi-square over all coefficients, in bins of 5 or more expected, and p of what is beyond."""
    copies = draws.indices.shape[1]
    expected = copies * probabilities(draws.t, kappa)
    found = draws.indices - np.floor(draws.t)[:, None, :]
    counts = (found[..., None] == OFFSETS).sum(axis=1)
    assert (counts.sum(axis=-1) == copies).all()
    statistic, freedom, beyond, beyond_expected = 0.0, 0, 0, 0.0
    for e, o in zip(expected.reshape(-1, OFFSETS.size), counts.reshape(-1, OFFSETS.size), strict=True):
        large = np.flatnonzero(e >= 5)
        low, high = large[0], large[-1]
        beyond += int(o[:low].sum() + o[high + 1 :].sum())
        beyond_expected += float(e[:low].sum() + e[high + 1 :].sum())
        edges = [0, *range(low + 1, high + 1)]  # the outermost bins take in what is beyond
        e, o = np.add.reduceat(e, edges), np.add.reduceat(o, edges)
        statistic += float(((o - e) ** 2 / e).sum())
        freedom += len(edges) - 1
    assert freedom >= 50  # or nothing was tested
    tail = min(poisson.cdf(beyond, beyond_expected), poisson.sf(beyond - 1, beyond_expected))
    return float(chi2.sf(statistic, freedom)), float(min(1, 2 * tail))


@pytest.mark.parametrize("kappa", KAPPAS)
def test_distribution(kappa: float, read_dct: Read) -> None:
    draws = draw(kappa, 10 + KAPPAS.index(kappa), read_dct)  # each κ has random numbers of its own
    assert draws.indices.size > 2_000_000
    fit, beyond = goodness(draws, np.full(64, kappa))
    assert fit > 0.01
    assert beyond > 0.001


def test_distribution_with_a_hardness_by_coefficient(read_dct: Read) -> None:
    rng = np.random.default_rng(0)
    kappa = np.exp(rng.uniform(np.log(0.3), np.log(1000), 64))
    draws = draw(kappa.tolist(), 2, read_dct)
    fit, beyond = goodness(draws, kappa)
    assert fit > 0.01
    assert beyond > 0.001


@pytest.mark.parametrize("kappa", [15, 40, 300])
def test_rare_draws_in_a_uniform_picture(kappa: float, read_dct: Read) -> None:
    """One block repeated: all lanes of a vector have the same small chance of the farther index."""
    rng = np.random.default_rng(int(kappa))
    pattern = rng.integers(108, 149, (8, 8))
    coefficients = dctn(pattern - 128.0, norm="ortho").reshape(64)
    t = coefficients / np.arange(4, 256)[:, None]
    odds = kappa * (1 - 2 * np.abs(t - np.rint(t)))
    steps = 4 + np.abs(odds - np.linspace(7, 12, 64)).argmin(axis=0)
    point = OperatingPoint(50, "4:4:4", steps, steps, kappa)
    (plane,), _ = read_dct(encode(np.tile(pattern, (ROWS, COLUMNS)).astype(np.uint8), point))
    t = coefficients / steps
    expected = expit(-kappa * (1 - 2 * np.abs(t - np.rint(t)))) * ROWS * COLUMNS
    found = (plane.reshape(-1, 64) != np.rint(t)).sum(axis=0)
    rare = np.abs(np.log(expected / (ROWS * COLUMNS)) + 9.5) < 3
    assert rare.sum() >= 20
    for few in (rare, rare & (expected < 1)):
        low, high = (
            poisson.cdf(found[few].sum(), expected[few].sum()),
            poisson.sf(found[few].sum() - 1, expected[few].sum()),
        )
        assert min(low, high) > 0.001, (found[few].sum(), expected[few].sum())


def test_fits_are_neither_too_bad_nor_too_good(read_dct: Read) -> None:
    """Over many seeds the p-values are themselves uniform."""
    values = [
        goodness(draw(kappa, seed, read_dct), np.full(64, kappa))[0]
        for kappa in (0.5, 3, 20)
        for seed in range(100, 108)
    ]
    assert kstest(values, "uniform").pvalue > 0.001


def test_none_is_nearest_rounding_for_its_coefficient_alone(read_dct: Read) -> None:
    kappa = [None if k % 3 == 0 else 0.7 for k in range(64)]
    draws = draw(kappa, 3, read_dct)
    never = np.array([k is None for k in kappa])
    exact = draws.t[:, None, never]
    tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-5
    assert tie.mean() < 0.1
    assert ((draws.indices[:, :, never] == np.rint(exact)) | tie).all()
    assert (draws.indices[:, :, ~never].std(axis=1) > 0.5).all()


@pytest.mark.parametrize("kappa", [1e7, 1e38, 1e300])
def test_a_huge_hardness_is_nearest_rounding(kappa: float, photo: Any, read_dct: Read) -> None:
    ycbcr = np.asarray(photo.convert("YCbCr"))
    options = {"quality": 80, "mode": "YCbCr", "subsampling": "4:4:4"}
    (nearest, steps), (sampled, _) = (
        read_dct(encode(ycbcr, **options, hardness=kappa)) for kappa in (None, kappa)
    )
    for c in range(3):
        samples = ycbcr[:, :, c].reshape(15, 8, 20, 8).swapaxes(1, 2) - 128.0
        t = dctn(samples, axes=(2, 3), norm="ortho") / steps[c]
        tie = np.abs(t - np.floor(t) - 0.5) < 1e-5
        assert np.array_equal(nearest[c][~tie], sampled[c][~tie])


def test_hardness_is_by_table_even_where_tables_are_equal(photo: Any, read_dct: Read) -> None:
    steps = (7,) * 64
    rounded, _ = read_dct(encode(photo, OperatingPoint(50, "4:4:4", steps, steps)))
    for hardness in ((0.5, None, None), (None, 0.5, None), (None, None, 0.5)):
        planes, _ = read_dct(encode(photo, OperatingPoint(50, "4:4:4", steps, (steps, steps), hardness)))
        same = [np.array_equal(one, other) for one, other in zip(planes, rounded, strict=True)]
        assert same == [kappa is None for kappa in hardness]


@pytest.mark.parametrize("order", ["AAB", "ABA", "ABB", "BAA", "ABC", "AAA", "AB", "AA"])
def test_each_component_is_divided_by_its_own_table(order: str, photo: Any, read_dct: Read) -> None:
    """Whatever tables are equal: the indices times the steps are the same picture."""
    tables = [{"A": (3,) * 64, "B": (24,) * 64, "C": (7,) * 64}[name] for name in order]
    planes, steps = read_dct(encode(photo, OperatingPoint(50, "4:4:4", tables[0], tables[1:])))
    fine, _ = read_dct(encode(photo, OperatingPoint(50, "4:4:4", (1,) * 64, (1,) * 64)))
    for c in range(3):
        assert (steps[c] == tables[min(c, len(tables) - 1)][0]).all()
        assert np.abs(planes[c] * steps[c].astype(int) - fine[c]).max() <= steps[c].max() / 2 + 1


def test_a_hardness_that_says_nothing_is_refused() -> None:
    picture = np.zeros((8, 8), np.uint8)
    encode(picture, hardness=MIN_HARDNESS)
    with pytest.raises(ValueError, match=r"hardness is 0\.009, expected a finite number of at least 0\.01"):
        encode(picture, hardness=0.009)


@pytest.mark.parametrize("hardness", [0.01, 0.3, 2, 20])
def test_draws_stay_within_what_jpeg_can_hold(hardness: float, read_dct: Read, decode: Decode) -> None:
    """Blocks with the largest coefficients there are: DC -1024..1023, AC -1023..1023 (T.81 F.1.2)."""
    waves = np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16) >= 0
    blocks = np.concatenate(
        [waves[v][:, None] ^ waves[u][None, :] for v in range(8) for u in range(8)], axis=1
    )
    picture = np.tile(np.where(np.concatenate([blocks, ~blocks]), 0, 255).astype(np.uint8), (8, 1))
    for optimize in (True, False):
        data = encode(
            picture, OperatingPoint(100, "4:4:4", (1,) * 64, (1,) * 64), hardness=hardness, optimize=optimize
        )
        (plane,), _ = read_dct(data)
        plane = plane.reshape(-1, 64)
        assert plane[:, 0].min() >= -1024 and plane[:, 0].max() <= 1023
        assert np.abs(plane[:, 1:]).max() <= 1023
        assert np.abs(plane).max() >= 1020
        decode(data)


# --- randomness ---


def streams(seed: int, subsampling: str, read_dct: Read) -> list[np.ndarray]:
    """[blocks, 64] by component, mean 0 and variance 1: all coefficients of a gray picture are 0."""
    gray = np.full((1024, 1024, 3), 128, np.uint8)
    planes, _ = read_dct(encode(gray, hardness=0.3, seed=seed, subsampling=subsampling))
    drawn = [plane.reshape(-1, 64).astype(float) for plane in planes]
    return [
        one / np.sqrt(probabilities(np.zeros(1), np.full(1, 0.3))[0] @ OFFSETS.astype(float) ** 2)
        for one in drawn
    ]


def assert_uncorrelated(correlations: np.ndarray, blocks: int) -> None:
    """Correlations over so many blocks have variance 1 / blocks: none stands out, nor do all together."""
    z = correlations.ravel() * np.sqrt(blocks)
    assert np.abs(z).max() < norm.isf(1e-4 / z.size)
    assert 1e-4 < chi2.sf((z**2).sum(), z.size) < 1 - 1e-4


def forms(values: np.ndarray) -> list[np.ndarray]:
    """The indices, and their squares brought to mean 0 and variance 1: those see what is symmetric."""
    squares = values**2
    return [values, (squares - squares.mean(axis=0)) / squares.std(axis=0)]


def test_coefficients_and_components_are_independent(read_dct: Read) -> None:
    for values in forms(np.concatenate(streams(0, "4:4:4", read_dct), axis=1)):
        correlations = values.T @ values / len(values)
        assert_uncorrelated(correlations[np.triu_indices(192, 1)], len(values))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:1:1"])
def test_blocks_are_independent(subsampling: str, read_dct: Read) -> None:
    for component in streams(0, subsampling, read_dct):
        count = len(component)
        lags = sorted({*range(1, 34), *(2**k for k in range(6, 12)), 127, 129, count // 2})
        for values in forms(component):
            correlations = [
                (values[lag:] * values[:-lag]).sum(axis=0) / np.sqrt(count * (count - lag)) for lag in lags
            ]
            assert_uncorrelated(np.array(correlations), count)


@pytest.mark.parametrize("other", [1, 2, 2**32, 2**63 - 1])
def test_seeds_are_independent(other: int, read_dct: Read) -> None:
    one, two = (np.concatenate(streams(seed, "4:4:4", read_dct), axis=1) for seed in (0, other))
    assert_uncorrelated(one.T @ two / len(one), len(one))


def test_seeds(photo: Any) -> None:
    files = [encode(photo, hardness=1, seed=seed) for seed in (0, 1, 2, 2**31, 2**32, 2**63 - 1)]
    assert len(set(files)) == len(files)
    assert files[0] == encode(photo, hardness=1)
    assert files[3] == encode(photo, hardness=1, seed=np.int64(2**31))
    assert encode(photo, seed=1) == encode(photo, seed=2)  # nothing is drawn


def test_a_picture_and_its_upper_part_share_their_draws(read_dct: Read) -> None:
    """A draw is a function of seed, component, block and coefficient: what lies below has no say."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (256, 200, 3), np.uint8)
    whole, _ = read_dct(encode(picture, hardness=1, seed=5))
    part, _ = read_dct(encode(picture[:64], hardness=1, seed=5))
    for one, other in zip(whole, part, strict=True):
        assert np.array_equal(one[: len(other)], other)


@numba.njit
def _extremes(batches: int, key: Any, lanes: np.ndarray, out: np.ndarray) -> None:
    hashes = load(address(lanes), "u32x16")
    least = splat(2.0, "f32x16")
    most = splat(-1.0, "f32x16")
    for _ in range(batches):
        u = uniform(hashes, key)
        least = select(u < least, u, least)
        most = select(u > most, u, most)
        hashes = hashes + 16
    store(address(out), least)
    store(address(out) + 64, most)


def test_uniform_numbers_from_above_0_to_1() -> None:
    """A 0 would choose what has no probability; all 2^32 hashes are tried."""
    out = np.empty(32, np.float32)
    _extremes(2**28, np.uint32(1), np.arange(16, dtype=np.uint32), out)
    assert 0 < out[:16].min() < 1e-6
    assert 1 - 1e-6 < out[16:].max() <= 1
