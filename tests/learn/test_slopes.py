"""Slopes against differences of real losses and files; tables drawn from them, against the standard ones."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import PREPROCESS, classifier, pictures  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.encoder import encode  # noqa: E402
from dnnjpeg.files.cache import Cache  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA  # noqa: E402
from dnnjpeg.learn import slopes  # noqa: E402
from dnnjpeg.learn.bench import Bench  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.points import StandardCurve  # noqa: E402
from dnnjpeg.learn.slopes import learn  # noqa: E402
from dnnjpeg.learn.smooth import Slope, SmoothTables, coordinate  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.networks.tasks import Classification, Embedding  # noqa: E402
from dnnjpeg.soft.jpeg import from_coefficients, to_coefficients  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

ANNEX = np.log(np.array([STANDARD_LUMA, STANDARD_CHROMA], float))


def objective(count: int = 40, seeds: tuple[int, ...] = (0,), first: int = 0, **options: Any) -> Objective:
    networks = [
        Network(
            f"tiny{seed}",
            "tiny",
            f"{seed:016}",
            classifier(seed).requires_grad_(False),
            Preprocess.of(PREPROCESS),
            torch.device("cpu"),
        )
        for seed in seeds
    ]
    some = pictures(count, first)
    return Objective(networks, Dataset(some, None, tuple(map(str, range(count))), "tiny pictures"), **options)


def loss_at(some: Objective, which: int, steps: np.ndarray, subsampling: str) -> float:
    """Mean divergence of one network where coefficients are rounded to multiples of the steps."""
    index = np.arange(len(some))
    total = 0.0
    for numbers, pixels in some.groups(index):
        planes = [
            q * torch.round(z / q)
            for z, q in zip(to_coefficients(pixels, subsampling), torch.tensor(steps).float(), strict=True)
        ]
        seen = from_coefficients(planes, *pixels.shape[-2:], subsampling)
        clean = torch.from_numpy(some.clean[which][numbers]).log_softmax(1)
        with torch.no_grad():
            read = some.output(which, seen).log_softmax(1)
        total += float(F.kl_div(read, clean, log_target=True, reduction="sum"))
    return total / len(index)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_damage_adds_up_to_the_change_of_the_loss(subsampling: str) -> None:
    some = objective(60, (0, 1))
    steps = np.exp(ANNEX)[[0, 1, 1]]
    bench = Bench(some, 2, 0)
    damage, losses = bench._damage(steps[:2], subsampling, np.arange(60))
    assert damage.shape == (2, 60, 2, 64) and losses.shape == (2, 60)
    for which in range(2):
        coarse, fine = (loss_at(some, which, steps * factor, subsampling) for factor in (1.7, 1 / 1.7))
        assert coarse > 1.5 * fine
        assert damage[which].mean(0).sum() * 2 == pytest.approx(coarse - fine, rel=0.15)


def test_damage_without_gradients_is_that_of_differences() -> None:
    """Groups of frequencies have what their gradients say, within a tenth of what all groups have."""
    some, without = objective(60), objective(60)
    without.networks[0].module.is_differentiable = False
    steps, index = np.exp(ANNEX), np.arange(60)
    (expected, loss), (found, other) = (
        Bench(one, 2, 0)._damage(steps, "4:4:4", index) for one in (some, without)
    )
    np.testing.assert_allclose(other, loss, rtol=1e-4, atol=1e-6)
    levels = np.add.outer(np.arange(8), np.arange(8)).ravel()
    groups = [levels == 0, levels == 1, levels == 2, levels == 3, levels == 4, (levels > 4) & (levels < 7)]
    by_group = np.array([[one[0].mean(0)[:, g].sum(1) for g in groups] for one in (found, expected)])
    for table in range(2):
        largest = np.abs(by_group[1, :, table]).sum()
        np.testing.assert_allclose(*by_group[:, :, table], atol=0.2 * largest)


def test_slopes_of_another_task_are_measured_anew(tmp_path: Path) -> None:
    """A task changes the distances, and nothing else."""
    cache = Cache(tmp_path)
    found = []
    for task in (Classification(), Embedding(), Classification()):
        some = objective(24, cache=cache)
        network = replace(some.networks[0], task=task)
        bench = Bench(Objective([network], some.dataset, cache=cache), 2, 0)
        found.append(bench.measure(ANNEX, 0.0, "4:4:4")[1])
    assert found[0] == found[2] != found[1]


def test_bytes_are_those_of_files() -> None:
    """Of a picture alone: one step up, one step down, the rest as they were."""
    some = objective(1)
    bench = Bench(some, 2, 0)
    point = OperatingPoint(50, "4:4:4", (20,) * 64, ((20,) * 64,))
    found = bench._bytes(point, np.array([0]))

    def size(step: int) -> int:
        luma = (20, step, *(20,) * 62)
        return some.size(OperatingPoint(50, "4:4:4", luma, ((20,) * 64,)), some.dataset.pictures[0])

    expected = (size(16) - size(25)) / size(20) / math.log(25 / 16)
    assert found["saved"][0, 1] == pytest.approx(expected)
    assert found["size"] == size(20) == len(encode(some.dataset.pictures[0], point, signature=False))


def shares_at(log_steps: np.ndarray, best: np.ndarray, bytes_: np.ndarray) -> np.ndarray:
    """Of a damage that grows with the squares of the steps, and is as it should be at the best."""
    damage = bytes_ * np.exp(2 * (log_steps - best))
    return damage / damage.sum()


def test_the_best_steps_are_found_from_their_slopes() -> None:
    """Three rounds on a known landscape, in which a few frequencies stand out, and some say nothing."""
    rng = np.random.default_rng(0)
    own = rng.normal(0, 0.15, (2, 64))
    bytes_ = rng.uniform(0.2, 1, (2, 64))
    bytes_[1, 40:] = 0

    def best(x: float) -> np.ndarray:
        return ANNEX + x + own + np.array([[-0.2 * x], [0.4 + 0.2 * x]])

    known: list[Slope] = []
    for _ in range(3):
        fit = SmoothTables(known, 2)
        for x in (-1.0, 0.0, 1.0):
            steps = fit.log_steps(x)
            damage = shares_at(steps, best(x), bytes_)
            known.append(Slope(x, steps, damage, (0.1 * damage) ** 2, bytes_))
    first, last = SmoothTables([], 2), SmoothTables(known, 2)
    for x in (-1.0, 0.3, 1.0):
        error = [fit.log_steps(x) - best(x) for fit in (first, last)]
        error = [one - (bytes_ * one).sum() / bytes_.sum() for one in error]  # of all: no other table
        assert np.abs(error[1][bytes_ > 0]).mean() < 0.3 * np.abs(error[0][bytes_ > 0]).mean()
        assert np.abs(error[1][bytes_ == 0]).mean() < 0.25  # as their neighbours


def test_a_single_wild_slope_moves_little() -> None:
    steps = SmoothTables([], 2).log_steps(0.0)
    bytes_ = np.full((2, 64), 1 / 128)
    damage, variance = bytes_.copy(), np.full((2, 64), 1e-8)
    damage[0, 20], variance[0, 20] = -5.0, 25.0
    fitted = SmoothTables([Slope(0.0, steps, damage, variance, bytes_)], 2).log_steps(0.0)
    assert abs(fitted - steps)[0, 20] < 0.05


def at_equal_loss(some: Objective, points: list[OperatingPoint]) -> list[float]:
    """Bytes in parts of the standard table's of the same loss, of points within its curve."""
    qualities = (10, 20, 30, 45, 60, 75, 85, 92)
    standard = [some.measure(standard_table().at(quality)) for quality in qualities]
    curve = StandardCurve.of(
        qualities, [one.bytes.mean() for one in standard], [one.loss.mean() for one in standard]
    )
    found = []
    for one in map(some.measure, points):
        quality = curve.quality(float(one.loss.mean()))
        if quality is not None:
            found.append(float(one.bytes.mean()) / curve.bytes_at(quality))
    return found


