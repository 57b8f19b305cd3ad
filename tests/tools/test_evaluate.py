"""`dnnjpeg evaluate` from pictures on disk to tables, JSON and plot; and what it refuses."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")

import dnnjpeg
from dnnjpeg.evaluate import codecs
from dnnjpeg.networks.measurer import Measurer
from dnnjpeg.tools.cli import main
from dnnjpeg.tools.evaluate import evaluate

NETWORKS = Path(__file__).parents[1] / "evaluate" / "networks.py"
N, SIDE = 20, 32


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    """pictures/00.png ... and labels.csv beside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    rows = [("file", "label")]
    for i in range(N):
        x, y = rng.integers(0, (photo.width - SIDE, photo.height - SIDE))
        photo.crop((x, y, x + SIDE, y + SIDE)).save(tmp_path / "pictures" / f"{i:02}.png")
        rows.append((f"{i:02}.png", i % 10))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path


def run(folder: Path, *arguments: object, labels: bool = True) -> Result:
    given = ["--data", folder / "pictures", "--cache", folder / "cache"]
    given += ["--labels", folder / "labels.csv"] if labels else []
    if "--network" not in arguments:
        given += ["--network", f"{NETWORKS}:one"]
    result = CliRunner().invoke(main, ["evaluate", *map(str, (*given, *arguments))])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def sizes(folder: Path, **options) -> list[int]:
    found = []
    for path in sorted((folder / "pictures").iterdir()):
        file = io.BytesIO()
        Image.open(path).save(file, "JPEG", **options)
        found.append(len(file.getvalue()))
    return found


def found_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "x.json").read_text())


