"""From JPEG to JPEG without pixels: coefficients decoded, requantized and coded again."""

import io
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from PIL import Image

from dnnjpeg.adaptive import YARDSTICK
from dnnjpeg.checks import check_flag
from dnnjpeg.codec.metadata import kept_segments, orientation_of
from dnnjpeg.codec.plane_rows import encode_plane_rows
from dnnjpeg.codec.prepare import coding_of, operating_point
from dnnjpeg.codec.read_scans import ZIGZAG_ORDER
from dnnjpeg.codec.reader import (
    MAX_PIXELS,
    Coefficients,
    FileCoefficients,
    Unsupported,
    read_coefficients,
    read_source,
)
from dnnjpeg.codec.transcoding import prepared_transcoding, reduced_sampling, writable_sampling
from dnnjpeg.encoder import AT_YARDSTICK, YARDSTICK_HEAD, encode, own_quality
from dnnjpeg.jpeg.markers import SOI, jfif
from dnnjpeg.jpeg.segments import read_frame, read_segments
from dnnjpeg.jpeg.signature import (
    SIGNATURE,
    Signature,
    adaptation,
    read_signature,
    signature_segment,
)
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.machine.jit import is_compiled
from dnnjpeg.networks.reader import installed_reader
from dnnjpeg.options import DEFAULTS, EncodeOptions, options_from, subsampling_of
from dnnjpeg.table.library import chosen_table, standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

__all__ = ["Coefficients", "Decoded", "Unsupported", "read_coefficients", "transcode"]


def transcode(
    data: bytes,
    table: str | os.PathLike[str] | Table | OperatingPoint | None = None,
    quality: float | None = None,
    *,
    model: str | None = None,
    subsampling: str | int | None = None,
    adaptive: bool | str = False,
    hardness: Any = None,
    seed: int = 0,
    progressive: bool | str = False,
    optimize: bool | None = None,
    restart_blocks: int = 0,
    restart_rows: int = 0,
    strip: bool = False,
    signature: bool = True,
    lossless: bool = False,
    only_if_smaller: bool = True,
    tables: bytes = b"",
    max_pixels: int = MAX_PIXELS,
    salvage: bool = False,
) -> bytes:
    """A JPEG file as a smaller one, from its own coefficients: nothing is decoded to pixels, so nothing is
    rounded twice.

    data: see `read_coefficients`, and there `tables`, `max_pixels` and `salvage`.
    table, model, quality: as in `encode`. Where a step of the source is not smaller than the table's, it
        stays, and so do its indices.
    subsampling: None is the point's. Chroma never gets more samples than the source has, across or down: it
        stays as it is then, and its steps are finer than those of the table, as each block covers more of the
        picture.
    lossless: keep all coefficients, whatever the table; only the coding is new. Huffman tables are optimal,
        and scans progressive where that is smaller.
    only_if_smaller: where the file would not be smaller than the source, give back the source, or what
        `lossless` makes of it, whichever is smaller. A source that dnnjpeg made comes back as it is.
    strip: drop the metadata that do not change how the picture looks: all but the orientation, an ICC profile
        other than sRGB, and what says how colours are coded. Otherwise all of it is kept, byte by byte.
    The other options are those of `encode`.

    Raises ValueError for what cannot be read, and TypeError and ValueError as `encode` does.
    """
    options = options_from(
        adaptive, hardness, seed, subsampling, progressive, optimize, restart_blocks, restart_rows, signature
    )
    table = chosen_table(table, model)
    later = options.decodes_once and not (salvage or tables or lossless)
    decoded = Decoded.read(data, tables=tables, max_pixels=max_pixels, salvage=salvage, later=later)
    return decoded.transcode(
        table, quality, options, strip=strip, lossless=lossless, only_if_smaller=only_if_smaller
    )


