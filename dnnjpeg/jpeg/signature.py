"""What dnnjpeg writes about itself: a signature in APP9 with table and quality, and a note in the comment."""

from dnnjpeg.checks import check_quality
from dnnjpeg.jpeg.markers import segment
from dnnjpeg.jpeg.segments import read_segments

SIGNATURE = b"dnnjpeg\0"
NOTE = b"dnnjpeg keeps "


def bare_comment(text: bytes) -> bytes:
    """A comment without what encoding to a target has added: it is not true of another file."""
    return b"\n".join(line for line in text.split(b"\n") if not line.startswith(NOTE))


def signature_segment(name: str, quality: float) -> bytes:
    """APP9 that names the table and the quality a picture was encoded with."""
    return segment(0xE9, SIGNATURE + f"{name} {quality:g}".encode())


def read_signature(body: bytes) -> tuple[str, float] | None:
    """Table name and quality out of dnnjpeg's APP9 segment; None where it is not well formed."""
    try:
        name, _, quality = body[len(SIGNATURE) :].decode().rpartition(" ")
        return name, check_quality(float(quality))
    except ValueError:
        return None


def signature_of(data: bytes) -> tuple[str, float] | None:
    """Table name and quality that a JPEG file names; None for a file that names none, or is no JPEG."""
    try:
        for name, _, body in read_segments(data):
            if name == "APP9" and body.startswith(SIGNATURE):
                return read_signature(body)
            if name == "SOS":
                return None
    except ValueError:
        return None
    return None
