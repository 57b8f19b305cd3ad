"""What the benchmarks refuse to do: results of two kinds do not mix."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


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
