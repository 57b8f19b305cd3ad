"""Tables against Pillow's own, their JSON and wizard text, and what interpolation promises."""

import io
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_factor, ijg_scale, nearest_quality
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.formats import parse_wizard, to_csv, to_wizard
from dnnjpeg.table.library import load_table, standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

steps = st.lists(st.integers(1, 255), min_size=64, max_size=64)
kappas = st.floats(0.01, 1e6)
bin_width = st.none() | st.floats(0.5, 2) | st.lists(st.none() | st.floats(0.5, 2), min_size=64, max_size=64)
max_index = (
    st.none() | st.integers(1, 1023) | st.lists(st.integers(1, 1023) | st.none(), min_size=64, max_size=64)
)
hardnesses = st.none() | kappas | st.lists(st.none() | kappas, min_size=64, max_size=64)
qualities = st.integers(1, 100) | st.floats(1, 100)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
records = st.dictionaries(
    texts, st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
)
records = records.filter(lambda record: not any(value in (math.inf, -math.inf) for value in record.values()))


@st.composite
def points(draw: st.DrawFn, quality: st.SearchStrategy[float] = qualities) -> OperatingPoint:
    chroma = draw(st.lists(steps, min_size=1, max_size=2))
    return OperatingPoint(
        draw(quality),
        draw(st.sampled_from(list(SUBSAMPLINGS))),
        draw(steps),
        chroma,
        draw(st.lists(hardnesses, min_size=1 + len(chroma), max_size=1 + len(chroma))),
        draw(st.none() | records),
        draw(st.lists(bin_width, min_size=1 + len(chroma), max_size=1 + len(chroma))),
        draw(st.lists(max_index, min_size=1 + len(chroma), max_size=1 + len(chroma))),
    )


tables = st.builds(
    Table,
    name=st.sampled_from(["resnet50", "two words", "é"]),
    points=st.lists(points(), min_size=1, max_size=4, unique_by=lambda point: point.quality),
    description=texts,
    provenance=records,
)


def pillow_tables(**options: object) -> list[tuple[int, ...]]:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", **options)
    with Image.open(buffer) as image:
        return [tuple(table) for _, table in sorted(image.quantization.items())]


@pytest.mark.parametrize("quality", range(1, 101))
def test_standard_steps_are_pillows(quality: int) -> None:
    assert list(standard_table().at(quality).tables) == pillow_tables(quality=quality)


@given(st.floats(1, 100), st.floats(0, 1))
def test_ijg_scale_is_monotone_and_stays_between_whole_qualities(quality: float, step: float) -> None:
    higher = min(quality + step, 100)
    below, above = ijg_scale(STANDARD_LUMA, math.floor(quality)), ijg_scale(STANDARD_LUMA, math.ceil(quality))
    assert ijg_factor(quality) >= ijg_factor(higher)
    for a, here, b in zip(below, ijg_scale(STANDARD_LUMA, quality), above, strict=True):
        assert b <= here <= a


@pytest.mark.parametrize("quality", range(1, 101))
def test_nearest_quality_finds_the_standard_tables(quality: int) -> None:
    assert nearest_quality(ijg_scale(STANDARD_LUMA, quality), STANDARD_LUMA) == (quality, True)
    assert nearest_quality(ijg_scale(STANDARD_CHROMA, quality), STANDARD_CHROMA, quality) == (quality, True)


