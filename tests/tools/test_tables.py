"""`dnnjpeg tables`: what it writes is what the library holds, and other programs read it."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dnnjpeg.table.library import load_table, standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table
from dnnjpeg.tools.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tables", *map(str, arguments)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's tables lie: one there, with every kind of hardness, bin_width and max_index."""
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path))
    low = OperatingPoint(
        40, "4:2:0", [50] * 64, [60] * 64, measured={"bpp": 0.5}, bin_width=[[*[1] * 63, 1.25], 0.9],
        max_index=[127, [None] * 62 + [3, 7]],
    )  # fmt: skip
    high = OperatingPoint(80, "4:4:4", [9] * 64, [[8] * 64, [7] * 64], [5, [None, *range(3, 66)], None])
    Table("mine", [low, high], "learned on\tcats", {"seed": 1, "command": "learn it"}).save(
        tmp_path / "mine.json"
    )
    return tmp_path


def test_list(folder: Path) -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "standard  T.81 Annex K" in result.stdout
    assert "(100 points, quality 1 to 100)" in result.stdout
    assert "mine  learned on\\tcats (2 points, quality 40 to 80)" in result.stdout
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert entries["mine"] == {
        "name": "mine",
        "description": "learned on\tcats",
        "qualities": [40, 80],
        "path": str(folder / "mine.json"),
    }
    assert entries["standard"]["path"] is None


def test_list_goes_on_after_a_file_that_is_no_table(folder: Path) -> None:
    (folder / "broken.json").write_text("{}")
    result = run("list", "--json")
    assert result.exit_code == 1
    assert {entry["name"] for entry in json.loads(result.stdout)} >= {"standard", "mine"}
    assert result.stderr == f"broken: {folder / 'broken.json'} is not a table: format is missing\n"


def test_list_holds_a_line_a_name(folder: Path) -> None:
    (folder / "two\nlines.json").write_text((folder / "mine.json").read_text())
    (folder / "bro\rken.json").write_text("{}")
    result = run("list")
    assert "\ntwo\\nlines  learned on" in result.stdout
    assert result.stderr == f"bro\\rken: {folder}/bro\\rken.json is not a table: format is missing\n"


def test_show_the_points() -> None:
    lines = run("show", "mine").stdout.splitlines()
    assert lines == [
        "mine  learned on\\tcats",
        "quality 40, 4:2:0, 2 tables, rounded to the nearest, bin_width 1 to 1.25 by coefficient, "
        "max_index 127, rounded to the nearest, bin_width 0.9, max_index 3 to 7 by coefficient, bpp 0.5",
        "quality 80, 4:4:4, 3 tables, hardness 5, hardness 3 to 65 by coefficient, rounded to the nearest",
        "seed: 1",
        "command: learn it",
    ]
    assert Table.from_json(json.loads(run("show", "mine", "--json").stdout)) == load_table("mine")


def test_show_the_steps_at_a_quality(folder: Path) -> None:
    result = run("show", folder / "mine.json", "--quality", 80)
    assert result.exit_code == 0
    blocks = result.stdout.split("\n\n")
    assert (
        blocks[0]
        == "quality 80, 4:4:4, 3 tables, hardness 5, hardness 3 to 65 by coefficient, rounded to the nearest"
    )
    assert [block.splitlines()[0].split(",")[0] for block in blocks[1:]] == ["luma", "cb", "cr"]
    assert blocks[2].split("\n", 1)[1].split() == ["8"] * 64
    shown = json.loads(run("show", "standard", "--quality", 62.5, "--json").stdout)
    assert OperatingPoint.from_json(shown) == standard_table().at(62.5)


def test_export_wizard_text_for_pillow(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    assert run("export", "mine", "--quality", 60, "-o", path).exit_code == 0
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", qtables=path.read_text())
    with Image.open(buffer) as image:
        written = [tuple(steps) for _, steps in sorted(image.quantization.items())]
    assert written == list(load_table("mine").at(60).tables)
    assert run("export", "mine", "--quality", 60).stdout == path.read_text()


def test_export_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(run("export", "mine", "--quality", 80, "--format", "csv").stdout)))
    point = load_table("mine").at(80)
    assert [int(row["step"]) for row in rows] == [step for steps in point.tables for step in steps]
    assert [row["hardness"] for row in rows[62:67]] == ["5.0", "5.0", "", "3.0", "4.0"]


def test_export_json_is_a_table_of_one_point(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    assert run("export", "mine", "--quality", 60, "--format", "json", "-o", path).exit_code == 0
    table = load_table(path)
    assert table.points == (load_table("mine").at(60),)
    assert (table.name, dict(table.provenance)) == ("mine", {"seed": 1, "command": "learn it"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "vgg16"], "no table is named 'vgg16'. Installed tables: "),
        (["show", "missing.json"], "Invalid value for 'NAME': No such file or directory: 'missing.json'"),
        (["show", "standard", "--quality", "0"], "expected a number 1..100"),
        (["show", "standard", "--quality", "nan"], "expected a number 1..100"),
        (["export", "standard"], "Missing option '--quality'"),
        (["export", "standard", "--quality", "75", "--format", "xml"], "'xml' is not one of"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = run("export", "standard", "--quality", 75, "-o", tmp_path / "missing" / "q.txt")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_export_to_a_folder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    for folder, message in ((".", "directory"), ("", "the path is empty, expected a name")):
        result = run("export", "standard", "--quality", 75, "-o", folder)
        assert result.exit_code in (1, 2)
        assert message in result.stderr.lower()
    assert list(Path().iterdir()) == []


def test_export_writes_through_links_and_into_pipes(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("file.txt")
    (tmp_path / "file.txt").write_text("old")
    assert run("export", "standard", "--quality", 75, "-o", tmp_path / "link.txt").exit_code == 0
    assert (tmp_path / "link.txt").is_symlink()
    expected = (tmp_path / "file.txt").read_bytes()
    assert expected == run("export", "standard", "--quality", 75, "-o", "-").stdout_bytes
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("export", "standard", "--quality", 75, "-o", tmp_path / "pipe").exit_code == 0
        assert os.read(reader, 1 << 16) == expected
    finally:
        os.close(reader)
