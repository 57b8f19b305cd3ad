"""A task of one's own, and an ONNX file: the commands of docs/guides/tasks.md, as they stand there."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parents[1]))

from tiny import pictures

from dnnjpeg.table.table import Table
from dnnjpeg.tools.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "tasks.md").read_text()
OWN = PAGE.split("## A task of your own")[1].split("\n## ")[0]


def run(command: str, *more: object) -> Result:
    first, *words = shlex.split(command)
    assert first == "dnnjpeg"
    result = CliRunner().invoke(main, [*words, *map(str, more)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, and folders of pictures."""
    for name, text in re.findall(r"```\w+ title=\"([\w.]+)\"\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    for i, (name, count) in enumerate({"pictures": 60, "others": 10, "photos": 4}.items()):
        (tmp_path / name).mkdir()
        for j, picture in enumerate(pictures(count, i, 40, 32)):
            Image.fromarray(picture).save(tmp_path / name / f"{j}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def read(folder: Path, file: Path) -> tuple[float, float]:
    """Distance and agreement of a file, without dnnjpeg's network and view: the sides need no resizing."""
    scope: dict[str, Any] = {}
    exec((folder / "nets.py").read_text(), scope)
    exec((folder / "outline.py").read_text(), scope)
    import torch

    def output(path: Path) -> Any:
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        return scope["Outlines"]()((pixels / 255 - 0.5) / 0.25)

    both = output(file), output(folder / "photos" / f"{file.stem}.png")
    task = scope["Outline"]()
    return float(task.distance(*both)), float(task.agrees(*both))


@pytest.mark.slow
def test_the_commands_of_the_guide(folder: Path) -> None:
    assert len((folder / "outline.py").read_text().splitlines()) <= 20
    (block,) = re.findall(r"```bash\n(.*?)```", OWN, re.DOTALL)
    learn, evaluate, same, finer = block.strip().splitlines()
    told = run(learn, "--qualities", "30,50,70")
    assert told.exit_code == 0, told.output
    table = Table.load(folder / "outline.json")
    assert "Outlines" in table.description and "top1" not in table.points[0].measured
    told = run(evaluate, "--quality", "50", "-o", "report.json")
    assert told.exit_code == 0, told.output
    found = json.loads((folder / "report.json").read_text())
    assert found["networks"]["Outlines"]["task"] == "Outline"
    assert {row["metric"] for row in found["comparisons"]} == {"divergence"}
    change = found["comparisons"][0]["points"][0]["bytes_change"]["value"]
    assert change is None or change < 0  # fewer bytes than Pillow's standard table
    for command, name in ((same, "out"), (finer, "finer")):
        told = run(command)
        assert told.exit_code == 0, told.output
        files = sorted((folder / name).glob("*.jpg"))
        assert len(files) == 4
        for file in files:
            distance, agreement = read(folder, file)
            assert agreement > 0.979 if name == "out" else distance < 0.0201


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("top1", "keep is 'top1', which is for classifiers, and the task of Outlines is Outline"),
        ("divergence=0.3", "use same, distance=X, accuracy=X% or price=X"),
        ("quality=75", "which is for classifiers"),
    ],
)
def test_criteria_of_classifiers(folder: Path, keep: str, message: str) -> None:
    network = "--network nets.py:Outlines --task outline.py:Outline"
    told = run(f"dnnjpeg encode photos -o out {network} --keep {keep}")
    assert told.exit_code == 2 and message in told.output


def test_pruning_needs_a_distance(folder: Path) -> None:
    network = "--network nets.py:Outlines --task outline.py:Outline"
    told = run(f"dnnjpeg encode photos -o out {network} --keep same --prune")
    assert (
        told.exit_code == 2
        and "prune needs a distance, and keep is 'same' for the task Outline" in told.output
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return read['colour'].sum(1) * float('nan')", "distance of the task Outline returns NaN"),
        ("return read['colour']", "returns (2, 3), expected one number a picture"),
        ("return 1 + read['colour'].abs().sum(1)", "for equal outputs, expected 0"),
        ("return (read['colour'] - clean['colour']).sum(1)", "expected at least 0"),
    ],
)
def test_a_wrong_task_is_refused_before_anything_is_done(folder: Path, body: str, message: str) -> None:
    text = (folder / "outline.py").read_text()
    (folder / "outline.py").write_text(
        re.sub(r"(def distance.*?:\n).*?\n\n", rf"\1        {body}\n\n", text, flags=re.DOTALL)
    )
    told = run(
        "dnnjpeg learn-table --network nets.py:Outlines --task outline.py:Outline --data pictures -o o.json"
    )
    assert told.exit_code == 2 and message in told.output
    assert not (folder / "o.report").exists()


def test_a_network_without_its_task(folder: Path) -> None:
    told = run("dnnjpeg encode photos -o out --network nets.py:Outlines --keep same")
    assert told.exit_code == 2 and "for 2 pictures, expected N x classes" in told.output


@pytest.mark.slow
def test_an_onnx_file(folder: Path) -> None:
    """The detector of the page is a small blur here."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("yaml")
    weights = np.array([[[[1, 2, 1], [0, 0, 0], [-1, -2, -1]]] * 3], np.float32) / 12
    helper, float_ = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Sigmoid", ["y"], ["map"])],
        "g",
        [helper.make_tensor_value_info("x", float_, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("map", float_, [None] * 4)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "detector.onnx")
    learn = "dnnjpeg learn-table --network detector.onnx --data pictures -o ocr.json"
    short = ("--subsampling", "4:4:4", "--qualities", "30,60", "--threads", "1")
    told = run(learn, *short)
    assert told.exit_code == 0, told.output
    assert Table.load(folder / "ocr.json").points
    told = run("dnnjpeg encode photos -o out --network detector.onnx --keep distance=0.01 --threads 1")
    assert told.exit_code == 0 and len(list((folder / "out").glob("*.jpg"))) == 4
    for method in ("j4d", "sensitivity"):
        told = run(learn, *short, "--method", method)
        assert told.exit_code == 2
        assert f"--method {method} needs gradients, and detector.onnx is an ONNX file" in told.output
    told = run("dnnjpeg encode photos -o o2 --network detector.onnx --keep same --prune")
    assert told.exit_code == 2 and "--prune needs gradients" in told.output
    told = run("dnnjpeg evaluate --network detector.onnx --data others --codec mozjpeg", "--quality", "50")
    assert told.exit_code == 0, told.output
