"""The pictures of `encode_to_target`. Each makes candidates, files of several qualities and subsamplings."""

import heapq
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dnnjpeg.adaptive import YARDSTICK, adapted_quality
from dnnjpeg.checks import brief, check_items
from dnnjpeg.codec.pixels import as_pixels, mode_components
from dnnjpeg.encoder import bits_at_yardstick, encode_pixels, file_at_yardstick, write_coefficients
from dnnjpeg.jpeg.markers import comment
from dnnjpeg.jpeg.signature import NOTE
from dnnjpeg.options import EncodeOptions, Metadata
from dnnjpeg.table.table import Table
from dnnjpeg.target.search import Encoded, Search
from dnnjpeg.transcoder import Decoded

if TYPE_CHECKING:
    from dnnjpeg.target.pruning import Prunable

QUALITIES = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 31, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80,
    85, 90, 95, 98, 100,
)  # fmt: skip
"""Qualities of the candidates for networks. Each file is about 8 % larger than the one before."""
SUBSAMPLINGS = ("4:2:0", "4:4:4")
PRUNED = (16, 28, 45, 100)  # where pruning starts, in turn; never above the file's own quality
_OF_CODING = ("progressive", "optimize", "restart_blocks", "restart_rows")


@dataclass(frozen=True)
class Source:
    """A picture, and the table and options with which it is encoded."""

    image: Image.Image
    table: Table
    options: EncodeOptions
    metadata: Metadata

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = replace(self.options, subsampling=subsampling)
        metadata = replace(self.metadata, comment=self.comment(note, quality))
        data = encode_pixels(as_pixels(self.image, None), self.table, quality, options, metadata)
        return Encoded(data, quality, subsampling)

    def candidates(self, subsampling: str | None, note: str) -> Iterator[Encoded]:
        """Candidates from the smallest file up. Each is encoded when it is asked for.

        subsampling: None tries all of SUBSAMPLINGS for colour.
        """
        coloured = mode_components(as_pixels(self.image, None).mode) == 3
        names = SUBSAMPLINGS if subsampling is None and coloured else (subsampling,)
        series = (map(partial(self.encode, subsampling=name, note=note), QUALITIES) for name in names)
        return heapq.merge(*series, key=lambda one: len(one.data))

    def judged(self, quality: float, subsampling: str | None, note: str) -> Search:
        """Encode at the quality that `adapted_quality` chooses. One file is read, at quality YARDSTICK."""
        reading = yield Encoded(self.at_yardstick(), YARDSTICK, None)
        own = adapted_quality(quality, self.bits_at_yardstick(), reading.divergence)
        return replace(self.encode(own, subsampling, note), tried=1)

    def at_yardstick(self) -> bytes:
        return file_at_yardstick(as_pixels(self.image, None), self.metadata)

    def bits_at_yardstick(self) -> float:
        return bits_at_yardstick(as_pixels(self.image, None))

    def comment(self, note: str, quality: float) -> bytes:
        """The picture's own comment, and the note unless `signature` is False."""
        own = self.metadata.comment
        if not note or not self.options.signature:
            return own
        return b"\n".join(filter(None, [own, NOTE + f"{note} at quality {quality:g}".encode()]))

    def prunable(self, quality: float, subsampling: str | None, note: str) -> "Prunable":
        from dnnjpeg.target.pruning import Prunable

        point = self.table.at(quality)
        subsampling = subsampling or "4:4:4"  # grey
        comment = self.comment(note and f"{note}, pruned,", quality)
        how = {name: getattr(self.options, name) for name in _OF_CODING}
        write = partial(
            write_coefficients,
            tables=point.tables,
            width=self.image.width,
            height=self.image.height,
            subsampling=subsampling,
            **how,
            **vars(replace(self.metadata, comment=comment)),
        )
        orientation = self.shown().getexif().get(0x0112, 1)
        return Prunable(self.image, orientation, point, subsampling, write)

    def shown(self) -> Image.Image:
        """The picture, with the metadata of its files that give the orientation."""
        image = self.image.convert("RGB")
        image.info.clear()
        image.info.update(self.upright())
        return image

    def upright(self) -> dict[str, Any]:
        """The metadata that may give the orientation."""
        both = {"exif": self.metadata.exif, "xmp": self.metadata.xmp}
        return {name: value for name, value in both.items() if value}


@dataclass(frozen=True)
class JPEGSource(Source):
    """A JPEG file. Its candidates are made from its coefficients."""

    decoded: Decoded

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = replace(self.options, subsampling=subsampling)
        head = self.decoded.head(False, signed=False) + comment(self.comment(note, quality))
        data = self.decoded.encode(self.table, quality, options, head)
        return Encoded(data, quality, subsampling)

    def at_yardstick(self) -> bytes:
        return self.decoded.at_yardstick()

    def bits_at_yardstick(self) -> float:
        return self.decoded.bits_at_yardstick()

    def upright(self) -> dict[str, Any]:
        return {key: self.image.info[key] for key in ("exif", "xmp") if self.image.info.get(key)}


def sources(
    images: Sequence[Any],
    table: Table,
    options: EncodeOptions,
    common: Metadata,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> list[Source]:
    """Make a source of each picture. common: metadata of all pictures. The other arguments are those of
    `encode_to_target`.
    """
    return [
        _source(image, table, options, replace(common, **own))
        for image, own in zip(images, _by_image(metadata, len(images)), strict=True)
    ]


def _by_image(metadata: Sequence[Mapping[str, Any]] | None, count: int) -> list[Mapping[str, Any]]:
    if metadata is None:
        return [{}] * count
    entries = check_items(metadata, "metadata", "a list of mappings, one for each image")
    if len(entries) != count:
        raise ValueError(f"metadata has {len(entries)} entries, expected one for each of {count} images")
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(f"metadata[{i}] is {brief(entry)}, expected a mapping, as {{'comment': b'...'}}")
    return entries


def _as_image(image: Any) -> Image.Image:
    as_pixels(image, None)  # raises if it is no picture
    if isinstance(image, np.ndarray):
        return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    return image


def _source(image: Any, table: Table, options: EncodeOptions, metadata: Metadata) -> Source:
    if isinstance(image, bytes):
        image = Decoded.read(image)
    if not isinstance(image, Decoded):
        return Source(_as_image(image), table, options, metadata)
    if given := [name for name in ("exif", "xmp", "icc_profile", "dpi") if getattr(metadata, name)]:
        raise ValueError(f"{given[0]} is given, and a JPEG file among the images keeps its own: leave it out")
    return JPEGSource(Image.open(io.BytesIO(image.data)), table, options, metadata, image)
