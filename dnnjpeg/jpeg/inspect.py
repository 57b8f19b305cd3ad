"""What a JPEG file is made of, read from its segments (T.81 Annex B) without decoding."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from dnnjpeg.checks import check_quality
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, Steps, nearest_quality
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

KINDS = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC9: "extended sequential, arithmetic",
    0xCA: "progressive, arithmetic",
    0xCB: "lossless, arithmetic",
}
_NAMES = (
    {kind: f"SOF{kind - 0xC0}" for kind in KINDS}
    | {0xC4: "DHT", 0xCC: "DAC", 0xD9: "EOI", 0xDA: "SOS", 0xDB: "DQT", 0xDC: "DNL", 0xDD: "DRI", 0xFE: "COM"}
    | {0xE0 + i: f"APP{i}" for i in range(16)}
)
_METADATA = {
    "JFIF": ("APP0", b"JFIF\0"),
    "EXIF": ("APP1", b"Exif\0"),
    "XMP": ("APP1", b"http://ns.adobe.com/xap/1.0/\0"),
    "ICC": ("APP2", b"ICC_PROFILE\0"),
    "MPF": ("APP2", b"MPF\0"),
    "IPTC": ("APP13", b"Photoshop 3.0\0"),
    "Adobe": ("APP14", b"Adobe"),
}
_SIGNATURE = b"dnnjpeg\0"
# What is no marker (stuffing, TEM, restarts, fill) is passed over. Inside a scan only the markers that may
# follow one count: any other is damage, and stays with the scan, as it does in a decoder.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff(?:[\xc4\xcc\xd9-\xdb\xe0-\xef\xfe]|[\xdc\xdd]\x00\x04)")
# Zigzag order (T.81 Figure A.6) walks the diagonals, up and down by turns; _RANK is where on that walk each
# coefficient of natural order stands.
_WALK = sorted(range(64), key=lambda i: (i // 8 + i % 8, i % 8 if (i // 8 + i % 8) % 2 == 0 else i // 8))
_RANK = sorted(range(64), key=_WALK.__getitem__)


@dataclass(frozen=True)
class Component:
    """A component of the frame: its id, sampling factors 1..4 and the number of its quantization table."""

    id: int
    horizontal: int
    vertical: int
    table: int


@dataclass(frozen=True)
class Likeness:
    """The quality 1..100 at which libjpeg's standard table comes closest, and whether it is equal."""

    quality: int
    exact: bool


@dataclass(frozen=True)
class Inspection:
    """What `inspect` finds.

    kind: how the frame is coded, as "baseline" or "progressive"; "tables only" for an abbreviated stream
        (T.81 B.5), which has no frame: width, height and precision are then 0.
    subsampling: a name of SUBSAMPLINGS, "4:0:0" for a single component, else the factors, as "4x2,1x1,1x1".
    quantization: steps in natural order by table number; missing where the stream leaves its tables out.
    huffman_tables: how many are defined. restart_interval: in MCUs, 0 for none.
    segments: bytes by marker name, in order of appearance, markers and lengths included; "scan" is
        entropy-coded data, "stray" what belongs to nothing, "trailing" what follows EOI. They add up to the
        length of the data.
    metadata: which of JFIF, EXIF, XMP, ICC, MPF, IPTC, Adobe there are.
    table, quality: what dnnjpeg's own signature names, else None. comment: the text of the first COM segment.
    luma, chroma: the standard quality that the tables of the first, and of the other, components resemble
        most; None where there are none (chroma: none of their own).
    complete: False where EOI is missing, as in a file cut short.
    """

    kind: str
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]
    subsampling: str
    quantization: dict[int, Steps]
    huffman_tables: int
    restart_interval: int
    scans: int
    segments: dict[str, int]
    metadata: tuple[str, ...]
    table: str | None
    quality: float | None
    comment: str | None
    luma: Likeness | None
    chroma: Likeness | None
    complete: bool

    @property
    def made_by(self) -> str:
        """dnnjpeg's signature, else the comment, else "unknown"."""
        return f"dnnjpeg {self.table} {self.quality}" if self.table is not None else self.comment or "unknown"

    @property
    def scan_bytes(self) -> int:
        """Bytes of entropy-coded data, stuffing and restart markers included."""
        return self.segments.get("scan", 0)

    @property
    def trailing_bytes(self) -> int:
        """Bytes after EOI."""
        return self.segments.get("trailing", 0)

    @property
    def header_bytes(self) -> int:
        """All bytes that are neither entropy-coded nor trailing."""
        return sum(self.segments.values()) - self.scan_bytes - self.trailing_bytes

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        sizes = {name: getattr(self, name) for name in ("header_bytes", "scan_bytes", "trailing_bytes")}
        return {"made_by": self.made_by, **asdict(self), **sizes}