@pytest.mark.slow
def test_learned_tables_beat_the_standard_ones_on_other_pictures() -> None:
    points = learn(objective(48, (0, 1)), (25, 50, 75), ("4:4:4", "4:2:0"), seed=1)
    assert {point.subsampling for point in points} == {"4:4:4", "4:2:0"}
    ratios = at_equal_loss(objective(60, (0, 1), first=5), points)
    assert len(ratios) > 6 and min(ratios) < 0.85 and np.median(ratios) < 0.97


@pytest.mark.slow
def test_small_files_are_tried_with_one_table_for_all() -> None:
    """These are; where tables are not counted, there is no reason to."""
    tied = [len(set(point.tables)) == 1 for point in learn(objective(10), (50,), ("4:2:0",))]
    assert tied == [False, True]
    headerless = learn(objective(10, headerless=True), (50,), ("4:2:0",))
    assert [len(set(point.tables)) for point in headerless] == [2]
    three = learn(objective(10), (50,), ("4:2:0",), tables=3)
    assert [len(set(point.tables)) for point in three] == [3]


@pytest.mark.slow
def test_steps_vary_smoothly_with_quality() -> None:
    """As Annex K's do, by 1.3 from quality to quality, but for a fifth."""
    points = learn(objective(20), range(20, 81, 5), ("4:4:4",))
    steps = np.array([point.tables for point in points if len(set(point.tables)) == 2], float)
    assert len(steps) == 13
    is_whole = (steps[1:] > 10) & (steps[:-1] < 255)  # where rounding and bounds say little
    ratio = (steps[:-1] / steps[1:])[is_whole]
    standard = np.array([standard_table().at(q).tables for q in range(20, 81, 5)], float)
    expected = (standard[:-1] / standard[1:]).mean((1, 2))
    expected = np.broadcast_to(expected[:, None, None], is_whole.shape)[is_whole]
    assert (ratio / expected).min() > 0.8 and (ratio / expected).max() < 1.25


