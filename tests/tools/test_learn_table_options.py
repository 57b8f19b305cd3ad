"""What `dnnjpeg learn-table` learns from, and how: labels, sizes, a table that is given, J4D as published."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from learning import COUNT, MODEL, learn, limited, report_of, save_data
from tiny import pictures

import dnnjpeg
from dnnjpeg.files.view import View


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def basic(data) -> list[object]:
    return ["--network", MODEL, "--data", data / "pictures.npy", "--cache", data / "cache"]


def test_labels_change_nothing_but_what_is_told(data, tmp_path):
    """No labels, a CSV file, class folders: the same table, and top-1. Unless their loss is asked for."""
    labels = np.load(data / "labels.npy")
    rows = []
    for i in np.argsort(labels, kind="stable")[:: COUNT // 24]:
        name = f"{labels[i]}{{}}{i:03}.png"
        for folder, mark in (("flat", "-"), ("classes", "/")):
            file = tmp_path / folder / name.format(mark)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.load(data / "pictures.npy")[i]).save(file)
        rows.append(f"{name.format('-')},{labels[i]}")
    csv = tmp_path / "labels.csv"
    csv.write_text("\n".join(["file,label", *rows]))
    cases = {
        "none": ["--data", tmp_path / "flat"],
        "csv": ["--data", tmp_path / "flat", "--labels", csv],
        "folders": ["--data", tmp_path / "classes"],
        "entropy": ["--data", tmp_path / "flat", "--labels", csv, "--loss", "cross-entropy"],
    }
    found = {}
    for name, arguments in cases.items():
        out = tmp_path / f"{name}.json"
        result = learn(
            "--network", MODEL, *arguments, "-o", out, "--cache", tmp_path / "cache",
            "--qualities", 25, "--subsampling", "4:2:0", "--method", "j4d", "--steps", 12,
        )  # fmt: skip
        report = report_of(out)
        data_of = report["provenance"]["data"]
        assert (data_of["labels"], data_of["loss"]) == (
            name != "none", "cross-entropy" if name == "entropy" else "divergence",
        )  # fmt: skip
        for point in [*report["candidates"], *report["standard"]]:
            record = point.get("measured", point)
            assert (record.pop("top1", None) is None) == (name == "none")
        points = dnnjpeg.load_table(out).points if result.exit_code == 0 else None
        bare = None if points is None else [replace(point, measured=None) for point in points]
        found[name] = report["candidates"], report["standard"], bare
    assert found["none"][2] and found["none"] == found["csv"] == found["folders"]
    steps = [[(one["luma"], one["chroma"]) for one in found[name][0]] for name in ("none", "entropy")]
    assert steps[0] != steps[1]
    loss = [[one["loss"] for one in found[name][1]] for name in ("none", "entropy")]
    assert np.abs(np.subtract(*loss)).max() > 0.01


@pytest.mark.parametrize("classes", [2, 12])  # the network's are four
def test_class_folders_of_other_classes(data, tmp_path, classes):
    """The divergence needs no labels: the same table as without, and a word about top-1."""
    for i, picture in enumerate(np.load(data / "pictures.npy")[:48]):
        for folder in ("flat", f"classes/{i % classes:02}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            name = f"{i % classes:02}-{i:03}.png" if folder == "flat" else f"{i:03}.png"
            Image.fromarray(picture).save(tmp_path / folder / name)
    arguments = ["--cache", tmp_path / "cache", "--qualities", 25, "--subsampling", "4:2:0"]
    arguments += ["--network", MODEL, "--method", "sensitivity"]
    found = {}
    for name in ("flat", "classes"):
        pictures_there = ["--data", tmp_path / name, "--check", tmp_path / name]
        result = learn(*arguments, *pictures_there, "-o", tmp_path / f"{name}.json")
        assert result.exit_code == 0, result.output
        said = "no top-1 is reported: the class folders are not classes of the network" in result.output
        assert said == (name == "classes")
        found[name] = dnnjpeg.load_table(tmp_path / f"{name}.json").points
    assert found["flat"] == found["classes"] and "top1" not in found["flat"][0].measured
    refused = learn(
        *arguments, "--data", tmp_path / "classes", "--loss", "cross-entropy", "-o", tmp_path / "x.json"
    )
    assert refused.exit_code == 2 and "labels" in refused.output


def test_pictures_are_encoded_as_they_are_stored(data, tmp_path):
    """Of several sizes, whole; with --crop, squares."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    some = [pictures(1, i, *((32, 32), (61, 45), (40, 90))[i % 3])[0] for i in range(30)]
    for i, picture in enumerate(some):
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    cut = [View(32).of(picture) for picture in some]
    for options, expected in (([], some), (["--crop", 32], cut)):
        out = tmp_path / "t.json"
        learn(
            "--network", MODEL, "--data", folder, "-o", out, "--cache", data / "cache", *options,
            "--method", "sensitivity", "--qualities", "30", "--subsampling", "4:2:0",
        )  # fmt: skip
        report = report_of(tmp_path / "t.json")
        standard = {one["quality"]: one for one in report["standard"]}
        encode = partial(dnnjpeg.encode, table="standard", quality=50, progressive="auto", signature=False)
        sizes = [len(encode(picture)) for picture in expected]
        assert standard[50]["bytes"] == pytest.approx(np.mean(sizes), abs=0.01)
        pixels = np.mean([picture.shape[0] * picture.shape[1] for picture in expected])
        assert standard[50]["bpp"] == pytest.approx(8 * np.mean(sizes) / pixels, abs=1e-5)
        (point,) = report["candidates"]
        point = dnnjpeg.OperatingPoint.from_json(point)
        sizes = [len(dnnjpeg.encode(p, point, progressive="auto", signature=False)) for p in expected]
        assert point.measured["bytes"] == pytest.approx(np.mean(sizes), abs=0.01)