def inspect(data: bytes) -> Inspection:
    """The structure of any JPEG file, abbreviated streams included.

    Raises ValueError, in one line, for what is not a JPEG, breaks off before its scan, or breaks the syntax;
    TypeError for a path, say, in place of bytes.
    """
    try:
        data = data if isinstance(data, bytes) else bytes(memoryview(data))
    except TypeError:
        raise TypeError(
            f"data is a {type(data).__name__}, expected the bytes of a file, as Path.read_bytes() gives them"
        ) from None
    quantization: dict[int, Steps] = {}
    segments: dict[str, int] = {}
    metadata: list[str] = []
    signature = comment = None
    kind, precision, width, height = "tables only", 0, 0, 0
    components: tuple[Component, ...] = ()
    huffman_tables = restart_interval = scans = 0
    for name, size, body in read_segments(data):
        segments[name] = segments.get(name, 0) + size
        metadata += [
            key for key, (marker, start) in _METADATA.items() if name == marker and body.startswith(start)
        ]
        if name.startswith("SOF"):
            if components:
                raise ValueError(f"a second frame header ({name})")
            kind = KINDS[0xC0 + int(name[3:])]
            precision, height, width, components = read_frame(body)
        elif name == "SOS":
            if not components:
                raise ValueError("a scan before the frame header")
            scans += 1
        elif name == "DQT":
            quantization |= read_quantization(body)
        elif name == "DHT":
            huffman_tables += len(read_huffman(body))
        elif name == "DRI":
            restart_interval = int.from_bytes(_exactly(2, name, body))
        elif name == "DNL":
            height = height or int.from_bytes(_exactly(2, name, body))
        elif name == "COM":
            comment = comment or _text(body)
        elif name == "APP9" and body.startswith(_SIGNATURE):
            signature = signature or _signature(body)
    if components and not scans:
        raise ValueError("no scan (SOS): the file breaks off or has no picture")
    if not components and "EOI" not in segments:
        raise ValueError("no frame header (SOF) and no end (EOI): the file breaks off")
    if components and not (width and height):
        raise ValueError(f"the picture is {width}x{height}")
    table, quality = signature or (None, None)
    luma, chroma = _likenesses(components, quantization)
    return Inspection(
        kind=kind,
        precision=precision,
        width=width,
        height=height,
        components=components,
        subsampling=subsampling_name(components),
        quantization=quantization,
        huffman_tables=huffman_tables,
        restart_interval=restart_interval,
        scans=scans,
        segments=segments,
        metadata=tuple(dict.fromkeys(metadata)),
        table=table,
        quality=quality,
        comment=comment,
        luma=luma,
        chroma=chroma,
        complete="EOI" in segments,
    )


def read_segments(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, bytes it takes, content) of all that is in the file, in order; fill bytes are their marker's."""
    if not data.startswith(b"\xff\xd8"):
        raise ValueError(f"not a JPEG: it starts with {data[:4].hex(' ') or 'nothing'}, expected ff d8")
    yield "SOI", 2, b""
    start = 2
    while match := _MARKER.search(data, start):
        stray = len(data[start : match.start()].rstrip(b"\xff"))
        if stray:
            yield "stray", stray, b""
            start += stray
        marker, where, begin = data[match.end() - 1], match.start(), match.end()
        if marker not in _NAMES:
            raise ValueError(f"unexpected marker ff{marker:02x} at byte {where}")
        name = _NAMES[marker]
        if name == "EOI":
            yield name, begin - start, b""
            if begin < len(data):
                yield "trailing", len(data) - begin, b""
            return
        length = int.from_bytes(data[begin : begin + 2])
        end = begin + length
        if length < 2 or end > len(data):
            left = len(data) - begin
            raise ValueError(f"{name} at byte {where} says that it has {length} bytes, {left} are left")
        yield name, end - start, data[begin + 2 : end]
        start = end
        if name == "SOS":
            scan = len(data[start : _scan_end(data, start)].rstrip(b"\xff"))
            yield "scan", scan, b""
            start += scan
    if start < len(data):
        yield "stray", len(data) - start, b""


