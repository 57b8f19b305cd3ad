"""Notes that dnnjpeg writes into files: a signature (APP9) with table and quality, and a comment."""

from functools import lru_cache
from typing import NamedTuple

from dnnjpeg.checks import check_quality
from dnnjpeg.jpeg.markers import segment
from dnnjpeg.jpeg.segments import read_segments

SIGNATURE = b"dnnjpeg\0"
NOTE = b"dnnjpeg keeps "


def bare_comment(text: bytes) -> bytes:
    """A comment without the note of `encode_to_target`, which is not true for another file."""
    return b"\n".join(line for line in text.split(b"\n") if not line.startswith(NOTE))


class Signature(NamedTuple):
    """What made a file: the name of the table, the quality, and how the quality was adapted to the picture,
    as `adaptation` says it.
    """

    table: str
    quality: float
    adaptation: str = ""


def adaptation(adaptive: bool | str, quality: float) -> str:
    """The option `adaptive` and the quality on average, as "bits 75" or "read 75"; "" without the option."""
    return f"{'read' if adaptive == 'read' else 'bits'} {quality:g}" if adaptive else ""


@lru_cache(maxsize=64)
def signature_segment(name: str, quality: float, adapted: str = "") -> bytes:
    """APP9 with the parts of a `Signature`. No name holds a zero."""
    text = f"{name} {quality:g}" + (f"\0{adapted}" if adapted else "")
    return segment(0xE9, SIGNATURE + text.encode())


def read_signature(body: bytes) -> Signature | None:
    """The signature in dnnjpeg's APP9 segment, or None if the segment is malformed."""
    try:
        text, _, adapted = body[len(SIGNATURE) :].decode().partition("\0")
        name, _, quality = text.rpartition(" ")
        return Signature(name, check_quality(float(quality)), adapted)
    except ValueError:
        return None


def signature_of(data: bytes) -> Signature | None:
    """A file's signature. None if the file has none, or is no JPEG."""
    try:
        for name, _, body in read_segments(data):
            if name == "APP9" and body.startswith(SIGNATURE):
                return read_signature(body)
            if name == "SOS":
                return None
    except ValueError:
        return None
    return None
