"""Marker segments (T.81 Annex B, JFIF, EXIF, XMP, ICC). Every function returns whole segments as bytes.

The result is empty if there is nothing to write.
"""

from collections.abc import Iterable
from functools import lru_cache

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
MAX_PAYLOAD = 65533
_ICC, _XMP, _EXIF = b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"

# zigzag position -> natural index, T.81 Figure A.6
NATURAL = (
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
)  # fmt: skip


def segment(marker: int, payload: bytes, what: str = "segment") -> bytes:
    """One marker segment. Raises ValueError when the payload exceeds 65,533 bytes."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"{what} is too long: {len(payload):,} bytes, expected at most {MAX_PAYLOAD:,}")
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def jfif(dpi: tuple[int, int] | None) -> bytes:
    """APP0 with the resolution in dots per inch, or with square pixels and no resolution."""
    unit, (x, y) = (1, dpi) if dpi else (0, (1, 1))
    return segment(
        0xE0, b"JFIF\0\x01\x01" + bytes([unit]) + x.to_bytes(2, "big") + y.to_bytes(2, "big") + b"\0\0"
    )


def exif(data: bytes) -> bytes:
    if not data:
        return b""
    return segment(0xE1, data if data.startswith(_EXIF) else _EXIF + data, "EXIF data")


def xmp(data: bytes) -> bytes:
    return segment(0xE1, _XMP + data, "XMP data") if data else b""


def icc(profile: bytes) -> bytes:
    """APP2 segments of at most 65,533 bytes, numbered from 1 (ICC.1 B.4)."""
    size = MAX_PAYLOAD - len(_ICC) - 2
    parts = [profile[i : i + size] for i in range(0, len(profile), size)]
    if len(parts) > 255:
        raise ValueError(f"ICC profile is too long: {len(profile):,} bytes, expected at most {255 * size:,}")
    return b"".join(segment(0xE2, _ICC + bytes((i, len(parts))) + part) for i, part in enumerate(parts, 1))


def comment(text: bytes) -> bytes:
    return segment(0xFE, text, "comment") if text else b""


def adobe() -> bytes:
    """APP14 that tells decoders: three components are RGB, four are inverted CMYK."""
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")


def orientation(number: int) -> bytes:
    """EXIF that holds only the orientation 1..8."""
    return exif(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([number]) + bytes(6))


@lru_cache(maxsize=64)
def dqt(tables: tuple[tuple[int, ...], ...]) -> bytes:
    """All quantization tables (natural order) in one segment, with 16-bit steps if one is above 255."""
    parts = []
    for i, table in enumerate(tables):
        wide = max(table) > 255
        parts.append(bytes([wide << 4 | i]) + b"".join(table[k].to_bytes(1 + wide, "big") for k in NATURAL))
    return segment(0xDB, b"".join(parts))


def sof(kind: int, width: int, height: int, components: Iterable[tuple[int, int, int]]) -> bytes:
    """Frame header SOFn for 8-bit samples.

    kind: n, 0 for baseline, 1 for extended sequential, 2 for progressive.
    components: horizontal and vertical sampling factor, and number of the quantization table, of each
        component.
    """
    specs = b"".join(bytes((i, h << 4 | v, table)) for i, (h, v, table) in enumerate(components, 1))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return segment(0xC0 + kind, b"\x08" + size + bytes([len(specs) // 3]) + specs)


def dht(payload: bytes) -> bytes:
    """All Huffman tables in one segment."""
    return segment(0xC4, payload) if payload else b""


def dri(interval: int) -> bytes:
    return segment(0xDD, interval.to_bytes(2, "big")) if interval else b""


def sos(components: tuple[tuple[int, int, int], ...], band: tuple[int, int], bits: tuple[int, int]) -> bytes:
    """Scan header.

    components: number (from 0), DC table and AC table of each component.
    band: Ss and Se. bits: Ah and Al.
    """
    specs = b"".join(bytes((c + 1, dc << 4 | ac)) for c, dc, ac in components)
    return segment(0xDA, bytes([len(specs) // 2]) + specs + bytes((*band, bits[0] << 4 | bits[1])))
