"""The model of what damage costs, against trials made by it; tables chosen by it, against real files."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import PREPROCESS, classifier, pictures  # noqa: E402

from dnnjpeg.cache import Cache  # noqa: E402
from dnnjpeg.codec.encoder import encode  # noqa: E402
from dnnjpeg.dataset import Dataset  # noqa: E402
from dnnjpeg.learn import damage, response  # noqa: E402
from dnnjpeg.learn.damage import Response, Trial, fit  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.response import learn  # noqa: E402
from dnnjpeg.models import Network, Preprocess  # noqa: E402
from dnnjpeg.point import OperatingPoint  # noqa: E402
from dnnjpeg.readings import decode  # noqa: E402

POINT = OperatingPoint(50, "4:4:4", (16,) * 64, ((16,) * 64,))


def objective(count: int = 30, seed: int = 0, **options: Any) -> Objective:
    module = classifier(seed).requires_grad_(False)
    net = Network(
        f"tiny{seed}", "tiny", f"{seed:016}", module, Preprocess.of(PREPROCESS), torch.device("cpu")
    )
    some = pictures(count)
    return Objective([net], Dataset(some, None, tuple(map(str, range(count))), "tiny pictures"), **options)


def made_by(truth: Response, count: int, seed: int = 0) -> list[Trial]:
    """Trials whose losses are exactly those of a model, with damage of every kind and size."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        bands = rng.uniform(-1.5, 1.5, (2, 16)) + rng.uniform(-1.5, 1.5)
        moved, lost = (20 * np.exp(band)[damage.BAND] for band in bands)
        trials.append(Trial(POINT, 1000.0, truth.loss(moved, lost), moved, lost))
    return trials


def test_fit_finds_the_model_that_made_the_losses() -> None:
    bands = np.exp(np.linspace(-8, -10, 16))
    truth = Response(bands[damage.BAND], np.array([0.6, 1.0, 1.4]), 1.4, 0.0)
    found = fit(made_by(truth, 120))
    assert found.error < 0.01
    assert found.exponent == pytest.approx(1.4, rel=0.05)
    np.testing.assert_allclose(found.ratio, truth.ratio, rtol=0.1)
    for trial in made_by(truth, 20, seed=1):  # of damage that the fit has not seen
        assert found.loss(trial.moved, trial.lost) == pytest.approx(trial.loss, rel=0.03)


@pytest.mark.parametrize("losses", [(0.5,) * 20, (0.0, *np.linspace(0.1, 1, 19))])
def test_losses_that_say_nothing_are_refused(losses: tuple[float, ...]) -> None:
    truth = Response(np.full((3, 64), 1e-4), np.ones(3), 1.0, 0.0)
    trials = [replace(t, loss=x) for t, x in zip(made_by(truth, 20), losses, strict=True)]
    with pytest.raises(ValueError, match="do not see the difference"):
        fit(trials)


def test_damage_is_the_squared_error_of_the_files() -> None:
    """Parseval: summed over the 64 frequencies, it is 64 times the mean squared error of a sample."""
    some = objective()
    trial = response._try(some, POINT)
    seen = np.stack([decode(encode(p, POINT)) for p in some.dataset.pictures])
    luma = np.array([0.299, 0.587, 0.114])
    error = (seen.astype(float) - some.dataset.pictures) @ luma
    assert (trial.moved + trial.lost)[0].sum() == pytest.approx(64 * (error**2).mean(), rel=1e-3)
    assert trial.bytes == pytest.approx(some.measure(POINT).bytes.mean())
    assert trial.lost[0, 63] > trial.moved[0, 63]
    assert trial.lost[0, 0] < 0.1 * trial.moved[0, 0]


def of(bench: response._Bench, model: Response, point: OperatingPoint) -> Trial:
    """What the model expects of a point."""
    steps = response._steps(point)
    cost = bench.cost(model, steps).sum() ** model.exponent
    moved = bench.cost(replace(model, weights=np.ones((3, 64)), ratio=np.ones(3)), steps)
    return Trial(point, bench.bytes(steps, len(set(point.tables))), cost, moved, np.zeros((3, 64)))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_steps_go_to_where_they_matter(subsampling: str) -> None:
    """A network that sees nothing but the lowest luma: finer there, coarser elsewhere, same price."""
    weights = np.full((3, 64), 1e-6)
    weights[0, :2] = 1e-3
    model = Response(weights, np.ones(3), 1.0, 0.0)
    bench = response._Bench(objective(), subsampling, 0)
    start = of(bench, model, response._point(response._standard(50), subsampling, 2))
    before = response._steps(start.point)
    coarser = of(bench, model, response._point(1.2 * before, subsampling, 2))
    price = (coarser.loss - start.loss) / (start.bytes - coarser.bytes)
    steps = response._steps(bench._descend(model, start, price, 2)[1])
    assert (steps[0, :2] < before[0, :2]).all()
    ratio = np.log(steps / before)
    assert np.median(ratio[0, 2:]) > 0.3 and np.median(ratio[1]) > 0.3
    assert (np.abs(steps - before) <= before * np.expm1(response._TRUST) + 0.5).all()
    assert (steps[1] == steps[2]).all()
    costs = [bench.cost(model, s).sum() + price * bench.bytes(s, 2) for s in (steps, before)]
    assert costs[0] < costs[1]


