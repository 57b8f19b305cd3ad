"""A JPEG file to its quantized coefficients: segments followed in order, scans handed to the kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dnnjpeg.checks import check_integer
from dnnjpeg.codec import bands, decode, intervals
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.lookup import AC, AC_FIRST, AC_REFINE, DC, Lookup, lookup_table
from dnnjpeg.codec.scan import PLANE, STRIDE
from dnnjpeg.jpeg.inspect import subsampling_name
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.segments import (
    KINDS,
    Component,
    read_frame,
    read_huffman,
    read_quantization,
    read_segments,
)
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.memory import empty

MAX_PIXELS = 178_956_970  # beyond it Pillow takes a file for a bomb
MAX_SCANS = 200  # real files have a dozen; T.81 alone would allow thousands, each of which costs time
MAX_MCU_BLOCKS = 10  # T.81 B.2.3

NATURAL_ORDER, ZIGZAG_ORDER = (
    np.pad(np.array(order, np.uint8) * 2, (0, decode.BEYOND), "edge") for order in (NATURAL, range(64))
)
"""Where in a block, in bytes, coefficients go, by position in zigzag order, and by those behind the last."""

MPF = b"MPF\0"
"""What an APP2 begins with that lists further pictures behind the first."""


class Unsupported(ValueError):
    """A file that is not damaged, but of a kind that is not read."""


_WRONG = {
    intervals.BAD_CODE: "has a Huffman code that is none",
    intervals.TOO_MANY: "has coefficients beyond the last one of a block",
    intervals.TOO_SHORT: "has a scan that breaks off",
    intervals.TOO_LARGE: "has a coefficient beyond 1,023",
    intervals.WRONG_MARKER: "has a marker that is not due",
    intervals.TOO_LONG: "has a scan with bytes left over",
}
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


@dataclass(frozen=True, eq=False)
class Source:
    """As `Coefficients`, but the planes are one array, int16[blocks, 64], laid out as `Frame.planes(True)`
    says, in the order asked for.
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

    def views(self) -> tuple[np.ndarray, ...]:
        """The blocks of each component that hold picture."""
        geometry, _ = self.frame.planes(True)
        found = []
        for part, (stride, first) in zip(
            self.frame.components, geometry[:, (STRIDE, PLANE)].tolist(), strict=True
        ):
            plane = self.planes[first : first + part.rows * stride].reshape(part.rows, stride, 64)
            found.append(plane[:, : part.columns])
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
) -> Source:
    """As `read_coefficients`; `order` is one of the two above."""
    for name, value in (("data", data), ("tables", tables)):
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is a {type(value).__name__}, expected the bytes of a JPEG file")
    if salvage not in (False, True):
        raise ValueError(f"salvage is {salvage!r}, expected True or False")
    reader = _Reader(order, check_integer(max_pixels, "max_pixels", 1, 2**63 - 1), bool(salvage))
    if tables:
        reader.follow(tables, tables_only=True)
    reader.follow(data)
    return reader.source()


