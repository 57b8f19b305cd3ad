"""`dnnjpeg sparse` from a folder of pictures to a plan, and from the plan to classes; `evaluate --plan`."""

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

torch = pytest.importorskip("torch")

from dnnjpeg.tools.cli import main  # noqa: E402

NETWORKS = Path(__file__).parents[1] / "evaluate" / "networks.py"


@pytest.fixture
def folder(photo: Image.Image, tmp_path: Path) -> Path:
    """Pictures of two classes."""
    rng = np.random.default_rng(0)
    for i in range(10):
        x, y = rng.integers(0, (photo.width - 32, photo.height - 32))
        path = tmp_path / "pictures" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((x, y, x + 32, y + 32)).save(path)
    return tmp_path


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["sparse", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def tune(folder: Path, *more: object) -> Result:
    data, model = folder / "pictures", f"{NETWORKS}:one"
    return call("tune", "--network", model, "--data", data, "-o", folder / "plan.json", *more)


def test_tuned_and_run(folder: Path) -> None:
    result = tune(folder, "--report", folder / "report.json")
    assert result.exit_code == 0, result.stderr
    assert "3x32x32->16 5x5 stride 2x2" in result.stdout and "network, milliseconds a run:" in result.stdout
    assert "  prepacked: oneDNN, with the weights" in result.stdout and " CR" not in result.stdout
    assert "times as fast as the unchanged network" in result.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["spec"].endswith("networks.py:one") and len(report["layers"]) == 1
    arguments = (
        "--plan",
        folder / "plan.json",
        "--data",
        folder / "pictures",
        "--network",
        f"{NETWORKS}:one",
    )
    result = call("run", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["pictures"] == found["same"] == 10
    assert found["original_top1"] == found["plan_top1"] and found["plan_per_second"] > 0
    result = call("run", *arguments, "--limit", 4)
    assert result.stdout.startswith("4 pictures. Pictures a second: unchanged ")
    assert "top-1: unchanged" in result.stdout


def test_the_plan_is_saved_before_the_report_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(*_: object, **__: object) -> None:
        raise OSError("standard output is full")

    monkeypatch.setattr("click.echo", echo)
    arguments = ("tune", "--network", f"{NETWORKS}:one", "--data", folder / "pictures")
    outputs = ("-o", folder / "plan.json", "--report", folder / "report.json")
    with pytest.raises(click.ClickException, match="standard output is full"):
        main.main(["sparse", *map(str, (*arguments, *outputs))], standalone_mode=False)
    assert (folder / "plan.json").exists() and (folder / "report.json").exists()


def test_evaluated_with_a_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tune(folder).exit_code == 0
    arguments = ["--network", f"{NETWORKS}:one", "--data", folder / "pictures", "--codec", "pillow@50"]
    arguments += ["--plan", folder / "plan.json", "--cache", folder / "cache"]
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    monkeypatch.setattr("dnnjpeg.networks.load.load_network", None)  # it is refused before anything is loaded
    two = CliRunner().invoke(main, ["evaluate", *map(str, arguments), "--network", f"{NETWORKS}:two"])
    assert two.exit_code == 2 and "--plan needs exactly one --network" in two.stderr


def test_what_is_refused(folder: Path) -> None:
    data = folder / "pictures"
    result = call("tune", "--network", "nothing", "--data", data, "-o", folder / "plan.json")
    assert result.exit_code == 2 and "names no network" in result.stderr
    result = call("tune", "--network", f"{NETWORKS}:one", "--data", data, "-o", folder / "no" / "plan.json")
    assert result.exit_code == 2 and "there is no folder" in result.stderr
    (folder / "bad.json").write_text("[]")
    result = call("run", "--plan", folder / "bad.json", "--data", data)
    assert result.exit_code == 2 and "is no plan" in result.stderr
    assert tune(folder).exit_code == 0
    document = json.loads((folder / "plan.json").read_text())
    document["conditions"]["processor"] = "another"
    (folder / "bad.json").write_text(json.dumps(document))
    model = ("--network", f"{NETWORKS}:one")
    result = call("run", "--plan", folder / "bad.json", "--data", data, *model)
    assert result.exit_code == 2 and "Tune again on this machine" in result.stderr
    document["conditions"]["threads"] = -1
    (folder / "bad.json").write_text(json.dumps(document))
    result = call("run", "--plan", folder / "bad.json", "--data", data, *model)
    assert result.exit_code == 2 and "conditions.threads is -1" in result.stderr
    del document["provenance"], document["conditions"]["threads"]
    (folder / "bad.json").write_text(json.dumps(document))
    result = call("run", "--plan", folder / "bad.json", "--data", data)
    assert (
        result.exit_code == 2 and "--network is missing, and a plan runs no code by itself" in result.stderr
    )
    assert (
        result.exit_code == 2 and "--network is missing, and a plan runs no code by itself" in result.stderr
    )


def test_code_that_a_plan_names_is_not_run(folder: Path) -> None:
    """It is shown, and what would reach the terminal as a command is escaped."""
    planted = folder / "planted.py"
    planted.write_text(
        "import pathlib\npathlib.Path(__file__).with_suffix('.run').touch()\ndef network(): ...\n"
    )
    assert tune(folder).exit_code == 0
    document = json.loads((folder / "plan.json").read_text())
    for spec, shown in (
        (f"{planted}:network", "planted.py:network"),
        ("a\x1b[2J:b", "a\\x1b[2J:b"),
        ({"a": 1}, "{'a': 1}"),
    ):
        document["provenance"]["spec"] = spec
        (folder / "plan.json").write_text(json.dumps(document))
        result = call("run", "--plan", folder / "plan.json", "--data", folder / "pictures")
        text = " ".join(result.stderr.split())
        assert result.exit_code == 2 and shown in text
        assert "give this with --network if you trust it" in text
        assert "\x1b" not in result.stderr
    assert not planted.with_suffix(".run").exists()
