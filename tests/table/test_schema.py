"""The schema of the format, as published, takes what the library writes and refuses what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

import dnnjpeg
from dnnjpeg import OperatingPoint, Table, list_tables

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "assets" / "table.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SHIPPED = [path for path in list_tables().values() if path is not None]


def test_the_schema_is_one() -> None:
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_tables(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hardness": 20},
        {"hardness": [None, *[4.5] * 63]},
        {"hardness": [30, [None, *[7] * 63]]},
        {"bin_width": [1.2, 1]},
        {"bin_width": [[0.5, *[2] * 63], 1.1], "max_index": [127, [1023, *[None] * 63]]},
        {"measured": {"bytes": 4000.5, "images": 20}},
        {"chroma": [[7] * 64, [9] * 64], "hardness": [1, 2, 3]},
    ],
)
def test_written_tables(fields: dict[str, Any], tmp_path: Path) -> None:
    whole = {"quality": 50, "subsampling": "4:2:0", "luma": [5] * 64, "chroma": [7] * 64} | fields
    path = tmp_path / "mine.json"
    Table("mine", (OperatingPoint(**whole),), "a test", {"date": "today"}).save(path)
    document = json.loads(path.read_text())
    VALIDATOR.validate(document)
    for point in document["points"]:  # what a user may write is more than what is written
        VALIDATOR.validate(document | {"points": [point | whole]})


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("format", "table"),
        ("version", 2),
        ("name", " "),
        ("points", []),
        ("extra", 1),
        ("points.0.quality", 0),
        ("points.0.quality", "50"),
        ("points.0.subsampling", "4:2:1"),
        ("points.0.luma", [5] * 63),
        ("points.0.luma", [0] + [5] * 63),
        ("points.0.luma", [256] + [5] * 63),
        ("points.0.chroma", [[5] * 64] * 3),
        ("points.0.hardness", -1),
        ("points.0.hardness", [1, 2, 3, 4]),
        ("points.0.bin_width", 3),
        ("points.0.max_index", 1024),
        ("points.0.max_index", 1.5),
        ("points.0.measured", 3),
        ("points.0.steps", [1]),
    ],
)
def test_both_refuse(where: str, value: Any) -> None:
    point = {"quality": 50, "subsampling": "4:2:0", "luma": [5] * 64, "chroma": [7] * 64}
    document: dict[str, Any] = {"format": "dnnjpeg-table", "version": 1, "name": "mine", "points": [point]}
    VALIDATOR.validate(document)
    *path, last = where.split(".")
    (point if path else document)[last] = value
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ValueError):
        dnnjpeg.Table.from_json(document)
