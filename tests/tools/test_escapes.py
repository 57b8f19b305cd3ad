"""Nothing that comes from a file steers the terminal: not its name, nor what stands in it."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import dnnjpeg
from dnnjpeg.tools.cli import main
from dnnjpeg.tools.paths import one_line, printable

STEER = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2028\r\b"
STEERING = re.compile(r"[^\n\t -~\u00a1-\u1fff\u2190-\u2bff]")
TABLE = {
    "format": "dnnjpeg-table",
    "version": 1,
    "name": "n",  # that of a table is refused otherwise
    "description": f"d{STEER}\nstandard  a forged line",
    "points": [
        {
            "quality": 50,
            "subsampling": "4:2:0",
            "luma": [16] * 64,
            "chroma": [17] * 64,
            "measured": {f"m{STEER}": 1, "text": STEER},
        }
    ],
    "provenance": {f"p{STEER}": f"v{STEER}\nseed: 1", "list": [STEER, {STEER: STEER}]},
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steering.json").write_text(json.dumps(TABLE))
    for field in ("format", "version", "name", "points", STEER):
        (tmp_path / f"bad-{field[:9]}.json").write_text(json.dumps(TABLE | {field: [STEER]}))
    for field in ("quality", "subsampling", "luma", STEER):
        point = TABLE["points"][0] | {field: [STEER]}
        (tmp_path / f"point-{field[:9]}.json").write_text(json.dumps(TABLE | {"points": [point]}))
    (tmp_path / f"{STEER}.json").write_text("{")
    (tmp_path / "x.jpg").write_bytes(dnnjpeg.encode(Image.new("L", (8, 8)), comment=STEER.encode()))
    (tmp_path / f"{STEER}.jpg").write_bytes(b"text")
    return tmp_path


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not STEERING.findall(result.output), result.output
    return result.output


def test_tables(folder):
    listed = printed("tables", "list").splitlines()
    assert sum(line.startswith("steering  d\\x1b]0;title\\x07") for line in listed) == 1
    assert not any(line.startswith("standard  a forged line") for line in listed)
    shown = printed("tables", "show", "steering")
    assert shown.startswith("n  d\\x1b]0;title\\x07") and "\nseed: 1" not in shown
    assert len(shown.splitlines()) == 4
    for more in (["--quality", "50"], ["--json"]):
        printed("tables", "show", "steering", *more)
    for form in ("wizard", "csv", "json"):
        printed("tables", "export", "steering", "--quality", "50", "--format", form)


def test_errors_about_tables(folder):
    for path in folder.glob("*.json"):
        if path.name != "steering.json":
            printed("tables", "show", str(path))
            printed("encode", "x.jpg", "-o", "out", "--table", str(path))
    printed("tables", "show", f"none{STEER}")
    printed("tables", "export", "steering", "--quality", "50", "-o", f"none/{STEER}")


def test_errors_about_files(folder):
    printed("encode", f"{STEER}.jpg", "-o", "out")
    printed("encode", "x.jpg", "-o", f"x.jpg/{STEER}.jpg")
    printed("encode", "x.jpg", "x.jpg", "-o", f"{STEER}.jpg")
    printed("encode", f"none{STEER}", "-o", "out")
    printed("inspect", "x.jpg", f"{STEER}.jpg", f"none{STEER}")
    printed("inspect", "--json", "x.jpg")


def test_wrong_usage(folder):
    for arguments in ([STEER], [f"--{STEER}"], ["encode", f"--{STEER}"], ["tables", STEER]):
        printed(*arguments)
    printed("encode", "x.jpg", "-o", "out", "--subsampling", STEER)
    printed("encode", "x.jpg", "-o", "out", "--background", STEER)


def test_networks(folder):
    pytest.importorskip("torch")
    for spec in (f"none{STEER}.py:f", f"torchvision:{STEER}", STEER):
        printed("evaluate", "--model", spec, "--data", ".", "--codec", "pillow")
        printed("encode", "x.jpg", "-o", "out", "--network", spec, "--keep", "top1")
    (folder / "plan.json").write_text(json.dumps({"format": STEER}))
    printed("sparse", "run", "--plan", "plan.json", "--data", ".")
    printed("evaluate", "--model", "none", "--data", f"none{STEER}", "--codec", f"pillow{STEER}")


def test_reports_keep_their_lines():
    assert printable(f"layer  0.5\n{STEER}  ±1\n") == f"layer  0.5\n{one_line(STEER)}  ±1\n"
    assert not STEERING.findall(printable(STEER))
