"""A JPEG file to its quantized coefficients: segments followed in order, scans handed to the kernels."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.checks import check_integer
from dnnjpeg.codec import marks
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.metadata import adobe_segments
from dnnjpeg.codec.read_scans import NATURAL_ORDER, Damage, FoundScan, Heading, Scans
from dnnjpeg.jpeg.inspect import subsampling_name
from dnnjpeg.jpeg.markers import EOI
from dnnjpeg.jpeg.segments import (
    KINDS,
    Component,
    read_frame,
    read_huffman,
    read_quantization,
    read_segments,
)
from dnnjpeg.jpeg.standard import Steps

MAX_PIXELS = 178_956_970  # beyond it Pillow takes a file for a bomb

_NO_PLANES = np.empty((0, 64), np.int16)

MPF = b"MPF\0"
"""What an APP2 begins with that lists further pictures behind the first."""


class Unsupported(ValueError):
    """A file that is not damaged, but of a kind that is not read."""


_HEADERS = {"DHT", "DQT", "DRI", "DAC", "DNL"} | {f"SOF{kind - 0xC0}" for kind in KINDS}
_COLOURS = {0: {3: "RGB", 4: "CMYK"}, 1: {3: "YCbCr"}, 2: {4: "YCCK"}}
"""By Adobe's transform and number of components."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The quantized DCT coefficients of a JPEG file, and all that is needed to write it again.

    planes: by component, int16 [rows, columns, 64] in natural order; rows and columns as the component has
        blocks.
    tables: by component, the 64 quantization steps in natural order.
    sampling: by component, factors across and down; (1, 1) for a single one.
    subsampling: a name of `SUBSAMPLINGS` where they have one, "4:0:0" for a single component.
    colour: "gray", "YCbCr", "RGB", "CMYK" or "YCCK".
    segments: APPn and COM, whole and in order.
    restart_interval: MCUs between restarts in the last scan, 0 for none.
    progressive: whether the scans were.
    """

    planes: tuple[np.ndarray, ...]
    tables: tuple[Steps, ...]
    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    subsampling: str
    colour: str
    segments: tuple[bytes, ...]
    restart_interval: int
    progressive: bool


class FileCoefficients(NamedTuple):
    """As `Coefficients`, but the planes are one array, int16[blocks, 64], laid out as `Frame.planes(True)`
    says, in the order asked for. They are empty if the scan is only found.
    """

    frame: Frame
    planes: np.ndarray
    tables: tuple[Steps, ...]
    subsampling: str
    colour: str
    segments: tuple[bytes, ...]
    restart_interval: int
    progressive: bool
    damaged: bool
    found: FoundScan | None

    def views(self) -> tuple[np.ndarray, ...]:
        """The blocks of each component that hold picture."""
        found = []
        for part, (stride, first) in zip(self.frame.components, self.frame.places, strict=True):
            shape, strides = (part.rows, part.columns, 64), (128 * stride, 128, 2)
            found.append(np.ndarray(shape, np.int16, self.planes, 128 * first, strides))
        return tuple(found)


def read_coefficients(
    data: bytes, *, tables: bytes = b"", max_pixels: int = MAX_PIXELS, salvage: bool = False
) -> Coefficients:
    """The quantized DCT coefficients of a JPEG file, exactly as its encoder wrote them.

    data: baseline, extended sequential or progressive with 8 bits a sample and Huffman codes, of 1, 3 or 4
        components. `write_coefficients` makes the same coefficients of the planes and tables.
    tables: the stream of tables that belongs to a picture without them (T.81 B.5).
    max_pixels: a picture of more is refused before memory is taken for it.
    salvage: read damaged data as far as they go; the coefficients behind are 0, which is grey. False refuses
        what is damaged anywhere, even if decoders would not mind, as bytes behind the end.

    Raises ValueError, in one line with the byte it is about, for what is damaged, too large or of another
    kind; TypeError for what is not bytes.
    """
    source = read_source(data, NATURAL_ORDER, tables=tables, max_pixels=max_pixels, salvage=salvage)
    frame = source.frame
    return Coefficients(
        source.views(), source.tables, frame.width, frame.height, frame.sampling, source.subsampling,
        source.colour, source.segments, source.restart_interval, source.progressive,
    )  # fmt: skip


def read_source(
    data: bytes,
    order: np.ndarray,
    *,
    tables: bytes = b"",
    max_pixels: int = MAX_PIXELS,
    salvage: bool = False,
    later: bool = False,
) -> FileCoefficients:
    """As `read_coefficients`; `order` is one of those in `read_scans`.

    later: for a sequential scan of all components, only note where it is. Until it is decoded, its end is a
        guess. So what is wrong with it, and what follows it, is not known yet. Nothing is salvaged then.
    """
    for name, value in (("data", data), ("tables", tables)):
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is a {type(value).__name__}, expected the bytes of a JPEG file")
    if salvage not in (False, True):
        raise ValueError(f"salvage is {salvage!r}, expected True or False")
    max_pixels = check_integer(max_pixels, "max_pixels", 1, 2**63 - 1)
    if not salvage:
        try:
            return _Reader(order, max_pixels, False, later, guess=True).read(data, tables)
        except ValueError:  # the guess may be wrong
            pass
    return _Reader(order, max_pixels, bool(salvage), False, guess=False).read(data, tables)


class _Reader:
    """Reads one file.

    later: see `read_source`.
    guess: whether to guess that a scan of all components ends where the file ends, and not to search for its
        end. If the scan is decoded without an error, the guess was right.
    """

    def __init__(self, order: np.ndarray, max_pixels: int, salvage: bool, later: bool, guess: bool):
        self.order, self.max_pixels, self.damage, self.later = order, max_pixels, Damage(salvage), later
        self.guess = guess
        self.quantization: dict[int, Steps] = {}
        self.huffman: dict[int, bytes] = {}  # lengths and symbols
        self.segments: list[bytes] = []
        self.interval = 0
        self.scans: Scans | None = None  # of the frame, once there is one

    def read(self, data: bytes, tables: bytes) -> FileCoefficients:
        if tables:
            self._follow(tables, tables_only=True)
        self._follow(data)
        return self._source()

    def _follow(self, data: bytes, tables_only: bool = False) -> None:
        """All segments of a stream."""
        array = bytes_array(data)
        last = len(data) - 2 if self.guess and data.endswith(EOI) else -1

        def find(_: bytes, at: int) -> int:
            return last if at <= last and self._is_only_scan(header) else marks.find_mark(array, at)

        segments = read_segments(data, find)
        ended, header, end = False, b"", 0
        while True:
            try:
                name, size, body = next(segments)
            except StopIteration:
                break
            except ValueError:
                if not (self.damage.salvage and self.scans is not None and self.scans.count):
                    raise
                self.damage.found = True
                break
            first, end = end, end + size
            wrong = ""
            try:
                if name in _HEADERS:
                    self._header(name, body)
                elif name == "SOS":
                    header = body
                elif name == "scan":
                    if self.scans is None:
                        raise ValueError("a scan before the frame header (SOF)")
                    tables = self.quantization, self.huffman
                    wrong = self.scans.read(header, data, array, first, end, *tables, self.interval)
                elif name == "EOI":
                    ended = True
                elif name == "trailing" and self._has_more():
                    raise Unsupported("the file holds further pictures behind the first (MPF)")
                elif name in ("stray", "trailing"):
                    self.damage.note(f"has stray bytes ({size})")
                elif name != "SOI":  # APPn and COM
                    self.segments.append(b"\xff" + data[first:end].lstrip(b"\xff"))
            except ValueError as error:
                raise type(error)(f"{error}, at byte {first}") from None
            if wrong:
                self.damage.note(wrong)
        if not ended:
            self.damage.note(f"has no end (EOI), at byte {len(data)}")
        if (self.scans is None) != tables_only:
            raise ValueError(
                "tables is a whole picture, expected tables only"
                if tables_only
                else f"data has no frame header (SOF), at byte {len(data)}"
            )

    def _is_only_scan(self, header: bytes) -> bool:
        """Whether no other scan should follow one with this header."""
        scans = self.scans
        if scans is None or scans.progressive or not header or self._has_more():
            return False
        return header[0] == len(scans.heading.parts)

    def _has_more(self) -> bool:
        """Whether further pictures should follow the first."""
        return any(one.startswith(MPF, 4) for one in self.segments)

    def _header(self, name: str, body: bytes) -> None:
        if name == "DHT":
            for number, lengths, symbols in read_huffman(body):
                self.huffman[number] = lengths + symbols
        elif name == "DQT":
            self.quantization.update(read_quantization(body))
        elif name.startswith("SOF"):
            self._begin_frame(KINDS[0xC0 + int(name[3:])], body)
        elif name == "DRI":
            if len(body) != 2:
                raise ValueError(f"DRI has {len(body)} bytes of content, expected 2")
            self.interval = int.from_bytes(body)
        else:  # DAC, DNL
            raise Unsupported(f"{name} is not supported")

    def _begin_frame(self, kind: str, body: bytes) -> None:
        if self.scans is not None:
            raise ValueError("a second frame header (SOF)")
        if kind not in ("baseline", "extended sequential", "progressive"):
            raise Unsupported(f"the file is {kind}, expected baseline or progressive with Huffman codes")
        heading = _heading(body)
        width, height = heading.frame.width, heading.frame.height
        if width * height > self.max_pixels:
            raise ValueError(
                f"the picture is {width}x{height}, more than {self.max_pixels:,} pixels: raise max_pixels"
            )
        self.scans = Scans(heading, kind == "progressive", self.order, self.damage, self.later)

    def _source(self) -> FileCoefficients:
        scans = self.scans
        assert scans is not None
        return FileCoefficients(
            scans.heading.frame,
            _NO_PLANES if scans.found else scans.planes.reshape(-1, 64),
            scans.finish(self.quantization),
            scans.heading.subsampling,
            self._colour(scans.heading.parts),
            tuple(self.segments),
            self.interval,
            scans.progressive,
            self.damage.found,
            scans.found,
        )

    def _colour(self, parts: tuple[Component, ...]) -> str:
        """As libjpeg decides it."""
        count = len(parts)
        if count == 1:
            return "gray"
        apps = [one for one in self.segments if one[1] == 0xE0 and len(one) >= 4 + 14]
        if count == 3 and any(one.startswith(b"JFIF\0", 4) for one in apps):
            return "YCbCr"
        adobe, usual = adobe_segments(self.segments), "CMYK" if count == 4 else "YCbCr"
        if adobe:
            return _COLOURS.get(adobe[-1][15], {}).get(count, usual)
        return "RGB" if count == 3 and bytes(part.id for part in parts) == b"RGB" else usual


@lru_cache(maxsize=256)
def _heading(body: bytes) -> Heading:
    """Remembered, as folders have many pictures of one size."""
    precision, height, width, parts = read_frame(body)
    if precision != 8:
        raise Unsupported(f"the file has {precision} bits a sample, expected 8")
    if len(parts) not in (1, 3, 4):
        raise Unsupported(f"the file has {len(parts)} components, expected 1, 3 or 4")
    if len({part.id for part in parts}) < len(parts):
        raise ValueError("two components have the same number")
    if not (width and height):
        raise ValueError(f"the picture is {width}x{height}")
    sampling = ((1, 1),) if len(parts) == 1 else tuple((part.horizontal, part.vertical) for part in parts)
    return Heading(Frame(width, height, sampling, (0,) * len(sampling)), parts, subsampling_name(parts))


def bytes_array(data: bytes) -> np.ndarray:
    """The bytes in place."""
    return np.frombuffer(data, np.uint8)