def test_a_run_resumes_from_the_cache(tmp_path, monkeypatch) -> None:
    seen: list[tuple[float, float]] = []

    def stop(*trial: float) -> None:
        seen.append(trial)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(objective(12, cache=Cache(tmp_path)), (30, 60), ("4:4:4",), on_trial=stop)
    again: list[tuple[float, float]] = []
    found = learn(
        objective(12, cache=Cache(tmp_path)),
        (30, 60),
        ("4:4:4",),
        on_trial=lambda *trial: again.append(trial),
    )
    assert again[:4] == seen and len(again) == slopes.most_trials(1)
    assert len(found) <= slopes.most_candidates(2, 1)
    monkeypatch.setattr(Bench, "_damage", pytest.fail)
    assert learn(objective(12, cache=Cache(tmp_path)), (30, 60), ("4:4:4",)) == found


@pytest.mark.parametrize("trials", [2, 7])
def test_a_deadline_is_kept(monkeypatch: pytest.MonkeyPatch, trials: int) -> None:
    """On a made-up clock, on which a trial takes 10 seconds."""
    now, measure = [1000.0], Bench.measure

    def slow(*arguments: Any) -> Any:
        now[0] += 10
        return measure(*arguments)

    monkeypatch.setattr(slopes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Bench, "measure", slow)
    seen: list[float] = []
    end = 1000.0 + 10 * trials + 5
    points = learn(objective(12), (30,), ("4:2:0", "4:4:4"), deadline=end, on_trial=lambda *x: seen.append(x))
    assert len(seen) == trials and points and now[0] <= end
    with pytest.raises(ValueError, match="the time is over after 1 trials"):
        learn(objective(12), (30,), ("4:2:0", "4:4:4"), deadline=now[0] + 15)


def test_networks_that_see_nothing_are_refused() -> None:
    some = objective(10)
    some.networks[0].module[-1].weight.data.zero_()
    with pytest.raises(ValueError, match="do not see the difference"):
        learn(Objective(some.networks, some.dataset), (50,), ("4:2:0",))


def test_the_coordinate_is_libjpegs_factor() -> None:
    assert coordinate(50) == 0 and coordinate(25) == pytest.approx(math.log(2))
    assert coordinate(75) == pytest.approx(math.log(0.5)) and coordinate(100) == math.log(0.01)
