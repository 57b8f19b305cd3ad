"""For the tests of the benchmarks: drawn pictures where they look for photographs, and how they are run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where the benchmarks write, in place of benchmarks/results."""
    return tmp_path / "results"


@pytest.fixture
def run(results: Path) -> Callable[..., str]:
    """Runs a benchmark, on one core; what it prints. `data`: for DNNJPEG_DATA, which is not set without."""

    def call(script: str, *arguments: str | Path, data: Path | None = None) -> str:
        environment = os.environ | {"DNNJPEG_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
        environment.pop("DNNJPEG_DATA", None)
        if data is not None:
            environment["DNNJPEG_DATA"] = str(data)
        command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as DNNJPEG_DATA names one: a few drawn pictures, networks without training."""
    home = tmp_path_factory.mktemp("root")
    (home / "models").mkdir()
    shutil.copy(Path(__file__).with_name("zoo.py"), home / "models")
    _write_sprites(home / "data" / "cifar10")
    imagenet, flowers = home / "data" / "imagenet", home / "data" / "flowers17"
    for part, count in (("learn", 40), ("val", 8)):
        _write_pictures(imagenet / part, imagenet / f"{part}.csv", [{"label": i % 10} for i in range(count)])
    parts = ["train"] * 80 + ["test"] * 8
    _write_pictures(
        flowers, flowers / "labels.csv", [{"label": i % 4, "split": part} for i, part in enumerate(parts)]
    )
    return home


def _write_sprites(folder: Path) -> None:
    """PNG sprites, a row of which is a picture."""
    folder.mkdir(parents=True)
    for part, count in (("train", 80), ("test", 20)):
        pictures = np.stack([draw(32, 32, seed) for seed in range(count)])
        Image.fromarray(pictures.reshape(count, 32 * 32, 3)).save(folder / f"{part}_0000.png")
        np.save(folder / f"{part}_labels.npy", np.arange(count) % 10)


def _write_pictures(folder: Path, labels: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    lines = [["file", *rows[0]]]
    for seed, row in enumerate(rows):
        name = f"{seed:03}.jpg"
        Image.fromarray(draw(180, 150, seed)).save(folder / name, quality=95)
        lines.append([name, *map(str, row.values())])
    labels.write_text("".join(f"{','.join(line)}\n" for line in lines))