def _scan_end(data: bytes, start: int) -> int:
    """Where a marker follows the scan, or the data end. To look from one ff to the next is faster than a
    search by the pattern.
    """
    at = data.find(b"\xff", start)
    while at >= 0 and (data.startswith(b"\0", at + 1) or not _MARKER_AFTER_SCAN.match(data, at)):
        at = data.find(b"\xff", at + 1)
    return at if at >= 0 else len(data)


def _exactly(size: int, name: str, body: bytes) -> bytes:
    if len(body) != size:
        raise ValueError(f"{name} has {len(body)} bytes of content, expected {size}")
    return body


def read_frame(body: bytes) -> tuple[int, int, int, tuple[Component, ...]]:
    """Precision, height, width and components of a SOF segment (T.81 B.2.2)."""
    count = body[5] if len(body) > 5 else 0
    if not count or len(body) != 6 + 3 * count:
        raise ValueError(f"SOF has {len(body)} bytes of content, for {count} components")
    components = tuple(
        Component(body[i], body[i + 1] >> 4, body[i + 1] & 15, body[i + 2]) for i in range(6, len(body), 3)
    )
    for one in components:
        if not (1 <= one.horizontal <= 4 and 1 <= one.vertical <= 4):
            raise ValueError(
                f"component {one.id} has sampling {one.horizontal}x{one.vertical}, expected 1..4"
            )
    return body[0], int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), components


@lru_cache(maxsize=64)
def read_quantization(body: bytes) -> dict[int, Steps]:
    """The tables of a DQT segment (T.81 B.2.4.1) by number, in natural order."""
    tables = {}
    start = 0
    while start < len(body):
        wide, number = body[start] >> 4, body[start] & 15
        end = start + 1 + (128 if wide else 64)
        if wide > 1 or number > 3 or end > len(body):
            raise ValueError(f"DQT: table {number} of precision {wide} in {len(body) - start} bytes")
        values = body[start + 1 : end]
        zigzag = [int.from_bytes(values[i : i + 2]) for i in range(0, 128, 2)] if wide else values
        tables[number] = tuple(zigzag[i] for i in _RANK)
        start = end
    return tables


def read_huffman(body: bytes) -> list[tuple[int, bytes, bytes]]:
    """The tables of a DHT segment (T.81 B.2.4.2): class << 4 | number, codes by length, symbols."""
    tables = []
    start = 0
    while start < len(body):
        lengths = body[start + 1 : start + 17]
        count = sum(lengths)
        end = start + 17 + count
        if body[start] >> 4 > 1 or body[start] & 15 > 3 or count > 256 or end > len(body):
            raise ValueError(
                f"DHT: table {body[start]:02x} with {count} symbols in {len(body) - start} bytes"
            )
        tables.append((body[start], lengths, body[start + 17 : end]))
        start = end
    return tables


def _text(body: bytes) -> str:
    try:
        return body.decode().strip(" \0\r\n\t")
    except UnicodeDecodeError:
        return body.decode("latin-1").strip(" \0\r\n\t")


def _signature(body: bytes) -> tuple[str, float] | None:
    """Table name and quality out of dnnjpeg's APP9 segment; None where it is not well formed."""
    try:
        name, _, quality = body[len(_SIGNATURE) :].decode().rpartition(" ")
        return name, check_quality(float(quality))
    except ValueError:
        return None


def subsampling_name(components: tuple[Component, ...]) -> str:
    if len(components) <= 1:
        return "4:0:0" if components else ""
    factors = [(one.horizontal, one.vertical) for one in components]
    (h, v), chroma, *_ = factors
    # The black of CMYK is sampled as the luma; what counts is the ratio, so that 2x2,2x2,2x2 is 4:4:4.
    if len(factors) in (3, 4) and factors == [(h, v), chroma, chroma, (h, v)][: len(factors)]:
        for name, ((across, down), *_) in SUBSAMPLINGS.items():
            if (h, v) == (across * chroma[0], down * chroma[1]):
                return name
    return ",".join(f"{h}x{v}" for h, v in factors)


def _likenesses(
    components: tuple[Component, ...], quantization: dict[int, Steps]
) -> tuple[Likeness | None, Likeness | None]:
    """Of the first component's table, and of the others that the next two components have to themselves."""
    first, *others = dict.fromkeys(one.table for one in components[:3]) or (0, 1)
    luma = chroma = None
    if first in quantization:
        luma = Likeness(*nearest_quality(quantization[first], STANDARD_LUMA))
    tables = [quantization[number] for number in others if number in quantization]
    if tables:
        near = luma.quality if luma else 100
        chroma = Likeness(*nearest_quality(sum(tables, ()), STANDARD_CHROMA * len(tables), near))
    return luma, chroma