class _NotByRows(Exception):
    """The scan must be decoded as a whole. Only then is it known what the file holds."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A JPEG file's coefficients, from which any number of files are made.

    data: the file. whole: whether it is one by itself, and not damaged.
    """

    data: bytes
    source: FileCoefficients
    whole: bool

    @classmethod
    def read(
        cls,
        data: bytes,
        *,
        tables: bytes = b"",
        max_pixels: int = MAX_PIXELS,
        salvage: bool = False,
        later: bool = False,
    ) -> Self:
        """See `read_coefficients`.

        later: not to decode the scan yet, if that is possible on the way to one file. What is wrong with it
            is only told then. For neither `tables` nor `salvage`.
        """
        source = read_source(
            data, ZIGZAG_ORDER, tables=tables, max_pixels=max_pixels, salvage=salvage, later=later
        )
        return cls(data, source, not tables and not source.damaged)

    def stripped(self) -> Self:
        """The same without the metadata that `strip` drops."""
        source = self.source
        kept = kept_segments(source.segments, source.colour, True, True)
        return replace(self, source=source._replace(segments=tuple(kept)))

    @cached_property
    def planes(self) -> np.ndarray:
        """See `FileCoefficients`."""
        return self.source.planes if self.source.found is None else self._read_whole().planes

    def _read_whole(self) -> Self:
        """The same, with the scan decoded."""
        return self.read(self.data, max_pixels=2**63 - 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.source.frame.width, self.source.frame.height

    @property
    def signature(self) -> Signature | None:
        """What dnnjpeg made the file with; None where the file does not say so."""
        for one in self.source.segments:
            if one[1] == 0xE9 and one[4:].startswith(SIGNATURE) and (found := read_signature(one[4:])):
                return found
        return None

    @property
    def orientation(self) -> int:
        """That the EXIF says; 1 where there is none."""
        return orientation_of(self.source.segments)

    def transcode(
        self,
        table: str | os.PathLike[str] | Table | OperatingPoint,
        quality: float | None,
        options: EncodeOptions,
        *,
        strip: bool = False,
        lossless: bool = False,
        only_if_smaller: bool = True,
    ) -> bytes:
        """As the function of that name."""
        for name, value in (("lossless", lossless), ("only_if_smaller", only_if_smaller), ("strip", strip)):
            check_flag(value, name)
        # A second run changes nothing. What is adapted to a file of ours would be adapted twice.
        is_ours = only_if_smaller and self.whole and not lossless and self.signature is not None
        is_ours = is_ours and not (strip and self.has_metadata)
        if is_ours and options.adaptive and self._is_adapted(table, quality, options.adaptive):
            return self.data
        found = b""
        if not lossless:
            try:
                found = self.encode(table, quality, options, self.head(strip, signed=False))
            except _NotByRows:
                whole = self._read_whole()
                return whole.transcode(table, quality, options, strip=strip, only_if_smaller=only_if_smaller)
        # after `encode`, whose errors about the scan come before errors about what follows it
        own = self.bare() if strip and only_if_smaller and self.whole else self.data
        if found and (not only_if_smaller or len(found) < len(own)):
            return found
        if is_ours:
            return self.data
        recoded = self.recode(self.head(strip), options)
        return own if only_if_smaller and self.whole and len(own) <= len(recoded) else recoded

    @property
    def has_metadata(self) -> bool:
        """Whether the file has metadata that `strip` drops, other than dnnjpeg's signature and notes."""
        return self.head(True, signed=False) != self.head(False, signed=False)

    def bare(self) -> bytes:
        """The file as it is, without the metadata that `strip` drops."""
        parts, at, colours = [self.head(True)], 0, b""
        for name, size, body in read_segments(self.data):
            if not name.startswith(("APP", "COM", "SOI")):
                parts.append(self.data[at : at + size])
            if name.startswith("SOF") and bytes(one.id for one in read_frame(body)[3]) == b"RGB":
                colours = jfif(None) if self.source.colour == "YCbCr" else b""  # the names say something else
            at += size
        return b"".join([SOI, colours, *parts])

    def _is_adapted(self, table: Any, quality: float | None, adaptive: bool | str) -> bool:
        """Whether the file is adapted already, by this table and to this quality on average."""
        point, name = operating_point(table, quality)
        found = self.signature
        return found is not None and (found.table, found.adaptation) == (
            name,
            adaptation(adaptive, point.quality),
        )

    def encode(
        self,
        table: str | os.PathLike[str] | Table | OperatingPoint,
        quality: float | None,
        options: EncodeOptions = DEFAULTS,
        head: bytes = b"",
    ) -> bytes:
        """A file of a table; `head`: the segments of metadata, whole, but for the signature."""
        adapted = ""
        if options.adaptive:
            quality, adapted = own_quality(
                table, quality, options.adaptive, self.bits_at_yardstick, self._lost_at_yardstick
            )
        point, name = operating_point(table, quality)
        if options.signature:
            head += signature_segment(name, point.quality, adapted)
        return self._file(point, options, head)

    def can_be(self, subsampling: str | int | None) -> bool:
        """Whether chroma can be brought to a subsampling; None is whatever is due."""
        have = self.source.frame.sampling
        if subsampling is None or len(have) == 1:
            return True
        name = subsampling_of(subsampling)
        return reduced_sampling(have, self.source.colour, name) == SUBSAMPLINGS[name]

    def recode(self, head: bytes, options: EncodeOptions) -> bytes:
        """The smallest file of the same coefficients; of the options, restarts alone have a say."""
        frame = self.source.frame
        kept = EncodeOptions(
            progressive="auto", restart_blocks=options.restart_blocks, restart_rows=options.restart_rows
        )
        coding = coding_of(
            frame.width, frame.height, writable_sampling(frame.sampling), self.source.tables, kept
        )
        return coding.smallest(head, self.planes)

    def bits_at_yardstick(self) -> float:
        """What `adapted_quality` asks of a picture, in bits a pixel."""
        file = self._file(standard_table().at(YARDSTICK), AT_YARDSTICK, YARDSTICK_HEAD)
        return 8 * len(file) / (self.source.frame.width * self.source.frame.height)

    def at_yardstick(self) -> bytes:
        """The coarse file that says how hard the picture is to read."""
        return self.encode("standard", YARDSTICK, head=self.head(False))

    def _lost_at_yardstick(self) -> float:
        with Image.open(io.BytesIO(self.data)) as original:
            return installed_reader().divergence(original, self.at_yardstick())

    def head(self, strip: bool, signed: bool = True) -> bytes:
        """See `kept_segments`."""
        return b"".join(kept_segments(self.source.segments, self.source.colour, strip, signed))

    def _file(self, point: OperatingPoint, options: EncodeOptions, head: bytes) -> bytes:
        source = self.source
        coding, change = prepared_transcoding(point, options, source.frame, source.colour, source.tables)
        if source.found is None:
            return coding.smallest(head, source.planes, change)
        made = coding.of_scan(head, source.found, change)
        if made is None:
            raise _NotByRows
        return made


def is_warm() -> bool:
    """Whether the kernels of this are compiled, in this process or in the cache of an earlier one."""
    return is_compiled(encode_plane_rows)


def warmup() -> None:
    """Compile every kernel of this, or load it from the cache; `encoder.warmup` has the rest."""
    picture = np.zeros((8, 8, 3), np.uint8)
    for progressive in (False, True):
        data = encode(picture, subsampling="4:4:4", progressive=progressive)
        read_coefficients(data)
        transcode(data, quality=20, subsampling="4:2:0")
        transcode(data, quality=20, hardness=2)