class _Reader:
    def __init__(self, order: np.ndarray, max_pixels: int, salvage: bool):
        self.order, self.max_pixels, self.salvage = order, max_pixels, salvage
        self.quantization: dict[int, Steps] = {}
        self.huffman: dict[int, bytes] = {}  # lengths and symbols
        self.segments: list[bytes] = []
        self.interval = self.scans = 0
        self.damaged = False
        self.frame: Frame | None = None
        self.kind = ""
        self.parts: tuple[Component, ...] = ()
        self.tables: dict[int, Steps] = {}  # by component, those at its first scan
        self.known: list[list[int]] = []  # by component and coefficient: the lowest bit so far, or -1

    def follow(self, data: bytes, tables_only: bool = False) -> None:
        """All segments of a stream."""
        array = bytes_array(data)
        names = set()
        header = b""
        for name, first, end, body in self._segments(data, array):
            names.add(name)
            wrong = ""
            try:
                if name == "SOS":
                    header = body
                elif name == "scan":
                    wrong = self._scan(header, data, array, first, end)
                elif name == "trailing" and any(one[4:].startswith(MPF) for one in self.segments):
                    raise Unsupported("the file holds further pictures behind the first (MPF)")
                elif name in ("stray", "trailing"):
                    self._damaged(f"has stray bytes ({end - first})")
                else:
                    self._segment(name, data[first:end].lstrip(b"\xff"), body)
            except ValueError as error:
                raise type(error)(f"{error}, at byte {first}") from None
            if wrong:
                self._damaged(wrong)
        if "EOI" not in names:
            self._damaged(f"has no end (EOI), at byte {len(data)}")
        if (self.frame is None) != tables_only:
            raise ValueError(
                "tables is a whole picture, expected tables only"
                if tables_only
                else f"data has no frame header (SOF), at byte {len(data)}"
            )

    def _segments(self, data: bytes, array: np.ndarray) -> Iterator[tuple[str, int, int, bytes]]:
        """Name, first byte, end, content."""
        end = 0
        segments = read_segments(data, lambda _, at: intervals.find_mark(array, at))
        while True:
            try:
                name, size, body = next(segments)
            except StopIteration:
                return
            except ValueError:
                if self.salvage and self.scans:
                    self.damaged = True
                    return
                raise
            first, end = end, end + size
            yield name, first, end, body

    def _damaged(self, what: str) -> None:
        if not self.salvage:
            raise ValueError(f"the file {what}")
        self.damaged = True

    def _segment(self, name: str, whole: bytes, body: bytes) -> None:
        if name.startswith("SOF"):
            self._begin_frame(KINDS[0xC0 + int(name[3:])], body)
        elif name == "DQT":
            self.quantization |= read_quantization(body)
        elif name == "DHT":
            self.huffman |= {number: lengths + symbols for number, lengths, symbols in read_huffman(body)}
        elif name == "DRI":
            if len(body) != 2:
                raise ValueError(f"DRI has {len(body)} bytes of content, expected 2")
            self.interval = int.from_bytes(body)
        elif name in ("DAC", "DNL"):
            raise Unsupported(f"{name} is not supported")
        elif name.startswith("APP") or name == "COM":
            self.segments.append(b"\xff" + whole)

    def _begin_frame(self, kind: str, body: bytes) -> None:
        if self.frame is not None:
            raise ValueError("a second frame header (SOF)")
        if kind not in ("baseline", "extended sequential", "progressive"):
            raise Unsupported(f"the file is {kind}, expected baseline or progressive with Huffman codes")
        precision, height, width, parts = read_frame(body)
        if precision != 8:
            raise Unsupported(f"the file has {precision} bits a sample, expected 8")
        if len(parts) not in (1, 3, 4):
            raise Unsupported(f"the file has {len(parts)} components, expected 1, 3 or 4")
        if len({part.id for part in parts}) < len(parts):
            raise ValueError("two components have one number")
        if not (width and height):
            raise ValueError(f"the picture is {width}x{height}")
        if width * height > self.max_pixels:
            raise ValueError(
                f"the picture is {width}x{height}, more than {self.max_pixels:,} pixels: raise max_pixels"
            )
        self.kind, self.parts = kind, parts
        alone = len(parts) == 1
        sampling = ((1, 1),) if alone else tuple((part.horizontal, part.vertical) for part in parts)
        self.frame = _frame(width, height, sampling)
        self.known = [[-1] * 64 for _ in parts]
        self.planes = empty(self.frame.planes(True)[1] * 64, np.int16)
        if kind == "progressive" or self.salvage:
            self.planes.fill(0)

    def _scan(self, header: bytes, data: bytes, array: np.ndarray, first: int, end: int) -> str:
        """What is wrong with its data."""
        if self.frame is None:
            raise ValueError("a scan before the frame header (SOF)")
        self.scans += 1
        if self.scans > MAX_SCANS:
            raise ValueError(f"the file has more than {MAX_SCANS} scans")
        members, band, selectors = self._scan_header(header)
        self._note(members, *band)
        frame = self.frame
        geometry = frame.planes(True)[0].tolist()
        many = len(members) > 1
        huffman = [self._huffman(selector, *band) for selector in selectors]  # alive until they are used
        fields = []
        for c, (dc, ac) in zip(members, huffman, strict=True):
            h, v, *_ = geometry[c] if many else (1, 1)
            fields += [h, v, geometry[c][STRIDE], geometry[c][PLANE], dc.address, ac.address]
        part = frame.components[members[0]]
        mcus, rows = (frame.mcus, frame.mcu_rows) if many else (part.columns, part.rows)
        note = np.zeros(1, intervals.NOTE)
        where = (
            note, array, first, end, np.empty(end - first + intervals.SLACK, np.uint8), self.planes,
            np.array(fields).reshape(-1, 6), mcus, rows, self.interval, self.order, self.salvage,
        )  # fmt: skip
        if self.kind == "progressive":
            bands.progressive_scan(*where, np.array([band], bands.BAND))
        else:
            decode.sequential_scan(*where)
        error, begin, bits = (int(note[name][0]) for name in ("error", "interval", "bits"))
        if not error:
            return ""
        return f"{_WRONG[error]} at byte {_stuffed(data, begin, bits // 8)}"

    def _scan_header(self, body: bytes) -> tuple[list[int], tuple[int, int, int, int], list[tuple[int, int]]]:
        """Components, the band and the bits, numbers of DC and AC tables (T.81 B.2.3)."""
        assert self.frame is not None
        count = body[0] if body else 0
        if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
            raise ValueError(f"SOS has {len(body)} bytes of content, for {count} components")
        ids = [part.id for part in self.parts]
        named = list(body[1 : 1 + 2 * count : 2])
        if len({*named}) < count or not {*named} <= {*ids}:
            raise ValueError(f"SOS names the components {named} of {ids}")
        members = [ids.index(one) for one in named]
        blocks = sum(h * v for h, v in (self.frame.sampling[c] for c in members))
        if count > 1 and blocks > MAX_MCU_BLOCKS:
            raise ValueError(f"an MCU has {blocks} blocks, expected at most {MAX_MCU_BLOCKS}")
        selectors = [(one >> 4, one & 15) for one in body[2 : 2 + 2 * count : 2]]
        start, end, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        if self.kind != "progressive":
            if (start, end, high, low) != (0, 63, 0, 0):
                self._damaged(f"has a sequential scan of the band {start}..{end}, bits {high}, {low}")
            return members, (0, 63, 0, 0), selectors
        wrong_band = end != 0 if start == 0 else not start <= end <= 63 or count > 1
        if wrong_band or low > 10 or (high and low != high - 1):
            raise ValueError(f"SOS has the band {start}..{end}, bits {high}, {low} for {count} components")
        return members, (start, end, high, low), selectors

    def _note(self, members: list[int], start: int, end: int, high: int, low: int) -> None:
        """What the scan makes known."""
        for c in members:
            number = self.parts[c].table
            if c not in self.tables:
                if number not in self.quantization:
                    raise ValueError(f"quantization table {number} is missing")
                self.tables[c] = self.quantization[number]
                if 0 in self.tables[c]:
                    raise ValueError(f"quantization table {number} has a step of 0")
            known = self.known[c]
            if start and known[0] < 0:
                self._damaged("has a scan of AC before that of DC")
            count = end + 1 - start
            if known[start : end + 1] != [high or -1] * count:
                self._damaged("has a scan of what is known already, or not yet")
            known[start : end + 1] = [low] * count

    def _huffman(
        self, selector: tuple[int, int], start: int, end: int, high: int, low: int
    ) -> tuple[Lookup, Lookup]:
        """The DC and AC table of a component; where one is not used, the other stands in."""
        progressive = self.kind == "progressive"
        found = []
        if start == 0 and not high:
            found.append(self._table(selector[0], DC))
        if start or not progressive:
            kind = (AC_REFINE if high else AC_FIRST) if progressive else AC
            found.append(self._table(selector[1] | 0x10, kind))
        if not found:  # refining DC takes plain bits
            found.append(_NO_TABLE)
        return found[0], found[-1]

    def _table(self, number: int, kind: int) -> Lookup:
        if number not in self.huffman:
            raise ValueError(f"Huffman table {'AC' if number >> 4 else 'DC'} {number & 15} is missing")
        return lookup_table(self.huffman[number], kind)

    def source(self) -> Source:
        assert self.frame is not None
        for c in range(len(self.parts)):
            if self.known[c][0] < 0:
                self._damaged(f"has no scan of component {c + 1}")
                number = self.parts[c].table
                self.tables.setdefault(c, self.quantization.get(number, (1,) * 64))
        return Source(
            self.frame,
            self.planes.reshape(-1, 64),
            tuple(self.tables[c] for c in range(len(self.parts))),
            subsampling_name(self.parts),
            self._colour(),
            tuple(self.segments),
            self.interval,
            self.kind == "progressive",
            self.damaged,
        )

    def _colour(self) -> str:
        """As libjpeg decides it."""
        count = len(self.parts)
        if count == 1:
            return "gray"
        contents = [(segment[1], segment[4:]) for segment in self.segments]
        adobe = [body for marker, body in contents if marker == 0xEE and body.startswith(b"Adobe")]
        jfif = any(marker == 0xE0 and body.startswith(b"JFIF\0") for marker, body in contents)
        usual = "CMYK" if count == 4 else "YCbCr"
        if adobe and len(adobe[-1]) >= 12 and not (jfif and count == 3):
            return _COLOURS.get(adobe[-1][11], {}).get(count, usual)
        return "RGB" if count == 3 and not jfif and bytes(p.id for p in self.parts) == b"RGB" else usual


@lru_cache(maxsize=256)
def _frame(width: int, height: int, sampling: tuple[tuple[int, int], ...]) -> Frame:
    """Of which only the geometry counts; remembered, as folders have many pictures of one size."""
    return Frame(width, height, sampling, (0,) * len(sampling))


_NO_TABLE = Lookup(np.zeros(1, np.uint8), 0)


def bytes_array(data: bytes) -> np.ndarray:
    """The bytes in place."""
    return np.frombuffer(data, np.uint8)


def _stuffed(data: bytes, begin: int, count: int) -> int:
    """The byte at which `count` bytes from `begin` end, stuffing not counted."""
    end, before = begin + count, -1
    while end != before:
        before, end = end, begin + count + data.count(b"\xff\0", begin, end)
    return min(end, len(data))
