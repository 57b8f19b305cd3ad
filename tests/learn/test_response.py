"""The model of what damage costs, against trials made by it; tables chosen by it, against real files."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import PREPROCESS, classifier, pictures  # noqa: E402

from dnnjpeg.dataset import Dataset  # noqa: E402
from dnnjpeg.learn import response  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.response import Response, Trial, fit, learn  # noqa: E402
from dnnjpeg.models import Network, Preprocess  # noqa: E402
from dnnjpeg.point import OperatingPoint  # noqa: E402
from dnnjpeg.readings import decode  # noqa: E402

POINT = OperatingPoint(50, "4:4:4", (16,) * 64, ((16,) * 64,))


def objective(count: int = 30, seed: int = 0) -> Objective:
    module = classifier(seed).requires_grad_(False)
    net = Network(
        f"tiny{seed}", "tiny", f"{seed:016}", module, Preprocess.of(PREPROCESS), torch.device("cpu")
    )
    some = pictures(count)
    return Objective([net], Dataset(some, None, tuple(map(str, range(count))), "tiny pictures"))


def made_by(truth: Response, count: int, seed: int = 0) -> list[Trial]:
    """Trials whose losses are exactly those of a model, with damage of every kind and size."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        bands = rng.uniform(-1.5, 1.5, (2, 16)) + rng.uniform(-1.5, 1.5)
        moved, lost = (20 * np.exp(band)[response._BAND] for band in bands)
        trials.append(Trial(POINT, 1000.0, truth.loss(moved, lost), moved, lost))
    return trials


def test_fit_finds_the_model_that_made_the_losses() -> None:
    bands = np.exp(np.linspace(-8, -10, 16))
    truth = Response(bands[response._BAND], np.array([0.6, 1.0, 1.4]), 1.4, 0.0)
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
    seen = np.stack([decode(response.encode(p, POINT, 50)) for p in some.dataset.pictures])
    luma = np.array([0.299, 0.587, 0.114])
    error = (seen.astype(float) - some.dataset.pictures) @ luma
    assert (trial.moved + trial.lost)[0].sum() == pytest.approx(64 * (error**2).mean(), rel=1e-3)
    assert trial.bytes == pytest.approx(some.measure(POINT).bytes.mean())
    assert trial.lost[0, 63] > trial.moved[0, 63]
    assert trial.lost[0, 0] < 0.1 * trial.moved[0, 0]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_steps_go_to_where_they_matter(subsampling: str) -> None:
    """A network that sees nothing but the lowest luma: finer there, coarser elsewhere, same price."""
    weights = np.full((3, 64), 1e-6)
    weights[0, :2] = 1e-3
    model = Response(weights, np.ones(3), 1.0, 0.0)
    bench = response._Bench(objective(), subsampling, 0)
    start = response._standard(50)
    steps = bench.improve(model, start, 2)
    assert (steps[0, :2] < start[0, :2]).all()
    ratio = np.log(steps / start)
    assert np.median(ratio[0, 2:]) > 0.3 and np.median(ratio[1]) > 0.3
    assert np.abs(ratio).max() <= response._TRUST + 1e-9 and (steps[1] == steps[2]).all()
    price = 0.05 * bench.cost(model, start).sum() / bench.bytes(start, 2)
    costs = [bench.cost(model, s).sum() + price * bench.bytes(s, 2) for s in (steps, start)]
    assert costs[0] < costs[1]


def test_learned_points_beat_the_standard_ones_and_a_run_resumes(tmp_path, monkeypatch) -> None:
    some, state, seen = objective(12), tmp_path / "trials.pt", []

    def stop_after(count: int):
        def show(trial: Trial, number: int, total: int) -> None:
            seen.append((number, total))
            if number == count:
                raise KeyboardInterrupt

        return show

    with pytest.raises(KeyboardInterrupt):
        learn(some, (30, 60), ("4:4:4",), state=state, on_trial=stop_after(5))
    assert seen[-1] == (5, 28)
    tried = []
    monkeypatch.setattr(response, "_try", lambda o, p, inner=response._try: (tried.append(p), inner(o, p))[1])
    candidates = learn(some, (30, 60), ("4:4:4",), state=state)
    assert len(tried) == 28 - 5
    assert len(candidates) == 6 and candidates[:2] == [
        response._point(response._standard(q), "4:4:4", 2) for q in (30, 60)
    ]
    tried.clear()
    assert learn(some, (30, 60), ("4:4:4",), state=state) == candidates and not tried
    losses = {q: [some.measure(p) for p in candidates[i::2]] for i, q in enumerate((30, 60))}
    for standard, *learned in losses.values():
        # cheaper or better at one price of a byte: that of the standard pair
        price = -(losses[60][0].loss.mean() - losses[30][0].loss.mean()) / (
            losses[60][0].bytes.mean() - losses[30][0].bytes.mean()
        )
        cost = [m.loss.mean() + price * m.bytes.mean() for m in (standard, *learned)]
        assert min(cost[1:]) < cost[0]
    with pytest.raises(ValueError, match="delete it"):
        learn(objective(11), (30,), ("4:4:4",), state=state)
    state.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not the state"):
        learn(some, (30,), ("4:4:4",), state=state)
