"""For the tests of the benchmarks: drawn pictures where they look for photographs, and how they are run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

from dnnjpeg.machine.kernel_cache import kernel_folder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where the benchmarks write, in place of benchmarks/results."""
    return tmp_path / "results"


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """Where the benchmarks keep what they have read, in place of the user's cache."""
    return tmp_path / "cache"


@pytest.fixture
def run(results: Path, readings: Path) -> Callable[..., str]:
    """Runs a benchmark, on one core; what it prints. `data`: for DNNJPEG_DATA, which is not set without."""
    own = {"DNNJPEG_RESULTS": str(results), "XDG_CACHE_HOME": str(readings), "OMP_NUM_THREADS": "1"}
    if folder := kernel_folder():
        own["NUMBA_CACHE_DIR"] = str(folder.parent)  # that of all tests: to compile takes longer than they do

    def call(script: str, *arguments: str | Path, data: Path | None = None) -> str:
        environment = os.environ | own
        environment.pop("DNNJPEG_DATA", None)
        if data is not None:
            environment["DNNJPEG_DATA"] = str(data)
        command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def written(results: Path) -> Callable[[str], Any]:
    """The results of a name; all their numbers are finite."""

    def refuse(text: str) -> None:
        raise AssertionError(f"the results have {text}")

    return lambda name: json.loads((results / f"{name}.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as DNNJPEG_DATA names one: a few drawn pictures, and the networks of zoo.py, of which one has
    given the labels.
    """
    home = tmp_path_factory.mktemp("root")
    (home / "models").mkdir()
    zoo = shutil.copy(Path(__file__).with_name("zoo.py"), home / "models")
    cifar, imagenet, flowers = (home / "data" / name for name in ("cifar10", "imagenet", "flowers17"))
    cifar.mkdir(parents=True)
    for part, count in (("train", 80), ("test", 20)):
        pictures = np.stack([draw(32, 32, seed) for seed in range(count)])
        Image.fromarray(pictures.reshape(count, 32 * 32, 3)).save(cifar / f"{part}_0000.png")
        np.save(cifar / f"{part}_labels.npy", _read(f"{zoo}:cifar_resnet20", pictures))
    for part, count in (("learn", 40), ("val", 8)):
        pictures = [draw(240, 232, seed) for seed in range(count)]
        labels = _read(f"{zoo}:mobilenet_v1_075", pictures)
        _write_pictures(imagenet / part, imagenet / f"{part}.csv", pictures, {"label": labels})
    pictures = [draw(144, 144, seed) for seed in range(56)]
    columns = {"label": [i % 4 for i in range(56)], "split": ["train"] * 48 + ["test"] * 8}
    _write_pictures(flowers, flowers / "labels.csv", pictures, columns)
    return home


def _read(network: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """What a network takes pictures for."""
    from dnnjpeg.networks.load import load_network

    return load_network(network).read(pictures).argmax(1)


def _write_pictures(
    folder: Path, table: Path, pictures: Sequence[np.ndarray], columns: dict[str, Sequence[Any]]
) -> None:
    folder.mkdir(parents=True)
    names = [f"{i:03}.jpg" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / name, quality=95)
    lines = [("file", *columns), *zip(names, *columns.values(), strict=True)]
    table.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
