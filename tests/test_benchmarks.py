"""What the benchmarks refuse to do: results of two kinds do not mix."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(("given", "code"), [([], 0), (["--epochs", "30"], 0), (["--epochs", "120"], 2)])
def test_a_training_is_of_so_many_epochs(tmp_path: Path, given: list[str], code: int) -> None:
    name = "flowers_resnet18_narrow-without-0"
    record = tmp_path / f"{name}.json"
    record.write_text(json.dumps({"recipe": {"epochs": 30}}))
    done = subprocess.run(
        [
            sys.executable,
            str(BENCHMARKS / "jpegdl.py"),
            "run",
            "--work",
            str(tmp_path),
            "--only",
            name,
            *given,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    told = f"{record} is a training of 30 epochs, not of 120: give another folder as --work"
    assert (told in done.stderr) == (code == 2)
    assert list(tmp_path.iterdir()) == [record]
