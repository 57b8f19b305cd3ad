"""Curves: against numpy's interpolation, scipy's isotonic regression and integrals, and closed forms."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import quad
from scipy.optimize import isotonic_regression

from dnnjpeg.evaluate.curves import Curve, log_ratio, mean_log_ratio, per_cent

SIZES = st.lists(st.integers(100, 100_000), min_size=2, max_size=8, unique=True)


@st.composite
def raw(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Three samples of sizes in any order, and of a goodness that may rise and fall."""
    sizes = np.array(draw(SIZES), float)
    rows = sizes * draw(arrays(float, (3, 1), elements=st.floats(0.9, 1.1)))
    steps = st.integers(0, 50).map(lambda x: x / 50)
    return rows, draw(arrays(float, rows.shape, elements=steps))


def line(*points: tuple[float, float]) -> Curve:
    """One sample, by (bytes, goodness)."""
    sizes, goodness = np.array(points).T
    return Curve(sizes[None], goodness[None])


@given(raw())
def test_goodness_is_interpolated_over_log_bytes(given_: tuple[np.ndarray, np.ndarray]) -> None:
    sizes, goodness = given_
    at = np.log(np.geomspace(sizes.min(), sizes.max(), 3))
    found = Curve(sizes, goodness).goodness_at(at)
    for x, row, ys, y in zip(at, sizes, goodness, found, strict=True):
        order = np.argsort(row)
        expected = np.interp(x, np.log(row[order]), ys[order], left=-np.inf, right=np.inf)
        assert y == pytest.approx(expected, abs=1e-9)


@given(raw())
def test_the_rising_curve_is_the_isotonic_regression(given_: tuple[np.ndarray, np.ndarray]) -> None:
    sizes, goodness = given_
    log_bytes, rising = Curve(sizes, goodness).rising
    for row, ys, xs, pooled in zip(sizes, goodness, log_bytes, rising, strict=True):
        order = np.argsort(row)
        expected = isotonic_regression(ys[order]).x
        np.testing.assert_allclose(pooled, expected, atol=1e-9)
        for level in np.unique(pooled):  # each pool stands at its mean size
            members = pooled == level
            np.testing.assert_allclose(xs[members], np.log(row[order])[members].mean())


@given(raw(), st.floats(0.2, 5), st.floats(0, 1))
def test_a_codec_that_takes_a_share_of_the_bytes(
    given_: tuple[np.ndarray, np.ndarray], share: float, at: float
) -> None:
    sizes, goodness = given_
    reference, curve = Curve(sizes, goodness), Curve(share * sizes, goodness)
    target = reference.within(np.full(3, at))
    expected = 100 * (share - 1)
    assert per_cent(log_ratio(curve, reference, target)) == pytest.approx(expected)
    _, rising = reference.rising
    flat = rising[:, 0] == rising[:, -1]
    found = per_cent(mean_log_ratio(curve, reference))
    assert np.isnan(found[flat]).all()
    assert found[~flat] == pytest.approx(expected)


@given(raw())
def test_bytes_and_goodness_are_inverse_on_a_curve_that_rises(given_: tuple[np.ndarray, np.ndarray]) -> None:
    sizes, goodness = given_
    ranked = np.argsort(np.argsort(sizes, axis=1), axis=1) + goodness / 2  # rises with the size
    curve = Curve(sizes, ranked)
    for at in np.linspace(0, ranked.shape[1] - 1, 7):
        target = curve.within(np.full(3, at))
        assert curve.goodness_at(curve.log_bytes_at(target)) == pytest.approx(target, abs=1e-9)


def test_the_bytes_of_a_setting_are_exact() -> None:
    curve = line((1000, 0.5), (2000, 0.7), (4000, 0.75))
    for size, goodness in ((1000, 0.5), (2000, 0.7), (4000, 0.75)):
        assert np.exp(curve.log_bytes_at(np.array([goodness])))[0] == pytest.approx(size, rel=1e-14)
    assert np.exp(curve.log_bytes_at(np.array([0.6])))[0] == pytest.approx(1000 * 2**0.5)


def test_nothing_is_extrapolated() -> None:
    curve, better = line((1000, 0.5), (2000, 0.7)), line((500, 0.8), (800, 0.9))
    assert curve.log_bytes_at(np.array([0.71])) == np.inf
    assert curve.log_bytes_at(np.array([0.49])) == -np.inf
    assert curve.goodness_at(np.log([2001.0])) == np.inf
    assert curve.goodness_at(np.log([999.0])) == -np.inf
    assert per_cent(log_ratio(better, curve, np.array([0.6]))) == -np.inf
    assert per_cent(log_ratio(curve, better, np.array([0.85]))) == np.inf
    assert np.isnan(log_ratio(curve, better, np.array([0.95])))
    assert np.isnan(mean_log_ratio(curve, better))


def test_one_setting_is_a_curve() -> None:
    curve = line((1000, 0.5))
    assert np.exp(curve.log_bytes_at(np.array([0.5]))) == pytest.approx(1000)
    assert curve.log_bytes_at(np.array([0.51])) == np.inf
    assert np.isnan(mean_log_ratio(curve, line((500, 0.4), (800, 0.6))))


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_mean_log_ratio_is_the_integral(ours: list[int], theirs: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    knots = [(np.sort(sizes).astype(float), np.sort(rng.random(len(sizes)))) for sizes in (ours, theirs)]
    (x, y), (u, v) = knots
    low, high = max(y[0], v[0]), min(y[-1], v[-1])
    assume(high - low > 0.01)
    area, _ = quad(
        lambda g: np.interp(g, y, np.log(x)) - np.interp(g, v, np.log(u)),
        low,
        high,
        points=[g for g in (*y, *v) if low < g < high],
        limit=200,
    )
    found = mean_log_ratio(Curve(x[None], y[None]), Curve(u[None], v[None]))
    assert found[0] == pytest.approx(area / (high - low), abs=1e-6)


def test_on_smooth_curves_it_is_bjontegaards() -> None:
    sizes = np.geomspace(2000, 20_000, 9)
    goodness = -6000 / (sizes + 3000)
    one, other = Curve(sizes[None], goodness[None]), Curve(0.85 * sizes[None] ** 1.01, goodness[None] * 0.99)
    log_rates = [np.log(sizes), np.log(0.85 * sizes**1.01)]
    low, high = max(goodness[0], goodness[0] * 0.99), min(goodness[-1], goodness[-1] * 0.99)
    integrals = [
        np.polyint(np.polyfit(g, x, 3)) for x, g in zip(log_rates, (goodness, goodness * 0.99), strict=True)
    ]
    ours, theirs = (np.polyval(p, high) - np.polyval(p, low) for p in integrals)
    assert mean_log_ratio(other, one)[0] == pytest.approx((theirs - ours) / (high - low), abs=0.01)
