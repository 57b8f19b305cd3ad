"""Which candidates become points, and at which quality: against a plain hull and curves that are known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, QhullError

pytest.importorskip("torch")

from dnnjpeg.learn.objective import Measurement
from dnnjpeg.learn.points import StandardCurve, select
from dnnjpeg.point import OperatingPoint


def measured(size: float, loss: float) -> Measurement:
    """Of two pictures, with these means."""
    ones, none = np.ones(2), np.zeros((3, 64))
    sizes, losses = np.array([size - 10, size + 10]), np.array([0.5, 1.5]) * loss
    return Measurement(sizes, losses, ones, ones, 1000, none, none)


def candidate(step: int) -> OperatingPoint:
    return OperatingPoint(50, "4:4:4", (step,) * 64, ((step,) * 64,))


def curve(losses: dict[float, float], size: float = 1000) -> StandardCurve:
    """Bytes are `size` times the quality."""
    return StandardCurve.of(list(losses), [measured(size * q, loss) for q, loss in losses.items()])


def test_quality_is_the_one_with_the_same_loss():
    standard = curve({10: 4.0, 30: 2.0, 90: 1.0})
    assert standard.quality(2.0) == 30
    assert standard.quality(3.0) == 20
    assert standard.quality(1.25) == 75
    assert standard.quality(4.1) is None and standard.quality(0.9) is None
    assert standard.bytes_at(30) == pytest.approx(30_000)
    assert standard.bytes_at(20) == pytest.approx(1000 * (10 * 30) ** 0.5)
    assert standard.price(20) == pytest.approx(2 / 20_000)
    assert standard.price(30) == standard.price(20)
    assert standard.price(60) == pytest.approx(1 / 60_000)
    assert standard.price(99) == standard.price(60) and standard.price(1) == standard.price(20)


def test_noise_is_pooled():
    standard = curve({10: 4.0, 20: 2.0, 30: 2.2, 40: 1.5, 50: 1.5, 60: 1.0})
    np.testing.assert_allclose(standard.loss, [4, 2.1, 1.5, 1])
    np.testing.assert_allclose(standard.qualities, [10, 25, 45, 60])
    with pytest.raises(ValueError, match="does not fall with"):
        curve({10: 1.0, 20: 2.0, 30: 3.0})


@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=12))
def test_any_curve_falls_or_is_refused(losses):
    qualities = np.linspace(5, 95, len(losses))
    try:
        standard = curve(dict(zip(qualities, losses, strict=True)))
    except ValueError:
        assert losses[0] <= max(np.cumsum(losses)[1:] / np.arange(2, len(losses) + 1)) + 1e-9
        return
    assert (np.diff(standard.loss) < 0).all() and (np.diff(standard.qualities) > 0).all()
    for quality, loss in zip(standard.qualities, standard.loss, strict=True):
        assert standard.quality(loss) == pytest.approx(quality)


_PLACES = st.lists(
    st.tuples(st.integers(500, 100_000), st.floats(0.2, 3)), min_size=4, max_size=30, unique=True
)


@given(_PLACES)
def test_points_are_corners_of_the_hull_in_order(places):
    standard = curve({5: 4.0, 95: 0.1}, size=10_000)  # dearer than every candidate
    points = select([candidate(i + 1) for i in range(len(places))], [measured(*p) for p in places], standard)
    chosen = [(point.measured["bytes"], point.measured["loss"]) for point in points]
    assert all(a < b for a, b in pairwise(chosen))
    assert all(a[1] > b[1] for a, b in pairwise(chosen))
    for point in points:
        assert places[point.luma[0] - 1] == pytest.approx(
            (point.measured["bytes"], point.measured["loss"]), abs=1e-5
        )
        assert point.quality == round(standard.quality(point.measured["loss"]), 1)
    assert all(b.quality - a.quality >= 1.99 for a, b in pairwise(points))
    cloud = np.array(places) / [1e5, 3]
    try:
        hull = ConvexHull(cloud)
    except QhullError:
        assume(False)
    for place in chosen:  # no candidate lies below the tangent of one of the corner's two edges
        normals = hull.equations[(hull.equations[:, :2] < 1e-9).all(1)]
        if len(normals):
            heights = normals[:, :2] @ (np.array(place) / [1e5, 3]) + normals[:, 2]
            assert heights.max() > -1e-4 or np.isclose(place[0], min(p[0] for p in places), rtol=1e-6)


def test_only_what_beats_the_standard_is_kept():
    standard = curve({10: 4.0, 90: 1.0})
    good, bad, beyond = measured(15_000, 3.0), measured(80_000, 2.0), measured(200_000, 0.5)
    points = select([candidate(1), candidate(2), candidate(3)], [good, bad, beyond], standard)
    assert [point.luma[0] for point in points] == [1]
    assert points[0].quality == pytest.approx(36.7)
    assert points[0].measured == good.record()
    with pytest.raises(ValueError, match="none of 1 candidates takes fewer bytes"):
        select([candidate(2)], [bad], standard)


def test_of_near_qualities_the_cheaper_stays():
    standard = curve({10: 4.0, 90: 1.0})
    points = select([candidate(1), candidate(2)], [measured(20_000, 2.0), measured(20_500, 1.9995)], standard)
    assert [point.luma[0] for point in points] == [1]
