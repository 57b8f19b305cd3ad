"""`dnnjpeg evaluate` from pictures on disk to tables, JSON and plot; and what it refuses."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.evaluate.measure import Bench
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
    if "--model" not in arguments:
        given += ["--model", f"{NETWORKS}:one"]
    result = CliRunner().invoke(evaluate, [str(argument) for argument in (*given, *arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def sizes(folder: Path, **options) -> list[int]:
    found = []
    for path in sorted((folder / "pictures").iterdir()):
        file = io.BytesIO()
        Image.open(path).save(file, "JPEG", **options)
        found.append(len(file.getvalue()))
    return found


def test_table_json_and_plot(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    outputs = ["-o", folder / "found.json", "--plot", folder / "found.png"]
    models = ["--model", f"{NETWORKS}:one", "--model", f"{NETWORKS}:two"]
    codecs = ["--codec", "dnnjpeg:standard,subsampling=4:4:4@10,30,60", "--codec", "pillow"]
    result = run(folder, *models, *codecs, "--quality", "20,50", *outputs)
    assert result.exit_code == 0, result.stderr
    found = json.loads((folder / "found.json").read_text())
    assert (found["format"], found["version"]) == ("dnnjpeg-evaluation", 1)
    # of paths, the last two parts
    assert found["data"] == {"source": f"{folder.name}/pictures", "pictures": N, "size": SIDE}
    networks = "/".join(Path(NETWORKS).parts[-2:])
    assert {name: n["spec"] for name, n in found["networks"].items()} == {
        "one": f"{networks}:one",
        "two": f"{networks}:two",
    }
    assert str(folder.parent) not in json.dumps(found)
    assert found["packages"]["dnnjpeg"] and found["machine"]["cores"] and found["command"]
    settings = {(one["codec"], one["quality"]): one for one in found["settings"]}
    ours = "dnnjpeg:standard,subsampling=4:4:4"
    assert list(settings) == [
        ("pillow-optimize", 20), ("pillow-optimize", 50), (ours, 10), (ours, 30), (ours, 60),
        ("pillow", 20), ("pillow", 50),
    ]  # fmt: skip
    mean = np.mean(sizes(folder, quality=20, optimize=True))
    assert settings["pillow-optimize", 20]["bytes"]["value"] == pytest.approx(mean, rel=1e-5)
    assert f"{mean:,.0f}" in result.stdout
    # of the same pixels, the reference's and Pillow's default differ in bytes alone
    same = [settings[codec, 20]["networks"] for codec in ("pillow", "pillow-optimize")]
    assert same[0] == same[1]
    assert settings["pillow", 20]["bytes"]["value"] == pytest.approx(
        np.mean(sizes(folder, quality=20)), rel=1e-5
    )
    compared = {(row["codec"], row["network"], row["metric"]) for row in found["comparisons"]}
    assert compared == {(c, n, m) for c in (ours, "pillow") for n in ("one", "two") for m in ("loss", "top1")}
    for text in ("one: bytes at equal loss", "two: bytes at equal top-1", "top-1 at equal bytes"):
        assert text in result.stdout
    with Image.open(folder / "found.png") as image:
        assert image.format == "PNG"


def test_without_labels(folder: Path) -> None:
    result = run(folder, "--codec", "pillow", "--quality", "20,50", labels=False)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "bytes at equal divergence" in result.stdout
    assert "top-1" not in result.stdout


def test_headerless(folder: Path) -> None:
    own = "dnnjpeg:standard,optimize=false@20,50"
    result = run(folder, "--codec", own, "--reference", "pillow@20,50", "--headerless")
    assert result.exit_code == 0, result.stderr
    assert "headerless bytes at equal loss, % of change from pillow" in result.stdout
    assert "pillow-optimize" not in result.stdout


def test_qualities(folder: Path) -> None:
    """A reference among the codecs has the qualities it has there, and only those."""
    arguments = ["--codec", "pillow-optimize@30", "--codec", "pillow@40,20", "--codec", "pillow@60"]
    result = run(folder, *arguments, "--quality", "50", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    found = [
        (one["codec"], one["quality"]) for one in json.loads((folder / "x.json").read_text())["settings"]
    ]
    assert found == [("pillow-optimize", 30), ("pillow", 20), ("pillow", 40), ("pillow", 60)]


def test_size_and_limit(folder: Path) -> None:
    result = run(folder, "--codec", "pillow@50", "--size", "24", "--limit", "7", "-o", folder / "x.json")
    assert result.exit_code == 0, result.stderr
    data = json.loads((folder / "x.json").read_text())["data"]
    assert (data["pictures"], data["size"]) == (7, 24)


def test_interruption_and_the_same_command_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, asked = Bench.measure, []

    def interrupted(bench: Bench, codec, quality: float):
        asked.append((codec.name, quality))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure(bench, codec, quality)

    arguments = ["--codec", "pillow", "--quality", "20,50", "-o", folder / "x.json"]
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "measure", interrupted)
        result = run(folder, *arguments)
    assert result.exit_code == 130
    assert "interrupted; what was measured is kept" in result.stderr
    assert not (folder / "x.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()}
    assert len(kept) == 1 + 2 * 2  # the originals; sizes and readings of two settings
    assert run(folder, *arguments).exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()}
    assert len(after) == 1 + 4 * 2
    assert kept.items() <= after.items()
    first = json.loads((folder / "x.json").read_text())
    assert run(folder, *arguments).exit_code == 0
    again = json.loads((folder / "x.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()} == after
    assert [first[key] for key in ("settings", "comparisons")] == [
        again[key] for key in ("settings", "comparisons")
    ]


def test_labels_worse_than_a_guess_are_told(folder: Path) -> None:
    """Of networks this sure of themselves, labels at random make a loss above log 10."""
    result = run(folder, "--codec", "pillow@50")
    assert result.exit_code == 0
    assert "warning: one has a mean loss of" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codec", "jpegxl"], "no codec is named 'jpegxl'; there are dnnjpeg, pillow"),
        (["--codec", "dnnjpeg:nobody"], "no table is named 'nobody'"),
        (["--codec", "pillow", "--reference", "best"], "no codec is named 'best'"),
        (["--codec", "pillow@20.5"], "pillow at quality 20.5: takes whole qualities only"),
        (["--codec", "pillow", "--quality", "20,high"], "'20,high' is no list of qualities"),
        (["--codec", "pillow@0"], "'0' is no list of qualities"),
        (["--codec", "webp@50", "--headerless"], "webp writes no JPEG"),
        (["--codec", "pillow", "-o", "no/such/x.json"], "there is no folder no/such"),
        (["--codec", "pillow", "--plot", "no/such/x.png"], "there is no folder no/such"),
        (["--codec", "pillow", "--model", "one"], "'one' names no network"),
        (["--codec", "pillow", "--model", f"{NETWORKS}:three"], "three"),
        (["--codec", "pillow", "--device", "abacus"], "'abacus'"),
        (
            ["--codec=pillow", f"--weights={__file__}", *(f"--model={NETWORKS}:{n}" for n in ("one", "two"))],
            "--weights is of one network",
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
    assert "the labels are not those of this network's 10 classes" in result.stderr
    (folder / "pictures" / "05.png").write_bytes(b"text")
    result = run(folder, "--codec", "pillow@50", labels=False)
    assert result.exit_code == 2
    assert "05.png" in result.stderr


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
    arguments = ["--model", f"{models}/zoo.py:mobilenet_v1_075", "--data", pictures / "val"]
    arguments += ["--labels", pictures / "val.csv", "--size", 224, "--limit", 20, "--cache", tmp_path]
    arguments += ["--codec", "dnnjpeg:standard", "--quality", "10,75", "-o", tmp_path / "x.json"]
    result = CliRunner().invoke(evaluate, [str(argument) for argument in arguments])
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
