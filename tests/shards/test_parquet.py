"""Parquet shards, against what pyarrow reads."""

import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from shard_files import jpeg, make

import dnnjpeg

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'dnnjpeg[integrations]'")
import pyarrow.parquet as pq  # noqa: E402

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def new(data: bytes | None) -> bytes | None:
    return data and dnnjpeg.transcode(data, "universal", 60)


def write(path: Path, table: Any, **how: Any) -> None:
    pq.write_table(table, path, **how)


def table_of(rows: list[Any], **more: Any) -> Any:
    columns = {"id": pa.array(range(len(rows))), "image": pa.array(rows, IMAGE), **more}
    return pa.table(columns).replace_schema_metadata({"huggingface": '{"info": {}}', "mine": "x"})


def test_pictures_are_made_anew_and_all_else_stays(tmp_path: Path) -> None:
    rows: list[Any] = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in range(7)]
    rows[1], rows[2] = None, {"bytes": None, "path": "only a path"}
    rows[3] = {"bytes": jpeg(3, "PNG"), "path": None}
    nested = pa.array([[{"x": [i], "y": None}] if i % 2 else None for i in range(7)])
    table = table_of(rows, nested=nested, text=pa.array(["a", None, "ü", "", "b", "c", "d"]))
    write(tmp_path / "x.parquet", table, row_group_size=3, compression={"id": "gzip", "text": "zstd"})
    (shard,) = make(tmp_path / "x.parquet", tmp_path / "out")
    assert (shard.status, shard.reason) == ("done", "")
    before, after = (pq.ParquetFile(tmp_path / p / "x.parquet") for p in ("", "out"))
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert [after.metadata.row_group(i).num_rows for i in range(after.num_row_groups)] == [3, 3, 1]
    for i in range(after.metadata.row_group(0).num_columns):
        one, other = (file.metadata.row_group(0).column(i) for file in (before, after))
        assert (one.path_in_schema, one.compression) == (other.path_in_schema, other.compression)
    found = after.read()
    assert found.drop(["image"]).equals(table.drop(["image"]))
    expected = [row and {**row, "bytes": new(row["bytes"])} if i != 3 else row for i, row in enumerate(rows)]
    assert found["image"].to_pylist() == expected
    assert (shard.record["encoded"], shard.record["failed"]) == (4, 0)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_binary(tmp_path: Path, kind: Any) -> None:
    values = [jpeg(0), None, b"", b"text", jpeg(1)]
    write(tmp_path / "x.parquet", pa.table({"jpg": pa.array(values, kind), "other": pa.array(values, kind)}))
    make(tmp_path / "x.parquet", tmp_path / "out", column="jpg")
    found = pq.read_table(tmp_path / "out" / "x.parquet")
    assert found["jpg"].to_pylist() == [new(jpeg(0)), None, b"", b"text", new(jpeg(1))]
    assert found["other"].to_pylist() == values
    assert found.schema.field("jpg").type == kind


@pytest.mark.parametrize("on_error", ["keep", "drop", "fail"])
def test_bad_pictures(tmp_path: Path, on_error: str) -> None:
    bad = jpeg(1)[:-400]
    rows = [{"bytes": data, "path": None} for data in (jpeg(0), bad, jpeg(2))]
    write(tmp_path / "x.parquet", table_of(rows))
    (shard,) = make(tmp_path / "x.parquet", tmp_path / "out", on_error=on_error)
    if on_error == "fail":
        assert shard.status == "failed"
        assert "image, row group 0, row 1" in shard.reason
        assert not (tmp_path / "out" / "x.parquet").exists()
        return
    found = pq.read_table(tmp_path / "out" / "x.parquet").to_pylist()
    assert [row["id"] for row in found] == ([0, 1, 2] if on_error == "keep" else [0, 2])
    assert [row["image"]["bytes"] for row in found] == [
        new(jpeg(0)),
        *[bad] * (on_error == "keep"),
        new(jpeg(2)),
    ]
    assert shard.record["failures"][0]["member"] == "image, row group 0, row 1"


