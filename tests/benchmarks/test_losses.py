"""The benchmarks of bytes and of what networks lose, on a few pictures."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = "mobilenet_v1_075", "resnet18"


@pytest.fixture
def asked(root) -> list[str | Path]:
    """Options: both networks, and the pictures to learn from."""
    folder = root / "data" / "imagenet" / "learn"
    networks = chain.from_iterable(("--network", f"{root / 'models' / 'zoo.py'}:{name}") for name in NAMES)
    labels = folder.with_suffix(".csv")
    return [*networks, "--data", folder, "--labels", labels]


@pytest.mark.slow
def test_rate(run, written, results, root) -> None:
    pytest.importorskip("matplotlib")
    told = run("rate.py", "--pictures", "1", data=root)
    found = written("rate")
    assert found["pictures"] == 1
    subsamplings = ["4:4:4", "4:2:2", "4:2:0"]
    errors = found["error, %"]
    expected = {"scan": subsamplings, "sampled": subsamplings[2:], "entropy": subsamplings}
    assert {kind: list(rows) for kind, rows in errors.items()} == expected
    for kind, rows in errors.items():
        for row in rows.values():
            assert abs(row["mean"]) <= row["absolute"] <= row["worst"] < (5 if kind == "scan" else 60)
    slopes = found["change of bytes, steps x1.2 against /1.2"]
    assert len(slopes) == 3
    for bands in slopes.values():
        assert bands["luma 1-2"]["real"] < 0
        assert bands["luma 1-2"]["scan"] == pytest.approx(bands["luma 1-2"]["real"], rel=0.5)
    with Image.open(results / "rate.png") as plot:
        assert plot.width > 500
    lines = told.splitlines()
    assert len(lines) == sum(map(len, errors.values())) + sum(map(len, slopes.values()))
    assert lines[0].startswith("scan 4:4:4: error mean ")


def test_rate_of_a_last_batch_that_is_smaller(monkeypatch) -> None:
    """Every picture counts once, whatever the batch that it is in."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rate

    from dnnjpeg.table.library import standard_table

    def estimated(*pictures: np.ndarray) -> float:
        comparison = rate.Comparison(np.stack(pictures))
        comparison.add(standard_table().at(50), "4:4:4")
        ((_, _, found),) = comparison.rows["entropy"]["4:4:4"]
        return float(found[0])

    monkeypatch.setattr(rate, "BATCH", 2)
    monkeypatch.setattr(rate, "SIZE", 32)
    busy = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    plain = np.full_like(busy, 100)
    one, other = estimated(busy, busy), estimated(plain)
    assert estimated(busy, busy, plain) == pytest.approx((2 * one + other) / 3, rel=1e-5)


@pytest.mark.slow
def test_rate_aware(run, written, root) -> None:
    network = f"{root / 'models' / 'zoo.py'}:{NAMES[0]}"
    told = run("rate_aware.py", "--network", network, "--pictures", "1", data=root)
    found = written(f"rate_aware_{NAMES[0]}")
    assert (found["network"], found["pictures"]) == (NAMES[0], 1)
    rows = found["mean change of bytes at equal divergence, against rounding, per cent"]
    assert len(rows) == 8
    for row in rows.values():
        assert -90 < row["low"] <= row["value"] <= row["high"] < 200
    assert [line.rpartition(":")[0] for line in told.splitlines()] == list(rows)


def test_law(run, written, asked, readings) -> None:
    told = run("law.py", *asked)
    found = written("law")
    assert found["pictures"] == 28  # 0.7 of 40
    assert 0 < found["usual bits a pixel"] < 24
    assert 0 < found["usual divergence with the doubt"] < 10
    by_count = found["bytes, %, of those asked, and of the others"]
    assert list(by_count) == ["1 asked", "2 asked"]
    for (name, laws), groups in zip(by_count.items(), (2, 1), strict=True):
        assert "the law, quality 50" in laws, name
        for losses in laws.values():
            assert list(losses) == ["divergence", "cross-entropy"]
            assert all(len(values) == groups for values in losses.values())
            assert all(-90 < value < 200 for value in losses["divergence"])
    assert json.loads(told) == found
    assert any(readings.rglob("*.npz"))


