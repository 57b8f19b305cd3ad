"""What is wrong with a table or a point is named by its field."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dnnjpeg.table.fields import spread
from dnnjpeg.table.library import load_table, standard_table
from dnnjpeg.table.table import Table


def document(**changes: object) -> dict:
    """The JSON of a table of two points."""
    found = Table("mine", [standard_table().at(50), standard_table().at(90)]).to_json()
    return found | changes


def long(values: list) -> list:
    """`values` filled up to 64."""
    return values + [1] * (64 - len(values))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("quality", 0, "quality is 0, expected a number 1..100"),
        ("quality", True, "quality is True, expected a number 1..100"),
        ("quality", math.nan, "quality is nan, expected a number 1..100"),
        ("subsampling", "4:2:1", "subsampling is '4:2:1', expected one of 4:4:4, 4:2:2, 4:2:0, 4:4:0, 4:1:1"),
        ("subsampling", ["4:2:0"], "subsampling is ['4:2:0'], expected one of"),
        ("luma", long([1, 2, 3, 4, 5, 0]), "luma[5] is 0, expected an integer 1..255"),
        ("luma", long([256]), "luma[0] is 256, expected an integer 1..255"),
        ("luma", long([True]), "luma[0] is True, expected an integer 1..255"),
        ("luma", long([16.0]), "luma[0] is 16.0, expected an integer 1..255"),
        ("luma", long([None]), "luma[0] is None, expected an integer 1..255"),
        ("luma", long(["1"]), "luma[0] is '1', expected an integer 1..255"),
        ("luma", [1] * 63, "luma has 63 steps, expected 64"),
        ("luma", 16, "luma is 16, expected 64 integers"),
        ("luma", "1" * 64, "luma is '1111"),
        ("luma", None, "luma is None, expected 64 integers"),
        ("chroma", [], "chroma has 0 steps, expected 64"),
        ("chroma", long([-1]), "chroma[0] is -1, expected an integer 1..255"),
        ("chroma", [[1] * 64, long([9, 300])], "chroma[1][1] is 300, expected an integer 1..255"),
        ("chroma", [[1] * 64] * 3, "chroma has 3 steps, expected 64"),
        (
            "hardness",
            0,
            "hardness is 0, expected a finite number of at least 0.01, inf or None",
        ),
        (
            "hardness",
            math.nan,
            "hardness is nan, expected a finite number of at least 0.01, inf or None",
        ),
        (
            "hardness",
            [1, -math.inf],
            "hardness[1] is -inf, expected a finite number of at least 0.01, inf or None",
        ),
        (
            "hardness",
            [None, long([2, "x"])],
            "hardness[1][1] is 'x', expected a finite number of at least 0.01, inf or None",
        ),
        ("hardness", [None, [1] * 63], "hardness[1] has 63 entries, expected None, a number, or 64"),
        ("hardness", [1, 2, 3], "hardness has 3 entries, expected one for each of 2 tables, or 64"),
        (
            "hardness",
            True,
            "hardness is True, expected a finite number of at least 0.01, inf or None",
        ),
        ("hardness", "hard", "hardness is 'hard', expected None, a number, or one entry a table"),
        ("max_index", 0, "max_index is 0, expected an integer 1..1023"),
        ("max_index", [1.5, None], "max_index[0] is 1.5, expected an integer 1..1023"),
        ("max_index", [5, [1024] * 64], "max_index[1][0] is 1024, expected an integer 1..1023"),
        ("bin_width", 0.49, "bin_width is 0.49, expected a number 0.5..2 or None"),
        (
            "bin_width",
            [1, long([1, math.inf])],
            "bin_width[1][1] is inf, expected a number 0.5..2 or None",
        ),
        ("bin_width", [1, 2, 1.5], "bin_width has 3 entries, expected one for each of 2 tables, or 64"),
        ("bin_width", "wide", "bin_width is 'wide', expected None, a number, or one entry a table"),
        ("measured", [1], "measured is [1], expected an object"),
        ("measured", {"bpp": math.nan}, "measured cannot be kept as JSON"),
        ("lumma", [1] * 64, "'lumma' is not a field of a point, expected quality, subsampling, luma, chroma"),
    ],
)
def test_a_wrong_field_of_a_point_is_named(field: str, value: object, message: str) -> None:
    wrong = document()
    wrong["points"][1][field] = value
    with pytest.raises(ValueError, match=rf"^{re.escape('points[1].' + message)}"):
        Table.from_json(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "jpeg"}, "format is 'jpeg', expected 'dnnjpeg-table'"),
        ({"version": 2}, "version is 2, expected 1"),
        ({"name": ""}, "name is '', expected printable text"),
        ({"name": "a\nb"}, r"name is 'a\nb', expected printable text"),
        ({"name": None}, "name is None, expected printable text"),
        ({"description": 5}, "description is 5, expected text"),
        ({"points": []}, "points is empty, expected at least one"),
        ({"points": 5}, "points is 5, expected a list"),
        ({"points": [5]}, "points[0].point is 5, expected an object"),
        ({"points": [document()["points"][0]] * 2}, "points has quality 50 twice"),
        ({"provenance": []}, "provenance is [], expected an object"),
        ({"desciption": ""}, "'desciption' is not a field of a table"),
    ],
)
def test_a_wrong_field_of_a_table_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        Table.from_json(document(**changes))


@pytest.mark.parametrize("key", ["format", "version", "name", "points"])
def test_a_missing_field_is_named(key: str) -> None:
    short = document()
    del short[key]
    with pytest.raises(ValueError, match=f"^{key} is missing$"):
        Table.from_json(short)


def test_points_must_be_operating_points() -> None:
    with pytest.raises(ValueError, match=r"^points\[1\] is 5, expected an OperatingPoint"):
        Table("t", [standard_table().at(5), 5])
    with pytest.raises(ValueError, match=r"^points\[0\]\.luma is missing"):
        Table.from_json(document(points=[{"quality": 5, "subsampling": "4:2:0"}]))
    with pytest.raises(ValueError, match=r"^table is \[\], expected an object"):
        Table.from_json([])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"format": NaN}'])
def test_a_file_that_is_no_table_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is not a table: "):
        Table.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": True}, "version is True, expected 1"),
        ({"version": 1.0}, "version is 1.0, expected 1"),
        ({"description": "\ud800"}, r"description is '\ud800', expected text"),
        ({"provenance": {"a": "\udfff"}}, "provenance cannot be kept as JSON"),
    ],
)
def test_what_json_would_change_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        Table.from_json(document(**changes))


@pytest.mark.parametrize(
    "text", ['{"format": 1, "format": 1}', '{"provenance": {"a": [{"b": 1, "b": 2}]}}', '{"": 0, "": 0}']
)
def test_a_key_given_twice_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"twice\.json is not a table: the key '.*' is there twice$"):
        Table.load(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A device has no end, and a pipe waits for a writer."""
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for load in (Table.load, load_table):
            with pytest.raises(ValueError, match=r"is not a table: not a regular file$"):
                load(path)


def test_a_file_too_large_for_a_table_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(ValueError, match=r"large\.json is not a table: larger than 64 MB$"):
        load_table(path)


@pytest.mark.parametrize("ends", [(0.5, 0.5000000000000001), (1.9999999999999998, 2), (0.01, 0.010000001)])
def test_what_is_interpolated_stays_between_the_points(ends: tuple[float, float]) -> None:
    """Rounding in the logarithms could lead out of the range that is legal."""
    fields = ("hardness",) if ends[0] < 0.5 else ("bin_width", "hardness")
    points = [
        replace(standard_table().at(q), **dict.fromkeys(fields, end))
        for q, end in zip((1, 100), ends, strict=True)
    ]
    table = Table("t", points)
    for quality in range(1, 101):
        for field in fields:
            for entry in getattr(table.at(quality), field):
                assert all(ends[0] <= value <= ends[1] for value in spread(entry))