def test_two_columns_of_pictures(tmp_path: Path) -> None:
    left, right = ([{"bytes": jpeg(i + k), "path": None} for i in range(3)] for k in (0, 5))
    right[1]["bytes"] = jpeg(1)[:-400]
    table = pa.table({"left": pa.array(left, IMAGE), "right": pa.array(right, IMAGE)})
    write(tmp_path / "x.parquet", table)
    make(tmp_path / "x.parquet", tmp_path / "out", on_error="drop")
    found = pq.read_table(tmp_path / "out" / "x.parquet").to_pylist()
    assert [row["left"]["bytes"] for row in found] == [new(jpeg(0)), new(jpeg(2))]
    assert [row["right"]["bytes"] for row in found] == [new(jpeg(5)), new(jpeg(7))]


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", table_of([]))
    make(tmp_path / "x.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "x.parquet").equals(table_of([]))


@pytest.mark.parametrize(
    ("column", "match"),
    [(None, "no column of bytes and path, but a, b"), ("c", "no column 'c'"), ("b", "expected binary")],
)
def test_columns_that_are_none(tmp_path: Path, column: str | None, match: str) -> None:
    nested = pa.array([[{"bytes": jpeg(0), "path": None}]], pa.list_(IMAGE))
    write(tmp_path / "x.parquet", pa.table({"a": [jpeg(0)], "b": nested}))
    (shard,) = make(tmp_path / "x.parquet", tmp_path / "out", column=column)
    assert match in shard.reason


def test_damage_is_told(tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(table_of([{"bytes": jpeg(0), "path": None}]), file)
    whole = file.getvalue()
    for data in (b"", b"PAR1", whole[:-100], whole[100:], whole[:-8] + b"\xff\xff\xff\x7fPAR1"):
        (tmp_path / "x.parquet").write_bytes(data)
        (shard,) = make(tmp_path / "x.parquet", tmp_path / "out")
        assert "as Parquet" in shard.reason
        assert not (tmp_path / "out" / "x.parquet").exists()


def test_metadata_of_the_file_stay(tmp_path: Path) -> None:
    table = table_of([{"bytes": jpeg(i), "path": None} for i in range(3)])
    order = [pq.SortingColumn(0)]
    with pq.ParquetWriter(
        tmp_path / "x.parquet", table.schema, write_page_index=True, sorting_columns=order
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"license": "CC-BY", "content_defined_chunking": "{}"})
    make(tmp_path / "x.parquet", tmp_path / "out")
    before, after = (pq.ParquetFile(tmp_path / p / "x.parquet").metadata for p in ("", "out"))
    assert before.metadata.keys() - after.metadata.keys() == {b"content_defined_chunking"}
    assert after.metadata.items() <= before.metadata.items() and b"license" in after.metadata
    assert after.row_group(0).sorting_columns == before.row_group(0).sorting_columns
    assert [after.row_group(0).column(i).has_offset_index for i in range(3)] == [True] * 3


def test_older_names_of_lists(tmp_path: Path) -> None:
    lists = pa.array([list(range(200)), None, [1]])
    table = table_of([{"bytes": jpeg(i), "path": None} for i in range(3)], ids=lists)
    write(tmp_path / "x.parquet", table, use_compliant_nested_type=False, compression="zstd")
    make(tmp_path / "x.parquet", tmp_path / "out")
    before, after = (pq.ParquetFile(tmp_path / p / "x.parquet") for p in ("", "out"))
    assert after.schema.equals(before.schema)
    for i in range(before.metadata.num_columns):
        one, other = (file.metadata.row_group(0).column(i) for file in (before, after))
        assert (one.path_in_schema, one.compression) == (other.path_in_schema, other.compression)
    assert after.read()["ids"].equals(table["ids"])


def test_old_timestamps(tmp_path: Path) -> None:
    """Many of them do not fit into nanoseconds of 64 bits."""
    times = [datetime(9999, 12, 31), datetime(2020, 1, 1, microsecond=7), datetime(1500, 1, 1), None]
    table = table_of(
        [{"bytes": jpeg(i), "path": None} for i in range(4)], until=pa.array(times, pa.timestamp("us"))
    )
    write(tmp_path / "x.parquet", table, use_deprecated_int96_timestamps=True, store_schema=False)
    make(tmp_path / "x.parquet", tmp_path / "out")
    found = pq.ParquetFile(tmp_path / "out" / "x.parquet", coerce_int96_timestamp_unit="us")
    assert found.read()["until"].to_pylist() == times
    assert [found.schema.column(i).physical_type for i in range(4)].count("INT96") == 1


def test_a_page_with_a_wrong_checksum_fails(tmp_path: Path) -> None:
    table = table_of(
        [{"bytes": jpeg(i), "path": None} for i in range(3)], label=pa.array([101, 102, 103], pa.int32())
    )
    path = tmp_path / "x.parquet"
    write(path, table, write_page_checksum=True, compression="none", use_dictionary=False)
    data, number = path.read_bytes(), (102).to_bytes(4, "little")
    assert data.count(number) >= 1
    at = data.index((101).to_bytes(4, "little") + number) + 4
    path.write_bytes(data[:at] + bytes([202]) + data[at + 1 :])
    (shard,) = make(path, tmp_path / "out")
    assert shard.status == "failed" and "checksum" in shard.reason


def test_failures_name_rows_of_the_source(tmp_path: Path) -> None:
    good, bad = {"bytes": jpeg(0), "path": None}, {"bytes": jpeg(0)[:200], "path": None}
    left, right = (pa.array([bad if i == k else good for i in range(4)], IMAGE) for k in (0, 2))
    write(tmp_path / "x.parquet", pa.table({"id": range(4), "L": left, "R": right}))
    (shard,) = make(tmp_path / "x.parquet", tmp_path / "out", on_error="drop")
    named = [one["member"] for one in shard.record["failures"]]
    assert named == ["L, row group 0, row 0", "R, row group 0, row 2"]
    assert pq.read_table(tmp_path / "out" / "x.parquet")["id"].to_pylist() == [1, 3]