def test_one_table_for_all_where_a_table_is_dear() -> None:
    """Of a network that sees all components alike, in files that are mostly header."""
    model = Response(np.full((3, 64), 1e-3), np.ones(3), 1.0, 0.0)
    bench = response._Bench(objective(), "4:4:4", 0)
    start = of(bench, model, response._point(response._standard(30), "4:4:4", 2))
    assert len(set(bench.improve(model, start, start.loss / start.bytes, 2).tables)) == 1
    assert len(set(bench.improve(model, start, start.loss / start.bytes, 3).tables)) == 3


def test_luma_cells_are_those_of_which_the_steps_are_the_means() -> None:
    """Against the means of a Laplace distribution between half steps, by index weighted with its square."""
    task = objective(8)
    bench = response._Bench(task, "4:4:4", 0)
    decay = np.geomspace(0.3, 3, 64)  # step over scale, by frequency
    bench.planes[0] = np.random.default_rng(0).laplace(scale=16 / decay[:, None], size=(64, 100_000))
    luma, chroma = bench.with_cells(POINT, 0.9).cells
    i = np.arange(1, 200)[:, None]
    mean = i - 0.5 + 1 / decay - 1 / np.expm1(decay)  # of index i, in steps
    weight = np.exp(-decay * i) * i**2
    ratio = (weight * mean / i).sum(0) / weight.sum(0)
    np.testing.assert_allclose(luma, np.clip(1 / ratio, 0.8, 1.25), atol=0.02)
    assert 1 <= min(luma) < 1.02 and max(luma) > 1.2
    assert chroma == 0.9


def test_prices_are_slopes() -> None:
    """Of loss = (bytes / 1000)^-1.5, which is a line between logarithms."""
    none = np.zeros((3, 64))
    standard = [
        Trial(POINT, size, (size / 1000) ** -1.5, none, none)
        for size in np.geomspace(500, 5000, len(response._STANDARD))
    ]
    found = response._prices(standard, response._STANDARD)
    np.testing.assert_allclose(found, [1.5 * t.loss / t.bytes for t in standard], rtol=1e-6)


def test_learned_points_beat_the_standard_ones_and_a_run_resumes(tmp_path, monkeypatch) -> None:
    seen: list[Trial] = []

    def stop(trial: Trial) -> None:
        seen.append(trial)
        if len(seen) == 5:
            raise KeyboardInterrupt

    def kept() -> int:
        return len(list(tmp_path.iterdir()))

    some = objective(12, cache=Cache(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        learn(some, (30, 60), ("4:4:4",), on_trial=stop)
    assert kept() == 1 + 2 * 5  # of the originals, and of files and readings
    trials: list[Trial] = []
    candidates = learn(some, (30, 60), ("4:4:4",), on_trial=trials.append)
    size = kept()
    assert size >= 1 + 2 * len(trials)
    assert [trial.point for trial in trials[:5]] == [trial.point for trial in seen]
    again: list[Trial] = []
    monkeypatch.setattr(response._Bench, "_descend", pytest.fail)  # what was found is kept as well
    assert (
        learn(objective(12, cache=Cache(tmp_path)), (30, 60), ("4:4:4",), on_trial=again.append) == candidates
    )
    assert kept() == size and len(again) == len(trials)
    assert {trial.point for trial in trials} >= set(candidates)
    standard = [trial for trial in trials if trial.point in map(standard_point, response._STANDARD)]
    for price in response._prices(standard, (30, 60)):
        best = [min(t.loss + price * t.bytes for t in some) for some in (trials, standard)]
        assert best[0] < 0.98 * best[1]
    plain = [trial for trial in trials if set(trial.point.cells) == {1}]
    assert plain == trials[: len(plain)] != trials
    for some, price in itertools.product((plain, trials), response._prices(standard, (30, 60))):
        assert min(some, key=lambda t: t.loss + price * t.bytes).point in candidates


def standard_point(quality: float) -> OperatingPoint:
    return response._point(response._standard(quality), "4:4:4", 2)


def test_a_run_that_is_late_returns_the_best_so_far() -> None:
    trials: list[Trial] = []
    candidates = learn(objective(12), (30,), ("4:2:0",), deadline=0.0, on_trial=trials.append)
    assert len(trials) == len(response._STANDARD) + response._RANDOM
    assert candidates and {trial.point for trial in trials} >= set(candidates)
