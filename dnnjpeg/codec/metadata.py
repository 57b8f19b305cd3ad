"""Segments of metadata that go from one file into another (APPn and COM)."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from PIL import Image

from dnnjpeg.files.images import SRGB
from dnnjpeg.jpeg import markers
from dnnjpeg.jpeg.signature import SIGNATURE, bare_comment

ORIENTATION = 0x0112


def kept_segments(segments: Sequence[bytes], colour: str, strip: bool, signed: bool) -> list[bytes]:
    """The segments of metadata that a new file takes over from its source.

    segments: the APPn and COM segments of the source.
    colour: of its components: "gray", "YCbCr", "RGB", "CMYK" or "YCCK".
    strip: keep only what changes how the picture looks: the orientation, an ICC profile other than sRGB, and
        Adobe's segment.
    signed: keep dnnjpeg's signature and notes, too. They are true of the same coefficients only.
    """
    kept = _looks(segments, colour) if strip else list(segments)
    if not signed:
        kept = [other for one in kept for other in _unsigned(one)]
    if colour == "RGB" and not adobe_segments(kept):
        kept.append(markers.adobe())  # the components' names, which said so, are gone
    return kept


def orientation_of(segments: Sequence[bytes]) -> int:
    """The EXIF orientation, 1..8. It is 1 if the segments have none."""
    return next(_orientations(segments), 1)


def adobe_segments(segments: Sequence[bytes]) -> list[bytes]:
    """Adobe's, which say how colours are coded. As in libjpeg, shorter ones do not count."""
    return [one for one in _named(segments, 0xEE, b"Adobe") if len(one) >= 4 + 12]


def _looks(segments: Sequence[bytes], colour: str) -> list[bytes]:
    adobe = [] if colour in ("gray", "YCbCr") else adobe_segments(segments)
    profile = _named(segments, 0xE2, b"ICC_PROFILE\0")
    is_usual = any(name in b"".join(profile) for name in SRGB)
    turned = [markers.orientation(n) for n in _orientations(segments) if n > 1]
    return [*turned[:1], *([] if is_usual else profile), *adobe]


def _named(segments: Sequence[bytes], marker: int, start: bytes) -> list[bytes]:
    return [one for one in segments if one[1] == marker and one[4:].startswith(start)]


def _orientations(segments: Sequence[bytes]) -> Iterator[int]:
    for one in _named(segments, 0xE1, b"Exif\0"):
        exif = Image.Exif()
        with suppress(Exception):  # what cannot be read turns no picture
            exif.load(one[4:])
            value = exif[ORIENTATION]  # of any type
            yield from (n for n in range(1, 9) if n == value)


def _unsigned(segment: bytes) -> list[bytes]:
    """A segment of metadata, unless it is of dnnjpeg's own making."""
    marker, body = segment[1], segment[4:]
    if marker == 0xE9 and body.startswith(SIGNATURE):
        return []
    if marker == 0xFE and bare_comment(body) != body:
        return [other] if (other := markers.comment(bare_comment(body))) else []
    return [segment]