def test_points_of_a_table_placed_anew(basic, data, tmp_path):
    """method given: no steps of its own; qualities by this network and these pictures."""
    first, out = tmp_path / "first.json", tmp_path / "given.json"
    learn(*basic, "-o", first, "--method", "sensitivity", "--qualities", "37,63", "--subsampling", "4:2:0")
    known = [dnnjpeg.OperatingPoint.from_json(point) for point in report_of(first)["candidates"]]
    assert len(known) == 2
    points = [replace(point, quality=q, measured=None) for q, point in zip((3, 99), known, strict=True)]
    dnnjpeg.Table("start", points).save(tmp_path / "start.json")
    result = learn(*basic, "-o", out, "--method", "given", "--start", tmp_path / "start.json")
    assert result.exit_code == 0, result.output
    table = dnnjpeg.load_table(out)
    assert {point.tables for point in known} <= {point.tables for point in table.points}
    assert table.points == dnnjpeg.load_table(first).points  # of the same candidates
    assert table.description == "chosen and placed for classifier"

    out.unlink()
    for start in ([], ["--start", "sensitivity"], ["--start", "deepn"]):
        result = learn(*basic, "-o", out, "--method", "given", *start)
        assert result.exit_code == 2 and "method 'given' takes the points of a table" in result.output
        assert not out.exists()


