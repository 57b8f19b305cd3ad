"""benchmarks/jpegdl.py from one end to the other, with a tiny network in place of its own."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent / "benchmarks")]

import attacked  # noqa: E402
import jpegdl  # noqa: E402
import trainings  # noqa: E402
from tiny import PREPROCESS, classifier, pictures  # noqa: E402

from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.attacks import attack  # noqa: E402
from dnnjpeg.learn.batches import pixels, read  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402

ARMS = "without", "JPEG-DL, as published", "JPEG-DL, close bounds"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def fresh(job: trainings.Job) -> Network:
        module = classifier(job.seed)
        return Network("tiny", "tiny", "0", module, Preprocess.of(PREPROCESS), torch.device("cpu"))

    def data(name: str, seed: int) -> tuple[Dataset, ...]:
        some = pictures(60)
        labels = fresh(trainings.Job("cifar10", "cifar_resnet20", "without", 0)).read(some).argmax(1)
        whole = Dataset(some, labels, tuple(map(str, range(len(some)))), "drawn")
        return tuple(whole.take(np.arange(start, start + 20)) for start in (0, 20, 40))

    steps = np.full((2, 64), 0.5)
    steps[:, 0] = 12
    for name, value in {"fresh": fresh, "data": data, "first_steps": lambda *_: steps}.items():
        monkeypatch.setattr(trainings, name, value)
    monkeypatch.setattr("attacked.data", data)
    recipe = replace(trainings.RECIPES["cifar10"], epochs=1, lr=1e-3, bfloat16=False)
    monkeypatch.setitem(trainings.RECIPES, "cifar10", recipe)
    monkeypatch.setattr("common.RESULTS", tmp_path)
    monkeypatch.setattr(jpegdl, "RESULTS", tmp_path)
    return tmp_path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(jpegdl.main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_run_attack_and_collect(tiny: Path) -> None:
    names = "|".join(arm.replace(",", "").replace(" ", "_") for arm in ARMS)
    some = "--work", tiny / "work", "--only", f"^cifar_resnet20-({names})-"
    run("run", *some, "--seeds", 2)
    run("robust", *some, "--pictures", 4)
    told = run("collect", "--work", tiny / "work", "--name", "tiny")
    assert told == run("show", "--name", "tiny")
    found = json.loads((tiny / "tiny.json").read_text())
    assert [(one["arm"], one["seed"]) for one in found["runs"]].count((ARMS[1], 1)) == 1
    for one in found["runs"]:
        published = one["arm"] == "JPEG-DL, as published"
        assert one["recipe"]["layer_lr"] == (0.003 if published else 0.03)
        if one["arm"] != "without":
            assert np.min(one["steps"]) < 1
            assert set(one["test"]) == {
                "soft",
                "hard",
                "integer steps",
                "real",
            }
    for one in found["gains, points"]:
        assert one["seeds"] == one["pairs"] == 2 and one["low"] <= one["value"] <= one["high"]
    assert "mean (95 % interval: other seeds and test pictures)" in told
    rows = ["cifar_resnet20, without (1)"]
    rows += [f"cifar_resnet20, {arm}: {form} (1)" for arm in ARMS[1:] for form in attacked.FORMS]
    assert all(f"| {row} | " in told for row in rows)


def test_what_is_attacked_is_what_is_read(tiny: Path) -> None:
    job = trainings.Job("cifar10", "cifar_resnet20", "JPEG-DL, close bounds", 0)
    trainings.run_job(job, tiny, trainings.recipe_of(job, None))
    found = attacked.attack_job(job, tiny, 20)
    network, layer = trainings.restore(job, tiny)
    test = trainings.data(job.dataset, 0)[2]
    layer.form = "file"
    labels = torch.from_numpy(test.labels)
    place = attack("bpda", network, pixels(test.pictures, network.device), labels, 4, layer=layer)
    picture = place.round().byte().permute(0, 2, 3, 1).numpy()
    assert np.abs(picture.astype(int) - test.pictures).max() == 4
    right = (read(network, picture, layer, "real").argmax(1) == test.labels).mean()
    assert found["real files"]["bpda 4"] == pytest.approx(100 * right)
    assert found["real files"]["bpda 4"] < found["real files"]["clean"]


def test_one_seed_says_nothing_of_others(tiny: Path) -> None:
    run("run", "--work", tiny, "--seeds", 1, "--only", "^cifar_resnet20-(without|JPEG-DL_as_published)-")
    (only,) = jpegdl.gains(tiny, [job for job in trainings.jobs(1) if (tiny / f"{job.name}.json").exists()])
    assert (only["low"], only["high"], only["deviation"]) == (None, None, None)
    told = run("collect", "--work", tiny, "--name", "tiny")
    assert f"| cifar10: JPEG-DL, as published | 1 | {only['value']:+.1f} |  |" in told


def test_first_steps_are_from_a_network_of_other_classes(monkeypatch, tmp_path) -> None:
    """As an ImageNet one, which names none of the flowers by their number."""
    network = Network("other", "o", "0", classifier(), Preprocess.of(PREPROCESS), torch.device("cpu"))
    some = pictures(30)
    labels = (network.read(some).argmax(1) + 1) % 4
    monkeypatch.setenv("DNNJPEG_DATA", str(tmp_path))
    monkeypatch.setattr(trainings, "load_network", lambda _: network)
    learning = Dataset(some, labels, tuple(map(str, range(30))), "drawn")
    steps = trainings.first_steps("cifar10", learning, tmp_path)
    assert steps.shape == (2, 64) and steps[0].max() == pytest.approx(5)