def settings_in(found: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    return {(one["codec"], one["quality"]): one for one in found["settings"]}


def test_table_json_and_plot(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    outputs = ["-o", folder / "x.json", "--plot", folder / "found.png"]
    models = ["--network", f"{NETWORKS}:one", "--network", f"{NETWORKS}:two"]
    codecs = ["--codec", "dnnjpeg:standard,subsampling=4:4:4@10,30.5,60", "--codec", "pillow"]
    result = run(folder, *models, *codecs, "--quality", "20,50", *outputs)
    assert result.exit_code == 0, result.stderr
    found = found_in(folder)
    assert (found["format"], found["version"]) == ("dnnjpeg-evaluation", 2)
    # of paths, the last two parts
    assert found["data"] == {"source": f"{folder.name}/pictures", "pictures": N, "pixels": SIDE**2}
    networks = "/".join(Path(NETWORKS).parts[-2:])
    assert {name: n["spec"] for name, n in found["networks"].items()} == {
        "one": f"{networks}:one",
        "two": f"{networks}:two",
    }
    assert str(folder.parent) not in json.dumps(found)
    assert found["packages"]["dnnjpeg"] and found["machine"]["cores"] and found["command"]
    settings = settings_in(found)
    ours = "dnnjpeg:standard,subsampling=4:4:4"
    assert list(settings) == sorted(settings, key=lambda one: (CODECS.index(one[0]), one[1]))
    qualities = {codec: [q for name, q in settings if name == codec] for codec in CODECS}
    assert {20, 50} <= set(qualities["pillow-optimize"])
    assert {10, 20, 30.5, 50, 60} <= set(qualities[ours])
    mean = np.mean(sizes(folder, quality=20, optimize=True))
    assert settings["pillow-optimize", 20]["bytes"]["value"] == pytest.approx(mean, rel=1e-5)
    assert f"{mean:,.0f}" in result.stdout
    # of the same pixels, the reference's and Pillow's default differ in bytes alone
    same = [settings[codec, 20]["networks"] for codec in ("pillow", "pillow-optimize")]
    assert same[0] == same[1]
    assert settings["pillow", 20]["bytes"]["value"] == pytest.approx(
        np.mean(sizes(folder, quality=20)), rel=1e-5
    )
    compared = [(row["metric"], row["codec"], row["network"]) for row in found["comparisons"]]
    assert compared == [
        (metric, codec, network)
        for metric in ("divergence", "loss", "top1")
        for codec in (ours, "pillow")
        for network in ("one", "two", None)
    ]
    nominal = {(row["codec"], row["quality"]): row["ratio"] for row in found["nominal"]}
    assert nominal["pillow", 20] == nominal["pillow", 50] == {"value": 1, "low": 1, "high": 1}
    assert {(ours, 20), (ours, 50)} <= set(nominal)
    parts = (
        "mean of the networks",
        "one: bytes at equal divergence",
        "two: bytes at equal cross-entropy",
        "two: bytes at equal top-1",
        "two: top-1 at equal bytes",
        "divergence at the same quality",
    )
    assert sorted(parts, key=result.stdout.index) == list(parts)
    with Image.open(folder / "found.png") as image:
        assert image.format == "PNG"


CODECS = ("pillow-optimize", "dnnjpeg:standard,subsampling=4:4:4", "pillow")


def test_paths_that_are_not_utf_8(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.argv", ["dnnjpeg", "evaluate", "--data", "d\udcff"])
    table = folder / "t\udcff.json"
    dnnjpeg.load_table("standard").save(table)
    result = run(folder, "--codec", f"dnnjpeg:{table}", "--quality", "50", "--plot", folder / "p\udcff.png")
    assert result.exit_code == 0, result.stderr
    with Image.open(folder / "p\udcff.png") as image:
        assert image.format == "PNG"


def test_codecs_are_measured_where_the_reference_has_its_qualities(folder: Path) -> None:
    """However coarse what is asked for is: the two settings around each answer are near each other."""
    codecs = ["--codec", "pillow,subsampling=4:4:4@5", "--codec", "dnnjpeg:standard@98"]
    result = run(folder, *codecs, "--quality", "30,80", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    found = found_in(folder)
    settings = settings_in(found)
    assert ("pillow,subsampling=4:4:4", 5) in settings and ("dnnjpeg:standard", 98) in settings
    for row in found["comparisons"]:
        if row["metric"] != "divergence":  # a network without training has no cross-entropy to speak of
            continue
        own = [one for (codec, _), one in settings.items() if codec == row["codec"]]
        for point in row["points"]:
            at = point["bytes"]["value"]
            below = max(one["bytes"]["value"] for one in own if one["bytes"]["value"] <= at)
            above = min(one["bytes"]["value"] for one in own if one["bytes"]["value"] > at)
            assert above < 1.1 * below


def test_without_labels(folder: Path) -> None:
    result = run(folder, "--codec", "pillow", "--quality", "20,50", labels=False)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "bytes at equal divergence" in result.stdout
    assert "top-1" not in result.stdout and "cross-entropy" not in result.stdout


def test_headerless(folder: Path) -> None:
    own = "dnnjpeg:standard,optimize=false@20,50"
    result = run(folder, "--codec", own, "--reference", "pillow@20,50", "--headerless")
    assert result.exit_code == 0, result.stderr
    assert "headerless bytes at equal divergence, % of change from pillow" in result.stdout
    assert "headerless bytes at equal cross-entropy, % of change from pillow" in result.stdout
    assert "pillow-optimize" not in result.stdout


def test_qualities(folder: Path) -> None:
    """Codecs are compared at those of the first reference; what is asked for besides is measured too."""
    arguments = ["--codec", "pillow-optimize@33", "--codec", "pillow@40,21", "--codec", "pillow@61"]
    more = ["--reference", "pillow-progressive", "--reference", "webp@7"]
    result = run(folder, *arguments, *more, "--quality", "50,20,50", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    found = found_in(folder)
    settings = settings_in(found)
    assert list(dict.fromkeys(codec for codec, _ in settings)) == [
        "pillow-progressive", "webp", "pillow-optimize", "pillow",
    ]  # fmt: skip
    asked = {("pillow-progressive", 20), ("pillow-progressive", 50), ("webp", 7), ("pillow-optimize", 33)}
    assert asked | {("pillow", quality) for quality in (21, 40, 61)} <= set(settings)
    assert {row["reference"] for row in found["comparisons"]} == {"pillow-progressive", "webp"}
    for row in found["comparisons"]:
        assert [point["quality"] for point in row["points"]] == [20, 50]


def test_files_as_stored_crop_and_limit(folder: Path, photo: Image.Image) -> None:
    """Pictures of any size: networks see them reduced and cut after they were decoded."""
    photo.crop((0, 0, 90, 60)).save(folder / "pictures" / "03.png")
    result = run(folder, "--codec", "pillow@50", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    pixels = round((90 * 60 + (N - 1) * SIDE**2) / N)
    assert (found_in(folder)["data"]["pictures"], found_in(folder)["data"]["pixels"]) == (N, pixels)
    stored = settings_in(found_in(folder))["pillow", 50]
    mean = np.mean(sizes(folder, quality=50))
    assert stored["bytes"]["value"] == pytest.approx(mean, rel=1e-5)
    assert stored["bits_per_pixel"] == pytest.approx(8 * mean * N / (90 * 60 + (N - 1) * SIDE**2), rel=1e-5)
    result = run(folder, "--codec", "pillow@50", "--crop", "24", "--limit", "7", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    assert found_in(folder)["data"] | {"source": ""} == {"source": "", "pictures": 7, "pixels": 24**2}


def test_a_codec_that_reduces_has_no_psnr(folder: Path, photo: Image.Image) -> None:
    for i in range(N):
        photo.crop((i, i, i + 80, i + 60)).save(folder / "pictures" / f"{i:02}.png")
    result = run(folder, "--codec", "pillow-optimize,reduce=32", "-o", folder / "x.json", "--quality", "50")
    assert result.exit_code == 0, result.stderr
    settings = settings_in(found_in(folder))
    reduced, whole = (settings[name, 50] for name in ("pillow-optimize,reduce=32", "pillow-optimize"))
    assert reduced["psnr"]["value"] is None and whole["psnr"]["value"] > 20
    assert reduced["bytes"]["value"] < whole["bytes"]["value"]


def test_interruption_and_the_same_command_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, asked = Measurer.measure, []

    def interrupted(measurer: Measurer, *arguments: object):
        asked.append(arguments)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(measurer, *arguments)

    arguments = ["--codec", "pillow", "--quality", "20,50", "-o", folder / "x.json"]
    with monkeypatch.context() as patch:
        patch.setattr(Measurer, "measure", interrupted)
        result = run(folder, *arguments)
    assert result.exit_code == 130
    assert "interrupted; what was measured is kept" in result.stderr
    assert not (folder / "x.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()}
    assert len(kept) == 1 + 2 * 4  # the originals; sizes, PSNR, readings with and without labels, twice
    assert run(folder, *arguments).exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()}
    first = found_in(folder)
    assert len(after) == 1 + len(first["settings"]) * 4
    assert kept.items() <= after.items()
    assert run(folder, *arguments).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()} == after
    again = found_in(folder)
    for key in ("settings", "comparisons", "nominal"):
        assert first[key] == again[key]


def test_labels_worse_than_a_guess_are_told(folder: Path) -> None:
    """Of networks this sure of themselves, labels at random make a loss above log 10."""
    result = run(folder, "--codec", "pillow@50")
    assert result.exit_code == 0
    assert "warning: one has a mean loss of" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codec", "jpegxl"], "no codec is named 'jpegxl'. Codecs: dnnjpeg, "),
        (["--codec", "dnnjpeg:nobody"], "no table is named 'nobody'"),
        (["--codec", "pillow", "--reference", "best"], "no codec is named 'best'"),
        (["--codec", "pillow@20.5"], "pillow at quality 20.5: takes whole qualities only"),
        (["--codec", "pillow", "--quality", "20.5"], "pillow-optimize at quality 20.5: takes whole"),
        (["--codec", "pillow", "--quality", "20,high"], "'20,high' is not a list of qualities"),
        (["--codec", "pillow@0"], "'0' is not a list of qualities"),
        (["--codec", "webp@50", "--headerless"], "webp writes no JPEG"),
        (["--codec", "pillow", "-o", "no/such/x.json"], "there is no folder no/such"),
        (["--codec", "pillow", "--plot", "no/such/x.png"], "there is no folder no/such"),
        (["--codec", "pillow", "--network", "one"], "'one' names no network"),
        (["--codec", "pillow", "--network", f"{NETWORKS}:three"], "three"),
        (["--codec", "pillow", "--device", "abacus"], "'abacus'"),
        (
            ["--codec=pillow", f"--weights={__file__}"]
            + [f"--network={NETWORKS}:{n}" for n in ("one", "two")],
            "--weights needs exactly one --network",
        ),
        ([], "Missing option '--codec'"),
    ],
)  # fmt: skip
def test_wrong_usage(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
    assert not (folder / "cache").exists()


def test_data_that_does_not_go(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n00.png,3\n")
    assert "has no label for 19 of 20 pictures" in run(folder, "--codec", "pillow@50").stderr
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{i:02}.png,99\n" for i in range(N)))
    result = run(folder, "--codec", "pillow@50")
    assert result.exit_code == 2
    assert "check that the labels belong to this network's 10 classes" in result.stderr
    (folder / "pictures" / "05.png").write_bytes(b"text")
    result = run(folder, "--codec", "pillow@50", labels=False)
    assert result.exit_code == 2
    assert "05.png" in result.stderr


def test_results_are_saved_before_they_are_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or a closed pipe behind standard output takes nothing away."""

    def echo(*_: object, **__: object) -> None:
        raise OSError("standard output is full")

    monkeypatch.setattr("click.echo", echo)
    arguments = ["--network", f"{NETWORKS}:one", "--data", folder / "pictures", "--cache", folder / "cache"]
    arguments += ["--codec", "pillow", "--quality", "50", "-o", folder / "x.json"]
    with pytest.raises(click.ClickException, match="standard output is full"):
        main.main(["evaluate", *map(str, arguments)], standalone_mode=False)
    assert found_in(folder)["settings"]


def test_a_plan_sets_the_threads_that_it_was_made_for(folder: Path) -> None:
    import torch

    from dnnjpeg.sparse.plan import Plan, conditions

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        Plan((), conditions(1)).save(folder / "plan.json")
        torch.set_num_threads(before)
        result = run(folder, "--codec", "pillow@50", "--plan", folder / "plan.json")
        assert (result.exit_code, torch.get_num_threads()) == (0, before + 1), result.stderr
    finally:
        torch.set_num_threads(before)


def test_a_dollar_is_no_mathematics(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    (folder / "pictures").rename(folder / "p$^^$")
    arguments = ["--network", f"{NETWORKS}:one", "--data", folder / "p$^^$", "--cache", folder / "cache"]
    arguments += ["--codec", "pillow@50", "--plot", folder / "a$^^$.png"]
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    assert (folder / "a$^^$.png").read_bytes().startswith(b"\x89PNG")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from dnnjpeg.tools.evaluate import evaluate\n"
        "try: evaluate(['--help'])\n"
        "finally: print([m for m in ('torch', 'numba', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_real_network(data_dir: Path, tmp_path: Path) -> None:
    """Finer is better; and dnnjpeg with the standard table is as good as libjpeg, in fewer bytes."""
    models, pictures = data_dir.parent / "models", data_dir / "imagenet"
    if not (models / "zoo.py").exists():
        pytest.skip(f"{models} holds no zoo.py")
    arguments = ["--network", f"{models}/zoo.py:mobilenet_v1_075", "--data", pictures / "val"]
    arguments += ["--labels", pictures / "val.csv", "--crop", 224, "--limit", 20, "--cache", tmp_path]
    arguments += ["--codec", "dnnjpeg:standard", "--quality", "10,75", "-o", tmp_path / "x.json"]
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["clean"]["mobilenet_v1_075"]["top1"]["value"] > 0.5
    settings = {
        (one["codec"].split(":")[0], one["quality"]): (
            one["bytes"]["value"],
            one["networks"]["mobilenet_v1_075"]["divergence"]["value"],
        )
        for one in found["settings"]
    }
    for quality in (10, 75):
        (size, divergence), (own_size, own_divergence) = (
            settings[codec, quality] for codec in ("pillow-optimize", "dnnjpeg")
        )
        assert 0.9 * size < own_size < size
        assert own_divergence == pytest.approx(divergence, rel=0.25)
    assert settings["dnnjpeg", 10][1] > 2 * settings["dnnjpeg", 75][1]


def test_the_help_names_all_codecs_and_their_options() -> None:
    told = " ".join(evaluate.help.split())
    for name, options in codecs._ALLOWED.items():
        assert re.search(rf"\b{name}\b", told) and all(option in told for option in options)
    (own,) = re.findall(r"dnnjpeg:TABLE has the options ([\w, ]+)\.", told)
    assert set(re.split(r", | and ", own)) == set(codecs._ALLOWED["dnnjpeg"])
