"""dnnjpeg inside the libraries that write data sets: webdataset, Hugging Face, MosaicML and Ray.

>>> ShardWriter("%06d.tar", encoder=webdataset_encoder("universal", 75))
>>> dataset.map(hf_encode("universal", 75), batched=True, features=dataset.features)
>>> with mds_jpeg("universal", 75): writer = MDSWriter(out="out", columns={"image": "jpeg"})
>>> dataset.map_batches(ray_encode("universal", 75))

table, quality and options are always those of `dnnjpeg.encode` and `dnnjpeg.transcode`. A JPEG file is made
smaller from its own coefficients. What a function returns can be pickled, so it can be sent to worker
processes. A library is needed only for its own function.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .batches import FileEncoder

if TYPE_CHECKING:
    from dnnjpeg.table.point import OperatingPoint
    from dnnjpeg.table.table import Table

    Source = str | os.PathLike[str] | Table | OperatingPoint | None

__all__ = ["hf_encode", "mds_jpeg", "ray_encode", "webdataset_encoder"]

_EXTENSIONS = ("jpg", "jpeg")


class _WebDataset(FileEncoder):
    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        rest_encoder = import_module("webdataset.writer").make_encoder(True)
        ours = {
            name: self.encode(value)
            for name, value in sample.items()
            if name.rpartition(".")[2].lower() in _EXTENSIONS and not isinstance(value, str)
        }
        rest = {name: value for name, value in sample.items() if name not in ours}
        return {**rest_encoder(rest), **ours}


def webdataset_encoder(table: "Source" = None, quality: float | None = None, **options: Any) -> "_WebDataset":
    """An encoder for ``webdataset.ShardWriter(pattern, encoder=...)`` and ``TarWriter``.

    It encodes the members named jpg or jpeg: uint8 arrays, uint8 tensors [C, H, W], PIL images, or bytes of a
    picture file. webdataset's own encoder encodes all other members.
    """
    return _WebDataset(table, quality, **options)


class _HuggingFace(FileEncoder):
    def __init__(self, column: str, *how: Any, **options: Any) -> None:
        super().__init__(*how, **options)
        self._column = column

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[dict[str, Any] | None]]:
        if self._column not in batch:
            raise KeyError(f"the batch has no column {self._column!r}; it has {', '.join(map(repr, batch))}")
        return {self._column: [self._row(value) for value in batch[self._column]]}

    def _row(self, value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        path = None
        if isinstance(value, Mapping):
            path, value = value.get("path"), value.get("bytes")
            if value is None:
                if path is None:
                    return None
                value = _content(path)
        return {"bytes": self.encode(value), "path": path and _jpeg_name(path)}


def hf_encode(
    table: "Source" = None, quality: float | None = None, *, column: str = "image", **options: Any
) -> "_HuggingFace":
    """A function for ``datasets.Dataset.map(..., batched=True, features=dataset.features)``.

    column: the name of the column with the pictures. An ``Image`` feature gives PIL images. After
        ``cast_column(column, Image(decode=False))`` it gives dicts of bytes and path: this is faster, and
        metadata are kept. Rows that are None stay None.

    The column becomes dicts {"bytes", "path"}. The path is the name of the file, with the extension .jpg.
    Without ``features=``, `map` makes a plain struct of the column. Raises KeyError if there is no such
    column.
    """
    return _HuggingFace(column, table, quality, **options)


def _content(path: str) -> bytes:
    if "://" not in path:
        return Path(path).read_bytes()
    files: Any = import_module("datasets.utils.file_utils")  # of "zip://a.jpg::files.zip", and URLs
    with files.xopen(path, "rb") as file:
        return bytes(file.read())


def _jpeg_name(path: str) -> str:
    name = PurePosixPath(path.partition("::")[0].replace("\\", "/")).name
    stem, dot, extension = name.rpartition(".")
    if extension.lower() in _EXTENSIONS:
        return name
    return f"{stem if dot else name}.jpg"


class _Ray(FileEncoder):
    def __init__(self, column: str, output: str, *how: Any, **options: Any) -> None:
        super().__init__(*how, **options)
        self._column, self._output = column, output

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        if self._column not in batch:
            raise KeyError(f"the batch has no column {self._column!r}; it has {', '.join(map(repr, batch))}")
        if self._output in batch and self._output != self._column:
            raise ValueError(f"the batch has a column {self._output!r} already: give another name by output")
        pictures = batch[self._column]
        encoded = np.empty(len(pictures), object)
        for i, picture in enumerate(pictures):
            is_nan = isinstance(picture, float | np.floating) and np.isnan(picture)  # Ray may make it of None
            encoded[i] = None if picture is None or is_nan else self.encode(picture)
        rest = {name: column for name, column in batch.items() if name != self._column}
        return {**rest, self._output: encoded}


def ray_encode(
    table: "Source" = None,
    quality: float | None = None,
    *,
    column: str = "image",
    output: str = "bytes",
    **options: Any,
) -> "_Ray":
    """A function for ``ray.data.Dataset.map_batches`` with the batch format "numpy", which is the default.

    column: the column with the pictures, as ``read_images`` gives them, or with the bytes of picture files,
        as ``read_binary_files`` gives them. Rows that are None stay None.
    output: the column of JPEG files that replaces it. All other columns stay.

    Raises KeyError if there is no such column.
    """
    return _Ray(column, output, table, quality, **options)


@contextmanager
def mds_jpeg(table: "Source" = None, quality: float | None = None, **options: Any) -> Iterator[None]:
    """Inside the block, dnnjpeg writes the columns "jpeg" of MosaicML's ``MDSWriter``, in this process.

    The shards still name the encoding "jpeg", so readers do not need dnnjpeg. If a picture was opened from a
    JPEG file by name, the file's own coefficients are used. Without dnnjpeg, MosaicML would copy that file.
    """
    encodings: Any = import_module("streaming.base.format.mds.encodings")
    ours = FileEncoder(table, quality, **options)
    theirs = encodings._encodings["jpeg"]

    def encode(self: Any, obj: Any) -> bytes:
        self._validate(obj, encodings.Image.Image)
        if obj.format == "JPEG" and getattr(obj, "filename", "") and Path(obj.filename).is_file():
            return ours.encode(Path(obj.filename).read_bytes())
        return ours.encode(obj)

    encodings._encodings["jpeg"] = type("DNNJPEG", (theirs,), {"encode": encode})
    try:
        yield
    finally:
        encodings._encodings["jpeg"] = theirs
