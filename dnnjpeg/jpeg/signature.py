"""Notes that dnnjpeg writes into files: a signature (APP9) with table and quality, and a comment."""

from functools import lru_cache

from dnnjpeg.checks import check_quality
from dnnjpeg.jpeg.markers import segment
from dnnjpeg.jpeg.segments import read_segments

SIGNATURE = b"dnnjpeg\0"
NOTE = b"dnnjpeg keeps "


def bare_comment(text: bytes) -> bytes:
    """A comment without the note of `encode_to_target`, which is not true for another file."""
    return b"\n".join(line for line in text.split(b"\n") if not line.startswith(NOTE))


@lru_cache(maxsize=64)
def signature_segment(name: str, quality: float) -> bytes:
    """APP9 with the name of the table and the quality of a file."""
    return segment(0xE9, SIGNATURE + f"{name} {quality:g}".encode())


def read_signature(body: bytes) -> tuple[str, float] | None:
    """Table name and quality from dnnjpeg's APP9 segment, or None if the segment is malformed."""
    try:
        name, _, quality = body[len(SIGNATURE) :].decode().rpartition(" ")
        return name, check_quality(float(quality))
    except ValueError:
        return None


def signature_of(data: bytes) -> tuple[str, float] | None:
    """The table's name and the quality in a file's signature. None if the file has none, or is no JPEG."""
    try:
        for name, _, body in read_segments(data):
            if name == "APP9" and body.startswith(SIGNATURE):
                return read_signature(body)
            if name == "SOS":
                return None
    except ValueError:
        return None
    return None
