"""The model of what damage costs, against trials made by it; tables chosen by it, against real files."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import PREPROCESS, classifier, pictures  # noqa: E402

from dnnjpeg.encoder import encode  # noqa: E402
from dnnjpeg.files.cache import Cache  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn import damage, response  # noqa: E402
from dnnjpeg.learn.damage import Response, Trial, fit  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.points import StandardCurve  # noqa: E402
from dnnjpeg.learn.response import learn  # noqa: E402
from dnnjpeg.networks.load import Network, Preprocess  # noqa: E402
from dnnjpeg.networks.readings import decode  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

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


def test_losses_that_say_nothing_are_refused() -> None:
    """That are all alike, or nothing at most of the trials."""
    truth = Response(np.full((3, 64), 1e-4), np.ones(3), 1.0, 0.0)
    trials = made_by(truth, 20)
    for losses in ((0.5,) * 20, (*np.linspace(-0.2, 0, 11), *np.linspace(0.1, 1, 9)), (-0.1,) * 20):
        with pytest.raises(ValueError, match="do not see the difference"):
            fit([replace(t, loss=x) for t, x in zip(trials, losses, strict=True)])
    with pytest.raises(
        ValueError, match=r"above 0 with 9 of 20 very different tables, .* between 0\.1 and 1:"
    ):
        fit([replace(t, loss=x) for t, x in zip(trials, (*[0] * 11, *np.linspace(0.1, 1, 9)), strict=True)])


def test_trials_that_lose_nothing_are_left_out() -> None:
    """As labels are noise, very fine files may lose less than nothing."""
    truth = Response(np.exp(np.linspace(-8, -10, 16))[damage.BAND], np.ones(3), 1.2, 0.0)
    trials = made_by(truth, 60)
    nothing = [
        replace(trial, loss=loss) for trial, loss in zip(trials[:40], np.linspace(-0.5, 0, 40), strict=True)
    ]
    alone, among = fit(trials), fit([*nothing[:20], *trials, *nothing[20:]])
    np.testing.assert_array_equal(among.weights, alone.weights)
    assert (among.exponent, among.error) == (alone.exponent, alone.error)


def test_a_loss_that_begins_at_the_clean_one_has_it_taken_away() -> None:
    """The cross-entropy is 0.9 on clean pictures, and grows in proportion to the damage: exponent 1."""
    truth = Response(np.exp(np.linspace(-8, -10, 16))[damage.BAND], np.ones(3), 1.0, 0.0)
    trials = made_by(truth, 120)
    entropies = np.array([0.9 + trial.loss for trial in trials])
    found = fit([replace(t, loss=x) for t, x in zip(trials, entropies - 0.9, strict=True)])
    assert found.exponent == pytest.approx(1, abs=0.02) and found.error < 0.01
    wrong = fit([replace(t, loss=x) for t, x in zip(trials, entropies, strict=True)])
    assert wrong.exponent < 0.7 and wrong.error > 5 * found.error


def test_trials_of_cross_entropy_are_without_the_clean_one() -> None:
    """Of files that change next to nothing the loss is next to nothing, whatever the labels cost."""
    some = objective(60)
    labels = some.clean[0].argmax(1)
    labels[::4] = (labels[::4] + 1) % 4
    data = replace(some.dataset, labels=labels)
    entropic = Objective(some.networks, data, "cross-entropy")
    fine, coarse = (OperatingPoint(50, "4:4:4", (q,) * 64, ((q,) * 64,)) for q in (1, 40))
    clean = -np.take_along_axis(
        torch.from_numpy(some.clean[0]).double().log_softmax(1).numpy(), labels[:, None], 1
    ).mean()
    trials = [response._try(entropic, point) for point in (fine, coarse)]
    assert clean > 0.5 and abs(trials[0].loss) < 0.02 * clean
    for trial in trials:
        pictures = [decode(encode(p, trial.point)) for p in data.pictures]
        log = torch.from_numpy(some.networks[0].read(pictures)).double().log_softmax(1).numpy()
        entropy = -np.take_along_axis(log, labels[:, None], 1).mean()
        assert trial.loss == pytest.approx(entropy - clean, abs=1e-5)


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
    bench = response._Bench(objective(12), subsampling, 0)
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
    bench = response._Bench(objective(12), "4:4:4", 0)
    start = of(bench, model, response._point(response._standard(30), "4:4:4", 2))
    assert len(set(bench.improve(model, start, start.loss / start.bytes, 2).tables)) == 1
    assert len(set(bench.improve(model, start, start.loss / start.bytes, 3).tables)) == 3


def test_luma_cells_are_those_of_which_the_steps_are_the_means() -> None:
    """Against the means of a Laplace distribution between half steps, by index weighted with its square."""
    task = objective(8)
    bench = response._Bench(task, "4:4:4", 0)
    decay = np.geomspace(0.3, 3, 64)  # step over scale, by frequency
    bench.planes[0] = np.random.default_rng(0).laplace(scale=16 / decay[:, None], size=(64, 100_000))
    luma, chroma = bench.with_bin_width(POINT, 0.9).bin_width
    i = np.arange(1, 200)[:, None]
    mean = i - 0.5 + 1 / decay - 1 / np.expm1(decay)  # of index i, in steps
    weight = np.exp(-decay * i) * i**2
    ratio = (weight * mean / i).sum(0) / weight.sum(0)
    np.testing.assert_allclose(luma, np.clip(1 / ratio, 0.8, 1.25), atol=0.02)
    assert 1 <= min(luma) < 1.02 and max(luma) > 1.2
    assert chroma == 0.9


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
    assert kept() == 1 + 3 * 5  # of the originals, and of files, their damage and readings
    trials: list[Trial] = []
    candidates = learn(some, (30, 60), ("4:4:4",), on_trial=trials.append)
    size = kept()
    assert size >= 1 + 3 * len(trials)
    assert [trial.point for trial in trials[:5]] == [trial.point for trial in seen]
    again: list[Trial] = []
    monkeypatch.setattr(response._Bench, "_descend", pytest.fail)  # what was found is kept as well
    assert (
        learn(objective(12, cache=Cache(tmp_path)), (30, 60), ("4:4:4",), on_trial=again.append) == candidates
    )
    assert kept() == size and len(again) == len(trials)
    assert {trial.point for trial in trials} >= set(candidates)
    standard = [trial for trial in trials if trial.point in map(standard_point, response._STANDARD)]
    curve = StandardCurve.of(response._STANDARD, *zip(*[(t.bytes, t.loss) for t in standard], strict=True))
    prices = [curve.price(quality) for quality in (30, 60)]
    for price in prices:
        best = [min(t.loss + price * t.bytes for t in some) for some in (trials, standard)]
        assert best[0] < 0.98 * best[1]
    plain = [trial for trial in trials if set(trial.point.bin_width) == {1}]
    assert plain == trials[: len(plain)] != trials
    for some, price in itertools.product((plain, trials), prices):
        assert min(some, key=lambda t: t.loss + price * t.bytes).point in candidates


def standard_point(quality: float) -> OperatingPoint:
    return response._point(response._standard(quality), "4:4:4", 2)


class Clock:
    """A made-up one: a trial takes 10 seconds, and to count the bytes of a table on the bench 0.1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(response.time, "monotonic", lambda: self.now)
        for owner, name, seconds in ((Objective, "measure", 10), (response._Bench, "bytes", 0.1)):
            monkeypatch.setattr(owner, name, self._slow(getattr(owner, name), seconds))

    def _slow(self, do: Any, seconds: float) -> Any:
        def slow(*arguments: Any) -> Any:
            self.now += seconds
            return do(*arguments)

        return slow


@pytest.mark.parametrize("seconds", [100, 200, 262, 300])
def test_a_deadline_is_kept_and_the_best_so_far_are_returned(
    monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """In the standard trials, in the random ones, and in the search of a table on the bench."""
    some, clock = objective(12), Clock(monkeypatch)
    trials: list[Trial] = []
    candidates = learn(some, (30,), ("4:2:0",), deadline=1000.0 + seconds, on_trial=trials.append)
    assert seconds - 40 <= clock.now - 1000 <= seconds
    assert len(response._STANDARD) <= len(trials) <= seconds / 10
    assert candidates and {trial.point for trial in trials} >= set(candidates)


def test_a_deadline_that_leaves_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    some, clock = objective(12), Clock(monkeypatch)
    with pytest.raises(
        ValueError, match="the time is over after 4 trials, expected at least 8: give more time"
    ):
        learn(some, (30,), ("4:2:0",), deadline=1045.0)
    assert clock.now <= 1045


def test_progress_knows_its_total(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    subsamplings = ("4:2:0", "4:4:4")
    learn(objective(12), (30, 60), subsamplings, on_trial=seen.append, on_skip=lambda: seen.append(None))
    assert len(seen) == response.most_trials(2, 2) and any(seen)