def test_as_published(data, tmp_path, monkeypatch):
    """Soft quantizer, entropies, learned hardness; files are sampled."""
    from dnnjpeg.learn import j4d

    asked = []

    def descend(objective, start, price, settings, inner=j4d.learn, **options):
        asked.append(settings)
        return inner(objective, start, price, settings, **options)

    monkeypatch.setattr(j4d, "learn", descend)
    basic = ["--network", MODEL, "--data", data / "pictures.npy", "--cache", data / "cache"]
    quick = ["--qualities", 25, "--subsampling", "4:4:4", "--steps", 3, "--limit", 40]
    out = tmp_path / "published.json"
    learn(*basic, *quick, "-o", out, "--published")
    (settings,) = asked
    assert (settings.rate, settings.mode, settings.hardness) == ("entropy", "soft", "learned")
    report = report_of(tmp_path / "published.json")
    (found,) = map(dnnjpeg.OperatingPoint.from_json, report["candidates"])
    assert all(kappa is not None for table in found.hardness for kappa in table)
    picture = limited(data, 40)[0]
    drawn = {dnnjpeg.encode(picture, found, seed=seed, signature=False) for seed in range(4)}
    assert len(drawn) == 4 and dnnjpeg.encode(picture, found, hardness=math.inf, signature=False) not in drawn
    table = dnnjpeg.Table("published", [found])
    table.save(out)
    drawn_by_table = {
        dnnjpeg.encode(picture, out, quality=found.quality, seed=s, signature=False) for s in range(4)
    }
    assert drawn_by_table == drawn

    same = ["--method", "j4d", "--rate", "entropy", "--relaxation", "soft", "--hardness", "learned"]
    learn(*basic, *quick, "-o", tmp_path / "same.json", *same)
    assert asked[1] == settings
    again = report_of(tmp_path / "same.json")
    assert again["candidates"] == report["candidates"]
    learn(*basic, *quick, "-o", tmp_path / "both.json", *same, "--published")
    assert asked[2] == settings


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ("scan", "hard", "annealed")),
        (["--rate", "entropy"], ("entropy", "hard", "annealed")),
        (["--relaxation", "soft"], ("scan", "soft", "annealed")),
        (["--hardness", "learned"], ("scan", "sampled", "learned")),
        (["--hardness", "learned", "--relaxation", "soft"], ("scan", "soft", "learned")),
    ],
)
def test_options_of_a_descent(basic, tmp_path, monkeypatch, options, expected):
    from dnnjpeg.learn import j4d

    asked = []
    monkeypatch.setattr(
        j4d, "learn", lambda objective, start, price, settings, **_: asked.append(settings) or start
    )
    learn(
        *basic,
        "--method",
        "j4d",
        "--steps",
        12,
        "--qualities",
        25,
        "--subsampling",
        "4:2:0",
        *options,
        "--seed",
        3,
        "-o",
        tmp_path / "t.json",
    )
    (settings,) = asked
    assert (settings.rate, settings.mode, settings.hardness) == expected
    assert (settings.steps, settings.seed) == (12, 3)


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("method", "slopes", "j4d"),
        ("method", "given", "j4d"),
        ("rate", "scan", "entropy"),
        ("relaxation", "straight-through", "soft"),
        ("hardness", "annealed", "learned"),
    ],
)
def test_published_is_not_something_else(basic, tmp_path, option, value, meant):
    out = tmp_path / "t.json"
    result = learn(*basic, "-o", out, "--published", f"--{option}", value)
    assert result.exit_code == 2 and not out.exists() and not out.with_suffix(".report").exists()
    said = " ".join(result.output.replace("│", " ").split())
    assert f"--published means --{option} {meant}, and --{option} {value} is given: leave one out" in said


def test_qualities_are_checked_on_pictures_that_took_no_part(basic, data, tmp_path):
    """By quality, the ratio of the mean divergences in files of both tables, written and read here."""
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.readings import compare, decode

    unseen = pictures(30, seed=7)
    np.save(tmp_path / "unseen.npy", unseen)
    out = tmp_path / "mine.json"
    result = learn(*basic, "-o", out, "--method", "sensitivity", "--check", tmp_path / "unseen.npy")
    assert result.exit_code == 0, result.output
    check = dnnjpeg.load_table(out).provenance["check"]
    assert (check["name"], check["pictures"]) == (f"{tmp_path.name}/unseen.npy", 30)
    network = load_network(MODEL)
    clean = network.read(unseen)

    def loss(table: object, quality: int) -> float:
        point = dnnjpeg.load_table(table).at(quality)
        files = [decode(dnnjpeg.encode(picture, point)) for picture in unseen]
        return float(compare(network.read(files), clean).divergence.mean())

    ratios = check["loss_ratio"]["classifier"]
    assert list(ratios) == ["20", "35", "50", "65", "75", "85"]
    for quality in (20, 75):
        expected = loss(out, quality) / loss("standard", quality)
        assert ratios[f"{quality}"] == pytest.approx(expected, rel=1e-2)
        assert f"{quality}: {100 * (ratios[f'{quality}'] - 1):+.0f} %" in result.output
