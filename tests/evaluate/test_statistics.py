"""Means and their intervals, against numpy, scipy and closed forms."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.evaluate.statistics import RESAMPLES, Estimate, crossed_means, means

NUMBERS = st.floats(-1e6, 1e6)


@given(st.integers(1, 20).flatmap(lambda n: st.lists(st.tuples(*[NUMBERS] * n), min_size=1, max_size=4)))
def test_the_first_sample_is_the_mean_and_the_others_lie_within(values: list[tuple[float, ...]]) -> None:
    samples = means(values)
    assert samples.shape == (1 + RESAMPLES, len(values))
    np.testing.assert_allclose(samples[0], np.mean(values, axis=1), rtol=1e-12, atol=1e-9)
    assert (samples >= np.min(values, axis=1) - 1e-6).all()
    assert (samples <= np.max(values, axis=1) + 1e-6).all()


def test_a_resample_draws_as_many_pictures_with_repetition() -> None:
    each = means(np.eye(7)) * 7  # how often each picture was drawn
    np.testing.assert_allclose(each, each.round(), atol=1e-9)
    np.testing.assert_allclose(each.sum(axis=1), 7)
    assert (each[0] == 1).all()
    assert each[1:].min() == 0 and each.max() >= 3
    assert len(np.unique(each.round(), axis=0)) > RESAMPLES / 2


def test_samples_are_paired_across_calls() -> None:
    values = np.random.default_rng(0).normal(size=50)
    (one,), (other,) = means([values]).T, means([3 * values + 1]).T
    np.testing.assert_allclose(other, 3 * one + 1)
    interval = Estimate.of(other - 3 * one)
    assert (interval.low, interval.high) == pytest.approx((1, 1))


@pytest.mark.parametrize("values", [np.arange(40.0), np.random.default_rng(1).exponential(size=300)])
def test_intervals_are_those_of_scipy(values: np.ndarray) -> None:
    found = Estimate.of(means([values])[:, 0])
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5)
    )
    spread = expected.standard_error
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.2 * spread)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.2 * spread)


def test_what_is_beyond_or_not_defined() -> None:
    rising = np.arange(1001.0)
    assert Estimate.of(rising) == Estimate(0, 25, 976)
    assert Estimate.of(np.where(rising > 900, np.inf, rising)) == Estimate(0, 25, np.inf)
    assert Estimate.of(np.where(rising < 100, -np.inf, rising)) == Estimate(-np.inf, -np.inf, 976)
    some = np.where(rising % 2, np.nan, rising)
    assert np.isfinite([Estimate.of(some).low, Estimate.of(some).high]).all()
    some[0] = np.nan
    assert np.isnan([Estimate.of(some).value, Estimate.of(some).low, Estimate.of(some).high]).all()


# What trainings, pictures and both together add: as in the trainings of JPEG-DL, and one of them alone.
SPREADS = [(1.0, 10.0, 10.0), (3.0, 1.0, 1.0), (0.0, 0.0, 10.0), (0.0, 10.0, 1.0)]


@pytest.mark.parametrize("trainings", [3, 5, 10])
@pytest.mark.parametrize("spreads", SPREADS)
def test_intervals_of_trainings_and_pictures_hold_what_is_true(trainings: int, spreads) -> None:
    """In 95 of 100 simulated cases, as far as 400 of them tell (+-2.2), and some more with few trainings."""
    of_trainings, of_pictures, of_both = spreads
    rng, true, cases = np.random.default_rng(1), 2.0, 400
    held = held_by_pictures = 0
    for _ in range(cases):
        each = of_trainings * rng.normal(size=(trainings, 1)) + of_pictures * rng.normal(size=200)
        table = true + each + of_both * rng.normal(size=(trainings, 200))
        samples = crossed_means(table)
        assert samples[0] == pytest.approx(table.mean()) and len(samples) == 1 + RESAMPLES
        held += Estimate.of(samples).low <= true <= Estimate.of(samples).high
        alone = Estimate.of(means([table.mean(0)])[:, 0])
        held_by_pictures += alone.low <= true <= alone.high
    assert 0.925 <= held / cases <= 0.985
    if spreads == (3.0, 1.0, 1.0):
        assert held_by_pictures / cases < 0.2


def test_of_one_training_nothing_is_known_of_others() -> None:
    found = Estimate.of(crossed_means([[1, 0, 0, 1]]))
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()
    for shape in ((4,), (0, 4), (2, 1)):
        with pytest.raises(ValueError, match="expected trainings x 2 pictures or more"):
            crossed_means(np.ones(shape))


def test_where_all_agree_there_is_no_interval() -> None:
    assert Estimate.of(crossed_means(np.full((3, 9), 4.0))) == Estimate(4, 4, 4)
