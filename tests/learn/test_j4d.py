"""Descent through the differentiable codec: it descends, resumes, shares work, refuses what leads nowhere."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import PREPROCESS, classifier, pictures  # noqa: E402

from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn import j4d  # noqa: E402
from dnnjpeg.learn.j4d import Progress, Settings, learn  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

COUNT = 48
QUICK = Settings(steps=12, batch=24, part=6, lr=0.05)
PRICE = 2e-4


def make_objective() -> Objective:
    module = classifier().requires_grad_(False)
    network = Network("n", "n", "0" * 16, module, Preprocess.of(PREPROCESS), torch.device("cpu"))
    return Objective([network], Dataset(pictures(COUNT), None, ("",) * COUNT, "tiny"))


@pytest.fixture(scope="module")
def objective() -> Objective:
    return make_objective()


def start(quality: float = 40, subsampling: str = "4:2:0") -> OperatingPoint:
    return replace(standard_table().at(quality), subsampling=subsampling)


@pytest.mark.parametrize(
    ("subsampling", "options"),
    [
        ("4:4:4", {}),
        ("4:2:0", {"mode": "soft"}),
        ("4:2:2", {"rate": "entropy"}),
        ("4:4:4", {"mode": "sampled", "hardness": "learned"}),
    ],
)
def test_real_files_get_better(objective, subsampling, options):
    begin = start(40, subsampling)
    if options.get("hardness"):
        begin = replace(begin, hardness=30.0)  # what learning begins with
    settings = Settings(steps=40, batch=COUNT, part=24, lr=0.05, **options)
    point = learn(objective, begin, PRICE, settings)
    assert point.subsampling == subsampling
    before, after = (objective.measure(one) for one in (begin, point))
    price = 1.5 * PRICE if options.get("rate") == "entropy" else PRICE  # it counts fewer bits than there are
    costs = [one.loss.mean() + price * one.bytes.mean() for one in (before, after)]
    assert costs[1] < 0.97 * costs[0]
    if options.get("hardness"):
        assert all(1 <= kappa <= 100 for table in point.hardness for kappa in table)
    else:
        assert point.hardness == (None, None)


def test_a_higher_price_buys_fewer_bytes(objective):
    settings = replace(QUICK, batch=COUNT, lr=0.1)
    cheap, dear = (learn(objective, start(), price, settings) for price in (1e-5, 3e-3))
    assert objective.measure(dear).bytes.mean() < 0.9 * objective.measure(cheap).bytes.mean()


def test_three_tables(objective):
    begin = start()
    point = learn(objective, replace(begin, chroma=begin.chroma * 2, hardness=(), bin_width=()), PRICE, QUICK)
    assert len(point.tables) == 3 and point.chroma[0] != point.chroma[1]


def test_progress_is_of_the_batch(objective):
    seen: list[Progress] = []
    learn(objective, start(), PRICE, replace(QUICK, batch=COUNT, mode="hard", lr=1e-9), on_step=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    real = objective.measure(start())
    for progress in seen:
        assert progress.loss == pytest.approx(real.loss.mean(), rel=0.1)
        assert progress.bpp == pytest.approx(8 * real.bytes.mean() / 32**2, rel=0.1)


def test_every_picture_is_seen_as_often(objective, monkeypatch):
    seen = np.zeros(COUNT, int)

    def count(index):
        seen[index] += 1
        return Objective.groups(objective, index)

    monkeypatch.setattr(objective, "groups", count)
    learn(objective, start(), PRICE, replace(QUICK, steps=3, batch=32))
    assert (seen == 2).all()


@pytest.mark.parametrize("options", [{}, {"mode": "sampled", "hardness": "learned"}])
def test_an_interrupted_descent_goes_on(objective, tmp_path, options):
    settings = replace(QUICK, steps=24, **options)
    whole = learn(objective, start(), PRICE, settings)
    file = tmp_path / "state.pt"

    def stop(progress: Progress) -> None:
        if progress.step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(objective, start(), PRICE, settings, state=file, on_step=stop)
    seen: list[int] = []
    resumed = learn(
        objective, start(), PRICE, settings, state=file, on_step=lambda progress: seen.append(progress.step)
    )
    assert seen == list(range(11, 25))
    assert resumed == whole
    assert learn(objective, start(), PRICE, settings, state=file, on_step=pytest.fail) == whole


def test_a_state_that_is_not_this_descent_s(objective, tmp_path):
    file = tmp_path / "state.pt"
    learn(objective, start(), PRICE, QUICK, state=file)
    kept = file.read_bytes()
    for other in (
        lambda: learn(objective, start(), 3 * PRICE, QUICK, state=file),
        lambda: learn(objective, start(), PRICE, replace(QUICK, seed=1), state=file),
        lambda: learn(objective, start(90), PRICE, QUICK, state=file),
        lambda: learn(objective, start(40, "4:4:4"), PRICE, QUICK, state=file),
    ):
        with pytest.raises(ValueError, match="state of another descent"):
            other()
    labelled = replace(objective.dataset, labels=objective.clean[0].argmax(1))
    with pytest.raises(ValueError, match="state of another descent"):
        learn(Objective(objective.networks, labelled, "cross-entropy"), start(), PRICE, QUICK, state=file)
    assert file.read_bytes() == kept
    for data in (b"", b"nonsense", kept[: len(kept) // 2]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="is not the state of a descent"):
            learn(objective, start(), PRICE, QUICK, state=file)


def test_prices_that_lead_nowhere(objective):
    for price in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number above 0"):
            learn(objective, start(), price, QUICK)
    with pytest.raises(ValueError, match="nat a byte, and every step became 255: give a lower price"):
        learn(objective, start(5), 1e6, replace(QUICK, steps=60, lr=0.3, batch=6))


def test_a_deadline_ends_it(objective, tmp_path):
    seen: list[int] = []
    settings = replace(QUICK, steps=10**6)
    began = time.monotonic()
    learn(
        objective, start(), PRICE, settings, deadline=began + 1,
        state=tmp_path / "s.pt", on_step=lambda progress: seen.append(progress.step),
    )  # fmt: skip
    assert time.monotonic() - began < 20
    again: list[int] = []
    learn(
        objective, start(), PRICE, settings, deadline=began,
        state=tmp_path / "s.pt", on_step=lambda progress: again.append(progress.step),
    )  # fmt: skip
    assert again == [seen[-1] + 1]


def test_a_deadline_is_kept(objective, monkeypatch):
    """By a clock on which a step takes 7 seconds, and it is no use to begin one that ends later."""
    now = [0.0]
    monkeypatch.setattr(j4d.time, "monotonic", lambda: now[0])
    accumulate = j4d._Descent._accumulate

    def slow(self, *arguments):
        now[0] += 7
        return accumulate(self, *arguments)

    monkeypatch.setattr(j4d._Descent, "_accumulate", slow)
    settings = replace(QUICK, steps=100, batch=6, part=6)
    learn(objective, start(), PRICE, settings, deadline=60.0)
    assert now[0] == 56


_WORKER = """
import json, sys
import torch
from torch import distributed
from dnnjpeg.learn.processes import processes
torch.set_num_threads(1)
from test_j4d import PRICE, QUICK, learn, make_objective, replace, start
with processes():
    progress = []
    settings = replace(QUICK, mode="sampled", hardness="learned")
    quality = 40 if distributed.get_rank() == 0 else 70  # that of the first process counts
    point = learn(make_objective(), start(quality), PRICE, settings, on_step=progress.append)
    with open(f"{sys.argv[1]}/{distributed.get_rank()}.json", "w") as file:
        json.dump({"point": point.to_json(), "loss": [one.loss for one in progress]}, file)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without torch.distributed")
def test_two_processes_learn_what_one_learns(objective, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(_WORKER)
    here = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(worker), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert results[0] == results[1]
    seen: list[Progress] = []
    settings = replace(QUICK, mode="sampled", hardness="learned")
    alone = learn(objective, start(), PRICE, settings, on_step=seen.append)
    np.testing.assert_allclose(results[0]["loss"], [one.loss for one in seen], rtol=1e-4)
    together = OperatingPoint.from_json(results[0]["point"])
    # sums in another order: a step may round to its neighbour
    np.testing.assert_allclose(together.tables, alone.tables, rtol=0, atol=1)
    np.testing.assert_allclose(together.hardness, alone.hardness, rtol=1e-3, atol=0.02)
