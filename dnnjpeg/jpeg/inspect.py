"""The structure of a JPEG file, read from its segments (T.81 Annex B) without decoding."""

from dataclasses import asdict, dataclass
from typing import Any

from dnnjpeg.jpeg.segments import (
    KINDS,
    Component,
    exactly,
    read_frame,
    read_huffman,
    read_quantization,
    read_segments,
)
from dnnjpeg.jpeg.signature import SIGNATURE, read_signature
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, Steps, nearest_quality
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

_METADATA = {
    "JFIF": ("APP0", b"JFIF\0"),
    "EXIF": ("APP1", b"Exif\0"),
    "XMP": ("APP1", b"http://ns.adobe.com/xap/1.0/\0"),
    "ICC": ("APP2", b"ICC_PROFILE\0"),
    "MPF": ("APP2", b"MPF\0"),
    "IPTC": ("APP13", b"Photoshop 3.0\0"),
    "Adobe": ("APP14", b"Adobe"),
}


@dataclass(frozen=True)
class Likeness:
    """The quality 1..100 of libjpeg's most similar standard table, and whether this table is equal."""

    quality: int
    exact: bool


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.

    kind: coding of the frame, for example "baseline" or "progressive". "tables only" is an abbreviated stream
        (T.81 B.5). It has no frame, so width, height and precision are 0.
    subsampling: a key of SUBSAMPLINGS; "4:0:0" for a single component; otherwise the factors, for example
        "4x2,1x1,1x1".
    quantization: steps in natural order by table number. Empty if the stream has no tables.
    huffman_tables: number of Huffman tables.
    restart_interval: in MCUs, 0 for none.
    segments: bytes by marker name, in order of appearance, with markers and lengths. "scan" is entropy-coded
        data, "stray" belongs to no segment, "trailing" follows EOI. The sum is the length of the data.
    metadata: those of JFIF, EXIF, XMP, ICC, MPF, IPTC and Adobe that the file has.
    table, quality: from dnnjpeg's own signature, else None.
    comment: text of the first COM segment.
    luma, chroma: the most similar standard tables of the first component, and of the others. None if there is
        no table; chroma is also None if it shares the table of luma.
    complete: False if EOI is missing, for example because the file was cut off.
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
        """The inspection as a JSON object."""
        sizes = {name: getattr(self, name) for name in ("header_bytes", "scan_bytes", "trailing_bytes")}
        return {"made_by": self.made_by, **asdict(self), **sizes}


def inspect(data: bytes) -> Inspection:
    """Read the structure of a JPEG file, or of an abbreviated stream.

    data: the bytes of the file.

    Raises ValueError if data is not a JPEG, ends before its scan, or violates the syntax. Raises TypeError if
    data is not bytes, for example a path.
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
            restart_interval = int.from_bytes(exactly(2, name, body))
        elif name == "DNL":
            height = height or int.from_bytes(exactly(2, name, body))
        elif name == "COM":
            comment = comment or _text(body)
        elif name == "APP9" and body.startswith(SIGNATURE):
            signature = signature or read_signature(body)
    if components and not scans:
        raise ValueError("no scan (SOS): the file breaks off or has no picture")
    if not components and "EOI" not in segments:
        raise ValueError("no frame header (SOF) and no end (EOI): the file breaks off")
    if components and not (width and height):
        raise ValueError(f"the picture is {width}x{height}")
    table, quality, _ = signature or (None, None, "")
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


def _text(body: bytes) -> str:
    try:
        return body.decode().strip(" \0\r\n\t")
    except UnicodeDecodeError:
        return body.decode("latin-1").strip(" \0\r\n\t")


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
    """The likeness of the first component's table, and of the next two components' own table, if any."""
    first, *others = dict.fromkeys(one.table for one in components[:3]) or (0, 1)
    luma = chroma = None
    if first in quantization:
        luma = Likeness(*nearest_quality(quantization[first], STANDARD_LUMA))
    tables = [quantization[number] for number in others if number in quantization]
    if tables:
        near = luma.quality if luma else 100
        chroma = Likeness(*nearest_quality(sum(tables, ()), STANDARD_CHROMA * len(tables), near))
    return luma, chroma