@pytest.mark.parametrize("prune", [False, True])
def test_target(run, written, asked, readings, prune) -> None:
    options = ["--ask", NAMES[0], "--keep", "top1", "--limit", "4", "--threads", "1", "--name", "tried"]
    table = run("target.py", *asked, *options, *["--prune"] * prune)
    found = written("tried")
    assert found["pictures"] == 4
    assert list(found["clean_top1"]) == list(NAMES)
    qualities, sizes = zip(*((one["quality"], one["bytes"]) for one in found["pillow"]), strict=True)
    assert list(qualities) == sorted(qualities)
    assert list(sizes) == sorted(sizes)
    (setting,) = found["settings"]
    assert (setting["asked"], setting["keep"], setting["prune"]) == ([NAMES[0]], "top1", prune)
    assert setting["kept"] == 100
    assert sizes[0] / 2 < setting["bytes"]["value"] < sizes[-1]
    assert setting["networks"][NAMES[0]]["top1_change"]["value"] == 0
    assert setting["networks"][NAMES[0]]["asked"]
    assert not setting["networks"][NAMES[1]]["asked"]
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    assert [row[1:3] for row in rows] == [["originals", ""], [NAMES[0], "top1"]]
    assert any(readings.rglob("*.npz"))


@pytest.mark.slow
def test_cifar(run, results, root, tmp_path) -> None:
    """Sprites become arrays, a report is made of them, and the table tells what it says."""
    arrays, sprites = tmp_path / "cifar", root / "data" / "cifar10"
    run("cifar.py", "unpack", sprites, arrays)
    for part, count in (("train", 80), ("test", 20)):
        pictures = np.load(arrays / f"{part}.npy")
        assert pictures.shape == (count, 32, 32, 3)
        rows = np.asarray(Image.open(sprites / f"{part}_0000.png"))
        assert np.array_equal(pictures.reshape(count, -1), rows.reshape(count, -1))
        labels = np.load(arrays / f"{part}_labels.npy")
        assert np.array_equal(labels, np.load(sprites / f"{part}_labels.npy"))
    (results / "cifar").mkdir(parents=True)
    codec = "pillow,subsampling=4:4:4"
    found = {}
    for part, name in (("test", "cifar_resnet20"), ("train", "cifar_resnet20_train")):
        report = results / "cifar" / f"{name}.json"
        command = [
            Path(sys.executable).with_name("dnnjpeg"), "evaluate", "--headerless",
            "--network", f"{root / 'models' / 'zoo.py'}:cifar_resnet20",
            "--data", arrays / f"{part}.npy", "--labels", arrays / f"{part}_labels.npy",
            "--codec", codec, "--reference", "pillow", "--quality", "20,50,75",
            "-o", report, "--cache", tmp_path / "cache",
        ]  # fmt: skip
        subprocess.run(list(map(str, command)), check=True, capture_output=True)
        (row,) = [one for one in json.loads(report.read_text())["comparisons"] if one["metric"] == "top1"]
        found[part] = {
            point["quality"]: point["metric_change"]
            for point in row["points"]
            if None not in point["metric_change"].values()
        }
    header, rule, row = run("cifar.py").splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row.startswith(f"| cifar_resnet20: {codec} | ")
    if found[
        "train"
    ]:  # the quality is that of the largest gain on training pictures, the figure of test ones
        best = max(found["train"], key=lambda quality: found["train"][quality]["value"])
        assert f", quality {best:g} | " in row
        if best in found["test"]:
            assert f"| {100 * found['test'][best]['value']:+.1f} (" in row
    else:
        assert "| beyond |" in row
