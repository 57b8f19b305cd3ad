"""Which candidates become points, and at which quality: against a plain hull, plain folds, and curves that
are known.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("torch")

from dnnjpeg.learn.objective import Losses
from dnnjpeg.learn.points import QUALITIES, Selection, StandardCurve
from dnnjpeg.table.point import OperatingPoint

COUNT = 20  # pictures


def measured(size: float, loss: float | np.ndarray) -> Losses:
    """This size in every picture, and this loss, or these losses."""
    losses = np.broadcast_to(loss, COUNT) if isinstance(loss, float) else loss
    ones = np.ones(len(losses))
    return Losses(size * ones, {"net": losses}, ones, ones, 1000)


def candidate(step: int, quality: float = 50) -> OperatingPoint:
    return OperatingPoint(quality, "4:4:4", (step,) * 64, ((step,) * 64,))


def curve(losses: dict[float, float], size: float = 1000) -> StandardCurve:
    """Bytes are `size` times the quality."""
    return StandardCurve.of(list(losses), [size * q for q in losses], list(losses.values()))


def loss_at(quality: float) -> float:
    """Of the standard files: falls to a tenth in 46 of quality."""
    return 5 * math.exp((5 - quality) / 20)


def quality_of(loss: float) -> float:
    return 5 - 20 * math.log(loss / 5)


def standard(count: int = COUNT) -> list[Losses]:
    """Of 1000 bytes times the quality."""
    return [measured(1000 * q, loss_at(q) * np.ones(count)) for q in QUALITIES]


def selection(places: Sequence[tuple[float, float]]) -> Selection:
    """Of candidates whose luma steps are 1, 2, ..."""
    candidates = [candidate(i + 1) for i in range(len(places))]
    return Selection(candidates, [measured(*place) for place in places], standard())


# The curve


def test_quality_is_the_one_with_the_same_loss() -> None:
    some = curve({10: 4.0, 30: 1.0, 90: 0.25})
    assert some.quality(1.0) == pytest.approx(30)
    assert some.quality(2.0) == pytest.approx(20)  # half way from 4 to 1, in the logarithm
    assert some.quality(0.5) == pytest.approx(60)
    for outside in (4.1, 0.24, 0.0, -1.0):
        assert some.quality(outside) is None
    assert some.loss_at(20) == pytest.approx(2) and some.loss_at(60) == pytest.approx(0.5)
    assert some.bytes_at(30) == pytest.approx(30_000)
    assert some.bytes_at(20) == pytest.approx(1000 * (10 * 30) ** 0.5)


def test_prices_are_slopes() -> None:
    """Of loss = (bytes / 1000)^-1.5, a line between logarithms; and of one that bends, a parabola."""
    sizes = np.geomspace(500, 50_000, 10)
    losses = (sizes / 1000) ** -1.5
    some = StandardCurve.of(QUALITIES, sizes.tolist(), losses.tolist())
    np.testing.assert_allclose([some.price(q) for q in QUALITIES], 1.5 * losses / sizes, rtol=1e-6)
    middle = np.sqrt(sizes[4] * sizes[5])  # between two qualities: of bytes between theirs
    assert some.price((QUALITIES[4] + QUALITIES[5]) / 2) == pytest.approx(1.5e-3 * (middle / 1000) ** -2.5)
    x = np.log(sizes / 1000)
    bent = StandardCurve.of(QUALITIES, sizes.tolist(), np.exp(-0.9 * x - 0.1 * x**2).tolist())
    expected = (0.9 + 0.2 * x) * np.exp(-0.9 * x - 0.1 * x**2) / sizes
    np.testing.assert_allclose([bent.price(q) for q in QUALITIES], expected, rtol=1e-6)


def test_noise_does_not_move_a_price_as_it_moves_a_difference() -> None:
    sizes = np.geomspace(500, 50_000, 10)
    noise = np.random.default_rng(0).normal(0, 0.05, 10)
    some = StandardCurve.of(QUALITIES, sizes.tolist(), ((sizes / 1000) ** -1.5 * np.exp(noise)).tolist())
    prices = np.array([some.price(q) for q in some.qualities])
    np.testing.assert_allclose(prices, 1.5e-3 * (some.bytes / 1000) ** -2.5, rtol=0.12)
    rising = curve({10: 1.0, 20: 0.9999, 90: 0.9998})
    assert rising.price(50) == pytest.approx(0.1 * rising.loss_at(50) / rising.bytes_at(50), rel=1e-3)


def test_noise_is_pooled() -> None:
    """Geometric means, of neighbours that do not fall."""
    some = curve({10: 4.0, 20: 2.0, 30: 2.42, 40: 1.5, 50: 1.5, 60: 1.0})
    np.testing.assert_allclose(some.loss, [4, 2.2, 1.5, 1])
    np.testing.assert_allclose(some.qualities, [10, 25, 45, 60])
    np.testing.assert_allclose(some.bytes, [1e4, 1000 * (20 * 30) ** 0.5, 1000 * (40 * 50) ** 0.5, 6e4])
    with pytest.raises(ValueError, match="does not fall as their quality rises"):
        curve({10: 1.0, 20: 2.0, 30: 3.0})


def test_qualities_that_lose_nothing_are_left_out() -> None:
    """Less than nothing is lost where labels are noise."""
    some = curve({10: 4.0, 20: -0.1, 30: 1.0, 80: 0.25, 90: 0.0, 95: -0.01})
    np.testing.assert_allclose(some.qualities, [10, 30, 80])
    np.testing.assert_allclose(some.loss, [4, 1, 0.25])
    with pytest.raises(ValueError, match="does not fall as their quality rises"):
        curve({10: 1.0, 20: -1.0, 30: 0.0})


@example([0.625] * 4)  # whose means differ by a rounding
@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=12))
def test_any_curve_falls_or_is_refused(losses: list[float]) -> None:
    qualities = np.linspace(5, 95, len(losses))
    try:
        some = curve(dict(zip(qualities, losses, strict=True)))
    except ValueError:
        means = np.cumsum(np.log(losses))[1:] / np.arange(2, len(losses) + 1)
        assert math.log(losses[0]) <= max(means) + 1e-9
        return
    assert (np.diff(some.loss) < 0).all() and (np.diff(some.qualities) > 0).all()
    for quality, loss in zip(some.qualities, some.loss, strict=True):
        assert some.quality(loss * (1 - 1e-12)) == pytest.approx(quality) or loss == some.loss[-1]


# Which become points


def corners(places: Sequence[tuple[float, float]]) -> list[int]:
    """The lower left hull, by asking of each place whether it is below all lines between two others."""
    found = []
    for i, (x, y) in enumerate(places):
        others = [place for j, place in enumerate(places) if j != i]
        is_beaten = any(a <= x and b <= y for a, b in others)
        lines = [
            (a, c) for a in others for c in others if a[0] < x < c[0] and a[1] > c[1]
        ]  # from more loss to more bytes
        is_above = any(y >= b + (d - b) * (x - a) / (c - a) for (a, b), (c, d) in lines)
        if not is_beaten and not is_above:
            found.append(i)
    return sorted(found, key=lambda i: places[i])


_PLACES = st.lists(
    st.tuples(st.integers(50, 9000), st.integers(100, 4990)), min_size=1, max_size=15, unique=True
)


@example([(8308, 100)])  # fewer bytes than at its quality, not than at its quality rounded
@given(_PLACES)
def test_points_are_corners_of_the_hull_in_order(drawn: list[tuple[int, int]]) -> None:
    places = [(10.0 * size, loss / 1000) for size, loss in drawn]
    expected: list[tuple[int, float, float]] = []  # steps, quality, share of the standard table's bytes
    for i in corners(places):
        size, loss = places[i]
        quality = quality_of(loss)
        share = size / np.exp(np.interp(quality, QUALITIES, np.log(1000.0 * np.array(QUALITIES))))
        if not 5 <= quality <= 95 or share >= 1:
            continue
        if expected and round(quality, 1) - expected[-1][1] < 2:
            last = expected.pop()
            expected.append(min(last, (i + 1, round(quality, 1), share), key=lambda one: one[2]))
        else:
            expected.append((i + 1, round(quality, 1), share))
    some = selection(places)
    assert some.luck == pytest.approx(0, abs=1e-12)  # of pictures that are all alike
    if not expected:
        with pytest.raises(ValueError, match="takes fewer bytes"):
            some.points()
        return
    points = some.points()
    assert [point.luma[0] for point in points] == [steps for steps, _, _ in expected]
    for point, (steps, quality, _) in zip(points, expected, strict=True):
        assert point.quality == pytest.approx(quality, abs=0.1001)
        assert point.measured == measured(*places[steps - 1]).record()
    assert all(b.quality - a.quality >= 1.99 for a, b in pairwise(points))


def test_only_what_beats_the_standard_is_kept() -> None:
    good, bad, beyond = (15_000, loss_at(30)), (80_000, loss_at(60)), (90_000, 0.001)
    (point,) = selection([good, bad, beyond]).points()
    assert point.luma[0] == 1 and point.quality == 30
    assert point.measured == measured(*good).record()
    with pytest.raises(ValueError, match="none of 1 candidates takes fewer bytes"):
        selection([bad]).points()


def test_of_near_qualities_the_cheaper_stays() -> None:
    for sizes, kept in (((20_000, 21_500), 1), ((20_000, 20_500), 2)):
        places = list(zip(sizes, (loss_at(40), loss_at(41.9)), strict=True))
        assert [point.luma[0] for point in selection(places).points()] == [kept]
    apart = list(zip((20_000, 20_500), (loss_at(40), loss_at(42.1)), strict=True))
    assert len(selection(apart).points()) == 2


# Luck


def lucky(seed: int, pictures: int = 100, rates: Sequence[float] = (20, 40, 65), each: int = 10) -> Selection:
    """Near each rate, candidates that are all equally good, a tenth cheaper than the standard table, but for
    noise of half their loss by picture; their luma steps tell the rate.
    """
    rng = np.random.default_rng(seed)
    candidates, files = [], []
    for rate in rates:
        for chroma in range(each):
            noise = np.exp(rng.normal(0, 0.5, pictures) - 0.125)
            candidates.append(replace(candidate(int(rate)), chroma=((chroma + 1,) * 64,)))
            files.append(measured(900 * rate, loss_at(rate) * noise))
    return Selection(candidates, files, standard(pictures))


def test_quality_is_what_it_is_on_other_pictures() -> None:
    """Chosen and placed by the same pictures the best of ten seem a good deal better than they are."""
    errors: dict[str, list[float]] = {"placed": [], "on the choosing pictures": []}
    for seed in range(40):
        some = lucky(seed)
        for point in some.points():
            truth = math.log(loss_at(point.luma[0]))
            assert point.measured is not None
            errors["placed"].append(math.log(loss_at(point.quality)) - truth)
            errors["on the choosing pictures"].append(math.log(point.measured["loss"]) - truth)
    means = {kind: np.mean(some) for kind, some in errors.items()}
    spread = np.std(errors["placed"]) / len(errors["placed"]) ** 0.5
    assert len(errors["placed"]) > 100 and spread < 0.006
    assert abs(means["placed"]) < 0.015
    assert means["on the choosing pictures"] < -0.06


def interval(places: Sequence[tuple[float, float]], i: int) -> tuple[float, float]:
    """The prices of a byte at which a place is the best of all."""
    x, y = places[i]
    dearer = [(y - b) / (a - x) for a, b in places if a > x]
    cheaper = [(b - y) / (x - a) for a, b in places if a < x]
    return max([0.0, *dearer]), min([math.inf, *cheaper])


def test_luck_is_what_the_folds_choose_and_pay() -> None:
    """Plainly: what is the best of four fifths, at a price at which the choice of all is the best of all."""
    fold = np.random.default_rng(0).permutation(33) % 5
    for seed in range(5):
        some = lucky(seed, pictures=33, each=4)
        sizes, losses = (
            np.array([getattr(one, kind) for one in some.measured]) for kind in ("bytes", "loss")
        )
        places = list(zip(sizes.mean(1), losses.mean(1), strict=True))
        shares = []
        for i in corners(places):
            quality = quality_of(places[i][1])
            if places[i][0] >= some.curve.bytes_at(quality):
                continue
            cost = losses + np.clip(some.curve.price(quality), *interval(places, i)) * sizes
            paid = 0.0
            for number in range(5):
                rest, here = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
                best = min(range(len(places)), key=lambda k: sum(cost[k, p] for p in rest))
                paid += sum(cost[best, p] - cost[i, p] for p in here)
            assert paid >= -1e-9
            shares.append(paid / losses[i].sum())
        assert some.luck == pytest.approx(np.mean(shares), rel=1e-6) and some.luck > 0.02
        for point in some.points():
            assert point.measured is not None
            assert point.quality == pytest.approx(
                quality_of(point.measured["loss"] * (1 + some.luck)), abs=0.051
            )


def test_few_pictures_and_no_choice() -> None:
    assert lucky(0, pictures=3, each=1).luck == 0
    some = Selection([candidate(1)], [measured(9e5, 0.3)], standard())
    assert some.luck == 0


# Between


def test_points_between_are_added_where_a_quality_is_off() -> None:
    some = selection([(15_000, loss_at(20)), (60_000, loss_at(80))])
    points = some.points()
    assert [point.quality for point in points] == [20, 80]

    def between(*truths: tuple[float, float]) -> list[tuple[float, int]]:
        """Of what the table says and what it is: what is added, as its quality and which it was."""
        pairs = [(candidate(100 + i, q), measured(9000, loss_at(is_))) for i, (q, is_) in enumerate(truths)]
        added = list(some.between(points, pairs))
        assert all(point.measured == pairs[point.luma[0] - 100][1].record() for point in added)
        return [(point.quality, point.luma[0] - 100) for point in added]

    three = -20 * math.log(1.03)  # in quality: what 3 % of loss are
    assert between((50, 50 + 0.99 * three), (65, 65 - 0.98 * three)) == []
    assert between((50, 44)) == [(44, 0)]
    assert between((35, 39.04), (50, 50.1), (65, 60)) == [(39, 0), (60, 2)]
    assert between((35, 21.9)) == [] and between((35, 22.1)) == [(22.1, 0)]  # 2 apart from 20
    assert between((50, 57), (65, 58)) == [(57, 0)]  # and from one another
    assert between((85, 97)) == []  # beyond the curve
    assert list(some.between(points, [(candidate(9, 50), measured(9000, -0.1))])) == []


def test_points_between_share_the_luck() -> None:
    """A table's own point, found again, is where it was put."""
    some = lucky(0)
    points = some.points()
    assert some.luck > 0.05
    again = [
        (point, some.measured[some.candidates.index(replace(point, quality=50, measured=None))])
        for point in points
    ]
    assert list(some.between(points, again)) == []
    loss = measured(9000, loss_at(50) * np.ones(100) / (1 + some.luck))
    assert list(some.between(points, [(candidate(1, 50), loss)])) == []
    (added,) = some.between(points, [(candidate(1, 50), measured(9000, loss_at(50) * np.ones(100)))])
    assert added.quality == pytest.approx(quality_of(loss_at(50) * (1 + some.luck)), abs=0.051)


def test_a_table_changes_its_subsampling_once() -> None:
    """4:4:4 pays above quality 40. By chance it seems to at 20 as well, and 4:2:0 at 80."""
    candidates, found = [], []
    for quality in range(10, 91, 10):
        for subsampling in ("4:2:0", "4:4:4"):
            is_best = (subsampling == "4:4:4") == (quality > 40)
            share = 0.8 if is_best else 0.78 if quality in (20, 80) else 0.95
            steps = (quality + (subsampling == "4:4:4"),) * 64
            candidates.append(OperatingPoint(50, subsampling, steps, (steps,)))
            found.append(measured(share * 1000 * quality, loss_at(quality)))
    points = Selection(candidates, found, standard()).points()
    kinds = [point.subsampling for point in points]
    assert kinds == sorted(kinds) and len(kinds) >= 6
    assert [point.subsampling for point in points if point.quality < 45] == kinds[: kinds.count("4:2:0")]
