"""Parquet shards with a column of pictures: structs of "bytes" and "path", as Hugging Face has them, or
binary.

The row groups, their order, the schema, all metadata, the compression of each column and the values of other
columns stay the same. All pages are written again, because no library copies them.
"""

import io
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from dnnjpeg.jpeg.segments import is_jpeg
from dnnjpeg.shards.shard import Convert, ShardError, Tally

if TYPE_CHECKING:
    import pyarrow as pa


def rewrite_parquet(
    source: IO[bytes], target: IO[bytes], convert: Convert, tally: Tally, column: str | None
) -> None:
    """Encode the pictures of a Parquet file.

    convert: see `converter`.
    column: the name of the column with the pictures. None means each struct of "bytes" and "path".

    Raises ShardError if the source is not a Parquet file, or has no such column.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ShardError("needs pyarrow: pip install pyarrow") from None

    try:
        # INT96 reaches from year -4713 to 5 million, nanoseconds in 64 bits from 1677 to 2262
        file = pq.ParquetFile(source, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
        names = _columns(file.schema_arrow, column)
        with pq.ParquetWriter(target, file.schema_arrow, **_written_as(file)) as writer:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number)
                rows: Sequence[int] = range(len(table))
                for name in names:
                    table, rows = _converted(table, name, convert, number, rows)
                writer.write_table(table, row_group_size=max(len(table), 1))
            # the second says how pages were cut, which is no longer true
            known = {b"ARROW:schema", b"content_defined_chunking", *(file.schema_arrow.metadata or {})}
            more = {key: value for key, value in (file.metadata.metadata or {}).items() if key not in known}
            writer.add_key_value_metadata(more)
    except (pa.ArrowException, OSError, OverflowError) as error:
        text = str(error).partition("\n")[0]
        raise ShardError(f"cannot be read or written as Parquet: {text}") from error


def _columns(schema: "pa.Schema", column: str | None) -> list[str]:
    if column is not None:
        if schema.names.count(column) != 1:
            raise ShardError(f"has no column {column!r}, but {', '.join(schema.names)}")
        kind = schema.field(column).type
        if not (_is_image(kind) or _is_binary(kind)):
            raise ShardError(f"has in {column!r} {kind}, expected binary, or a struct of bytes and path")
        return [column]
    names = [field.name for field in schema if _is_image(field.type) and schema.names.count(field.name) == 1]
    if not names:
        raise ShardError(
            f"has no column of bytes and path, but {', '.join(schema.names)}: name one of pictures (--column)"
        )
    return names


def _is_binary(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_image(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return False
    fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
    return "path" in fields and _is_binary(fields.get("bytes", pa.null()))


def _written_as(file: Any) -> dict[str, Any]:
    """The options of a writer whose files are like this one."""
    import pyarrow.parquet as pq

    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    options: dict[str, Any] = {
        "use_compliant_nested_type": not any(".list.item" in leaf.path for leaf in leaves),
        "use_deprecated_int96_timestamps": any(leaf.physical_type == "INT96" for leaf in leaves),
    }
    if not file.num_row_groups:
        return options
    group = file.metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    empty = io.BytesIO()  # its leaves have the names that the writer gives them
    pq.write_table(file.schema_arrow.empty_table(), empty, **options)
    schema = pq.ParquetFile(empty).schema
    kinds = {"UNCOMPRESSED": "none"}
    compression = {
        schema.column(i).path: kinds.get(column.compression, column.compression.lower())
        for i, column in enumerate(columns)
    }
    return options | {
        "compression": compression,
        "write_page_index": any(column.has_offset_index for column in columns),
        "sorting_columns": group.sorting_columns or None,
    }


def _converted(
    table: "pa.Table", name: str, convert: Convert, group: int, rows: Sequence[int]
) -> "tuple[pa.Table, Sequence[int]]":
    """The table of a row group with its pictures encoded, and without the rows that are dropped; and the
    numbers of its rows.

    name: the column of the pictures. group: the number of the row group. rows: the numbers of the rows.
    """
    import pyarrow as pa

    index = table.schema.get_field_index(name)
    kind = table.schema.field(index).type
    chunks, kept = [], []
    start = 0
    for chunk in table.column(index).chunks:
        cells = chunk if _is_binary(kind) else chunk.field("bytes")
        if not _is_binary(kind):  # a struct that is null may hold bytes all the same
            cells = [cell if whole.is_valid else None for cell, whole in zip(cells, chunk, strict=True)]
        values = []
        numbers = rows[start : start + len(chunk)]
        for value, is_kept in _files(cells, f"{name}, row group {group}, row", numbers, convert):
            values.append(value)
            kept.append(is_kept)
        new = pa.array(values, kind if _is_binary(kind) else kind.field("bytes").type)
        if isinstance(new, pa.ChunkedArray):
            raise ShardError(f"has more than 2 GB of pictures in row group {group}: write smaller row groups")
        if not _is_binary(kind):
            fields = [kind.field(i) for i in range(kind.num_fields)]
            parts = [new if one.name == "bytes" else chunk.field(one.name) for one in fields]
            new = pa.StructArray.from_arrays(parts, fields=fields, mask=chunk.is_null())
        chunks.append(new)
        start += len(chunk)
    table = table.set_column(index, table.schema.field(index), pa.chunked_array(chunks, kind))
    if all(kept):
        return table, rows
    left = [row for row, is_kept in zip(rows, kept, strict=True) if is_kept]
    return table.filter(pa.array(kept)), left


def _files(
    cells: Any, place: str, numbers: Sequence[int], convert: Convert
) -> Iterator[tuple[bytes | None, bool]]:
    """The new content of each cell, and whether its row is kept. Cells without a JPEG file do not change.

    place: the place of the cells for messages. numbers: of their rows.
    """

    def numbered() -> Iterator[tuple[int, bytes | None]]:
        for number, cell in zip(numbers, cells, strict=True):
            yield number, None if cell is None else cell.as_py()

    def pictures(item: tuple[int, bytes | None]) -> list[tuple[str, bytes]]:
        number, value = item
        return [(f"{place} {number}", value)] if value is not None and is_jpeg(value) else []

    for (_, value), files in convert(numbered(), pictures):
        yield (files[0] if files else value), files is not None
