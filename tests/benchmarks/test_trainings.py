"""The benchmarks that train: they run, on a few pictures, and results of two kinds do not mix."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_finetune(run, written, root, tmp_path) -> None:
    work = tmp_path / "work"
    run("finetune.py", "run", "--work", work, "--epochs", "1", data=root)
    table = run("finetune.py", "collect", "--work", work)
    found = written("finetune")["runs"]
    cifar = [("cifar_resnet20", kind) for kind in ("distill", "bn", "all")]
    trained = [(one["network"], one["kind"]) for one in found]
    assert trained == [*cifar, ("mobilenet_v1_075", "distill"), ("resnet18", "distill"), ("resnet18", "bn")]
    for one in found:
        assert one["pictures"] == ([72, 8, 20] if one["network"] == "cifar_resnet20" else [36, 4, 8])
        assert [epoch["epoch"] for epoch in one["log"]] == [0, 1]
        assert list(one["top-1, %"]) == ["original", "quality 10", "quality 20", "quality 30"]
        for numbers in one["top-1, %"].values():
            assert 0 <= numbers["before"] <= 100
            assert numbers["value"] == pytest.approx(numbers["after"] - numbers["before"], abs=0.02)
            assert numbers["low"] <= numbers["value"] <= numbers["high"]
    assert run("finetune.py", "show") == table
    rows = table.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [", ".join(pair) for pair in trained]


@pytest.mark.parametrize(
    ("script", "name", "only", "epochs"),
    [
        ("jpegdl.py", "flowers_resnet18_narrow-without-0", "^flowers.*narrow-without-0", 30),
        ("finetune.py", "mobilenet_v1_075-distill", "mobilenet_v1_075", 3),
    ],
)
def test_a_training_is_of_so_many_epochs(tmp_path, script, name, only, epochs) -> None:
    record = tmp_path / f"{name}.json"
    record.write_text(json.dumps({"recipe": {"epochs": epochs}}))
    command = [sys.executable, str(BENCHMARKS / script), "run", "--work", str(tmp_path), "--only", only]
    assert subprocess.run([*command, "--epochs", str(epochs)], check=False).returncode == 0
    done = subprocess.run([*command, "--epochs", "120"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    told = f"{record} is a training of {epochs} epochs, not of 120: give another folder as --work"
    assert told in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == [record]