def test_nearest_quality_of_tables_that_are_not_standard() -> None:
    wide = tuple(min(max((step * (5000 // 7) + 50) // 100, 1), 32767) for step in STANDARD_LUMA)
    assert max(wide) > 255
    assert nearest_quality(wide, STANDARD_LUMA) == (7, True)
    bent = (ijg_scale(STANDARD_LUMA, 80)[0] + 1, *ijg_scale(STANDARD_LUMA, 80)[1:])
    assert nearest_quality(bent, STANDARD_LUMA) == (80, False)


@given(tables)
def test_json_round_trip(table: Table) -> None:
    assert Table.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_a_saved_table_loads_as_it_was(tmp_path: Path) -> None:
    hardness = (30.0, [None, *[5.5] * 63])
    point = OperatingPoint(62.5, "4:2:2", STANDARD_LUMA, STANDARD_CHROMA, hardness, {"bpp": 1.5})
    table = Table("tåble", (standard_table().at(90), point), "Ünï", {"models": ["a", {"b": 1}]})
    path = tmp_path / "a name.json"
    path.write_text("old")
    table.save(path)
    assert Table.load(path) == load_table(path) == load_table(str(path)) == table
    assert [point.quality for point in Table.load(path).points] == [62.5, 90]
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text("utf-8"))["points"][0]["hardness"] == [30.0, [None, *[5.5] * 63]]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as Windows' editor saves it
    assert Table.load(path) == table


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")

    def refuse(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        standard_table().save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@given(tables, qualities)
def test_at_is_legal_and_keeps_the_points(table: Table, quality: float) -> None:
    for point in table.points:
        assert table.at(point.quality) is point
    point = table.at(quality)
    assert point.quality == quality
    assert all(1 <= step <= 255 and type(step) is int for steps in point.tables for step in steps)
    assert len(point.hardness) == len(point.tables)


@given(points(st.just(20)), points(st.just(80)), st.floats(20, 80), st.floats(20, 80))
def test_between_points_everything_is_between_and_monotone(
    low: OperatingPoint, high: OperatingPoint, one: float, other: float
) -> None:
    table = Table("t", [high, replace(low, subsampling=high.subsampling)])
    one, other = sorted((one, other))
    a, b = table.at(one), table.at(other)
    count = max(len(low.tables), len(high.tables))
    for i in range(count):
        ends = low.tables[min(i, len(low.tables) - 1)], high.tables[min(i, len(high.tables) - 1)]
        at_one, at_other = a.tables[min(i, len(a.tables) - 1)], b.tables[min(i, len(b.tables) - 1)]
        for left, x, y, right in zip(ends[0], at_one, at_other, ends[1], strict=True):
            assert left <= x <= y <= right or left >= x >= y >= right
    if 20 < one < 80:
        assert a.subsampling == high.subsampling
        assert a.measured is None


@given(points(st.just(20)), points(st.just(80)), st.floats(20, 80))
def test_between_points_of_unlike_subsampling_the_nearer_one_is_scaled(
    low: OperatingPoint, high: OperatingPoint, quality: float
) -> None:
    """Steps of chroma at one resolution say nothing about another."""
    low, high = replace(low, subsampling="4:2:0"), replace(high, subsampling="4:4:4")
    nearer = high if quality >= 50 else low
    assert Table("t", [high, low]).at(quality) == Table("t", [nearer]).at(quality)


@given(st.floats(1, 100), kappas, kappas)
def test_steps_and_hardness_are_interpolated_in_their_logarithms(
    quality: float, low: float, high: float
) -> None:
    ends = [
        OperatingPoint(1, "4:4:4", [255] * 64, [100] * 64, low),
        OperatingPoint(100, "4:4:4", [1] * 64, [4] * 64, high),
    ]
    point = Table("t", ends).at(quality)
    share = (quality - 1) / 99
    assert point.luma[0] == pytest.approx(255 ** (1 - share), abs=0.501)
    assert point.chroma[0][63] == pytest.approx(100 ** (1 - share) * 4**share, abs=0.501)
    assert point.hardness == (pytest.approx(low ** (1 - share) * high**share, rel=1e-9),) * 2


def test_hardness_that_one_neighbour_lacks_is_the_nearer_points() -> None:
    plain = replace(standard_table().at(40), hardness=None)
    mixed = replace(standard_table().at(60), hardness=[9, [None] * 63 + [4]])
    table = Table("t", [plain, mixed])
    assert table.at(49).hardness == (None, None)
    assert table.at(51).hardness == (9.0, (None,) * 63 + (4.0,))


@given(kappas, st.floats(20, 80))
def test_hardness_that_does_not_change_stays_exact(kappa: float, quality: float) -> None:
    ends = [replace(standard_table().at(q), hardness=kappa) for q in (20, 80)]
    assert Table("t", ends).at(quality).hardness == (kappa, kappa)


def test_a_shared_chroma_table_meets_each_of_two() -> None:
    two = OperatingPoint(50, "4:2:0", [40] * 64, [[40] * 64, [10] * 64], [None, 5, 7])
    one = OperatingPoint(100, "4:2:0", [10] * 64, [10] * 64, [None, 20])
    point = Table("t", [two, one]).at(75)
    assert [steps[0] for steps in point.tables] == [20, 20, 10]
    assert point.hardness == (None, pytest.approx(10), pytest.approx(math.sqrt(140)))


@given(st.floats(1, 100), st.floats(1, 100))
def test_outside_the_points_steps_follow_libjpegs_law(one: float, other: float) -> None:
    point = OperatingPoint(50, "4:4:0", STANDARD_LUMA, STANDARD_CHROMA, 12)
    table = Table("t", [point])
    one, other = sorted((one, other))
    for x, y in zip(table.at(one).luma, table.at(other).luma, strict=True):
        assert x >= y
    assert (table.at(one).hardness, table.at(one).subsampling) == ((12.0, 12.0), "4:4:0")
    # From quality 50, where the steps are Annex K's own, the law gives the standard table.
    for quality in (10, 30, 75, 90, 100):
        standard = np.array(standard_table().at(quality).tables)
        assert np.abs(np.array(table.at(quality).tables) - standard).max() <= 1


def test_a_table_of_quality_100_alone_coarsens_below() -> None:
    table = Table("t", [standard_table().at(100)])
    assert set(table.at(99.5).luma) == {1}
    assert set(table.at(95).luma) == {10}
    assert set(table.at(1).luma) == {255}


@pytest.mark.parametrize("quality", [0, 100.5, -1, math.nan, math.inf, True, "75", None, [75], 1j])
def test_a_quality_out_of_range_is_refused(quality: object) -> None:
    with pytest.raises(ValueError, match=r"^quality is .*, expected a number 1\.\.100$"):
        standard_table().at(quality)


@pytest.mark.parametrize("quality", [75, 75.0, np.int64(75), np.float32(75)])
def test_a_whole_quality_prints_as_one(quality: float) -> None:
    assert str(replace(standard_table().at(50), quality=quality).quality) == "75"


def test_the_points_that_were_asked_for_are_kept_up_to_a_limit() -> None:
    table = Table("t", tuple(OperatingPoint(q, "4:2:0", (16,) * 64, ((17,) * 64,)) for q in (20, 80)))
    assert table.at(50) is table.at(50.0)
    for i in range(1000):
        table.at(20 + i / 100)
    assert len(pickle.dumps(table)) < 300 * len(pickle.dumps(table.at(50)))


def test_points_can_be_keys_and_travel_between_processes() -> None:
    point = OperatingPoint(5, "4:2:0", STANDARD_LUMA, STANDARD_CHROMA, measured={"bpp": 1})
    assert {point: 1}[replace(point)] == 1
    assert pickle.loads(pickle.dumps(standard_table())) == standard_table()


def test_points_from_bare_tables() -> None:
    luma, chroma = ijg_scale(STANDARD_LUMA, 80), ijg_scale(STANDARD_CHROMA, 80)
    expected = standard_table().at(80)
    square = np.array([luma, chroma], dtype=np.uint16).reshape(2, 8, 8)
    for given_tables in (
        [luma, chroma],
        (list(luma), list(chroma)),
        square,
        {1: chroma, 0: luma},
        square.tolist(),
    ):
        assert OperatingPoint.from_tables(given_tables) == expected
    for one in ([luma], luma, square[0], square[:1], {0: luma}):
        assert OperatingPoint.from_tables(one, quality=80).tables == (luma, luma)
    point = OperatingPoint.from_tables([luma, chroma, luma], quality=7, subsampling="4:4:4", hardness=3)
    assert (point.quality, point.chroma, point.hardness) == (7, (chroma, luma), (3.0, 3.0, 3.0))


@pytest.mark.parametrize(
    ("given_tables", "message"),
    [
        ([], "tables has 0 tables, expected 1 to 3"),
        ([[1] * 64] * 4, "tables has 4 tables, expected 1 to 3"),
        ([[1] * 63, [1] * 65], "luma has 63 steps, expected 64"),
        ([[1] * 64, [1] * 65], "chroma[0] has 65 steps, expected 64"),
        ({"luma": [1] * 64, "chroma": [2] * 64}, "tables has the key 'luma', expected numbers 0..3"),
        ({0: [1] * 64, "1": [2] * 64}, "tables has the key '1', expected numbers 0..3"),
        (np.zeros((2, 64), int), "luma[0] is"),
        (np.full((2, 64), math.nan), "luma[0] is"),
        (5, "tables is 5, expected 1 to 3 tables of 64 integers"),
        (["a", "b"], "luma has 1 steps, expected 64"),
    ],
)
def test_bare_tables_that_are_not_legal_are_refused(given_tables: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        OperatingPoint.from_tables(given_tables)


@given(points())
def test_wizard_text_is_read_back(point: OperatingPoint) -> None:
    assert tuple(parse_wizard(to_wizard(point))) == point.tables


def test_cells_are_written_only_where_there_are_any() -> None:
    point = standard_table().at(50)
    assert "bin_width" not in point.to_json() and "bin_width" not in to_wizard(point)
    assert replace(point, bin_width=[1, [None] * 64]) == point
    wide = replace(point, bin_width=[1.25, [None] * 63 + [0.75]])
    assert wide.to_json()["bin_width"] == [1.25, [1.0] * 63 + [0.75]]
    assert "bin_width" in to_wizard(wide)
    assert wide.divisors == (
        tuple(1.25 * step for step in point.luma),
        (*point.chroma[0][:63], 0.75 * point.chroma[0][63]),
    )


def test_a_plain_point_may_get_other_tables() -> None:
    point = standard_table().at(50)
    more = replace(point, chroma=point.chroma * 2)
    assert (more.hardness, more.bin_width, more.max_index) == ((None,) * 3, (1,) * 3, (None,) * 3)
    with pytest.raises(ValueError, match="max_index has 2 entries, expected one for each of 3 tables"):
        replace(replace(point, max_index=[5, None]), chroma=point.chroma * 2)


def test_limits_are_written_only_where_there_are_any() -> None:
    point = standard_table().at(50)
    assert "max_index" not in point.to_json() and "max_index" not in to_wizard(point)
    assert replace(point, max_index=[None, [None] * 64]) == point
    held = replace(point, max_index=[127, [None] * 63 + [3]])
    assert held.to_json()["max_index"] == [127, [None] * 63 + [3]]
    assert "max_index" in to_wizard(held)
    assert OperatingPoint.from_json(json.loads(json.dumps(held.to_json()))) == held


def test_limits_are_interpolated_and_scaled_steps_keep_them() -> None:
    ends = [
        replace(standard_table().at(q), max_index=pair) for q, pair in ((20, [100, None]), (80, [400, 7]))
    ]
    table = Table("held", tuple(ends))
    assert table.at(50).max_index == ((200,) * 64, (7,) * 64)
    assert table.at(40).max_index == ((159,) * 64, None)
    assert table.at(95).max_index == (400, 7)


def test_cells_are_interpolated_in_their_logarithms_and_scaled_steps_keep_them() -> None:
    ends = [
        replace(standard_table().at(q), bin_width=pair) for q, pair in ((20, [1, 0.8]), (80, [1.44, 0.8]))
    ]
    table = Table("t", ends)
    assert table.at(50).bin_width == (pytest.approx((1.2,) * 64), (0.8,) * 64)
    assert table.at(95).bin_width == (1.44, 0.8)


@pytest.mark.parametrize("chroma", [[STANDARD_CHROMA], [STANDARD_CHROMA, ijg_scale(STANDARD_CHROMA, 20)]])
def test_pillow_reads_our_wizard_text(chroma: list) -> None:
    point = OperatingPoint(33.3, "4:1:1", ijg_scale(STANDARD_LUMA, 12), chroma, 10)
    text = to_wizard(point)
    assert "-sample 4x1" in text and "hardness" in text
    assert tuple(pillow_tables(qtables=text)) == point.tables


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 quantization steps"),
        ("# only a comment 1 2 3", "0 quantization steps"),
        ("1 " * 65, "65 quantization steps, expected 64"),
        ("1 " * 320, "320 quantization steps"),
        ("1\n2 x # y", "line 2: 'x' is not a quantization step"),
        ("1 -5", "line 1: '-5' is not a quantization step"),
        ("1 " * 63 + "²", "line 1: '²' is not a quantization step"),
        ("9" * 5000, "line 1: '999"),
    ],
)
def test_wizard_text_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse_wizard(text)


def test_csv_holds_every_coefficient() -> None:
    point = OperatingPoint(
        50, "4:2:0", STANDARD_LUMA, STANDARD_CHROMA, [None, [*range(1, 65)]], bin_width=[1.25, None],
        max_index=[[None, *range(1, 64)], 9],
    )  # fmt: skip
    header, *lines = to_csv(point).splitlines()
    assert header == "table,row,column,step,hardness,bin_width,max_index"
    rows = [line.split(",") for line in lines]
    assert [int(row[3]) for row in rows] == [*STANDARD_LUMA, *STANDARD_CHROMA]
    assert rows[10] == ["luma", "1", "2", "14", "", "1.25", "10"]
    assert rows[64 + 10] == ["chroma", "1", "2", "26", "11.0", "1", "9"]
