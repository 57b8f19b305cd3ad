"""The pictures of `encode_to_target`. Each makes candidates, files of several qualities and subsamplings."""

import heapq
import inspect
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dnnjpeg.adaptive import YARDSTICK, adapted_quality
from dnnjpeg.checks import brief, check_items
from dnnjpeg.codec.pixels import as_pixels, mode_components
from dnnjpeg.encoder import bits_at_yardstick, encode, write_coefficients
from dnnjpeg.jpeg.markers import comment
from dnnjpeg.jpeg.signature import NOTE
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
PRUNED = 16  # the highest quality at which pruning starts
_OF_COEFFICIENTS = frozenset(inspect.signature(write_coefficients).parameters)  # the options that apply


@dataclass(frozen=True)
class Source:
    """A picture, and the table and options with which it is encoded."""

    image: Image.Image
    table: Table
    options: dict[str, Any]

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = self.options | self.comment(note, quality)
        data = encode(self.image, self.table, quality, subsampling=subsampling, **options)
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
        divergence = yield Encoded(self.at_yardstick(), YARDSTICK, None)
        bits = self.bits_at_yardstick()
        return self.encode(adapted_quality(quality, bits, divergence), subsampling, note)

    def at_yardstick(self) -> bytes:
        return encode(self.image, quality=YARDSTICK, **self.upright())

    def bits_at_yardstick(self) -> float:
        return bits_at_yardstick(as_pixels(self.image, None))

    def comment(self, note: str, quality: float) -> dict[str, bytes]:
        """The option `comment` of `encode`: the picture's own, and the note unless `signature` is False."""
        own = self.options.get("comment", b"")
        if not note or not self.options.get("signature", True):
            return {"comment": own}
        return {"comment": b"\n".join(filter(None, [own, NOTE + f"{note} at quality {quality:g}".encode()]))}

    def prunable(self, found: Encoded, note: str) -> "Prunable":
        from dnnjpeg.target.pruning import Prunable

        quality = min(found.quality, PRUNED)
        point = self.table.at(quality)
        subsampling = found.subsampling or "4:4:4"  # grey
        options = {key: value for key, value in self.options.items() if key in _OF_COEFFICIENTS}
        options |= self.comment(f"{note}, pruned,", quality) if note else {}
        write = partial(
            write_coefficients,
            tables=point.tables,
            width=self.image.width,
            height=self.image.height,
            subsampling=subsampling,
            **options,
        )
        orientation = self.shown().getexif().get(0x0112, 1)
        return Prunable(self.image, orientation, point, subsampling, write)

    def shown(self) -> Image.Image:
        """The picture, with the metadata of its files that give the orientation."""
        image = self.image.convert("RGB")
        image.info = dict(self.upright().items())
        return image

    def upright(self) -> dict[str, Any]:
        """The metadata that may give the orientation."""
        return {key: self.options[key] for key in ("exif", "xmp") if self.options.get(key)}


@dataclass(frozen=True)
class JPEGSource(Source):
    """A JPEG file. Its candidates are made from its coefficients."""

    decoded: Decoded

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = {key: value for key, value in self.options.items() if key not in ("threads", "comment")}
        head = self.decoded.head(False, signed=False) + comment(self.comment(note, quality)["comment"])
        data = self.decoded.encode(self.table, quality, head=head, subsampling=subsampling, **options)
        return Encoded(data, quality, subsampling)

    def at_yardstick(self) -> bytes:
        return self.decoded.encode("standard", YARDSTICK, head=self.decoded.head(False))

    def bits_at_yardstick(self) -> float:
        return self.decoded.bits_at_yardstick()

    def upright(self) -> dict[str, Any]:
        return {key: self.image.info[key] for key in ("exif", "xmp") if self.image.info.get(key)}


def sources(
    images: Sequence[Any],
    table: Table,
    options: Mapping[str, Any],
    metadata: Sequence[Mapping[str, Any]] | None,
    prune: bool,
) -> list[Source]:
    """Make a source of each picture. The arguments are those of `encode_to_target`."""
    return [
        _source(image, table, {**options, **own}, prune)
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


def _source(image: Any, table: Table, options: dict[str, Any], prune: bool) -> Source:
    if isinstance(image, bytes):
        image = Decoded.read(image)
    if not isinstance(image, Decoded):
        return Source(_as_image(image), table, options)
    if prune:
        raise ValueError("prune is True, and images has JPEG files: decode them to pixels first")
    return JPEGSource(Image.open(io.BytesIO(image.data)), table, options, image)
