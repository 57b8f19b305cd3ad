"""Metadata of transcoded files: what stays, what `strip` drops, and what says how colours are coded."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from transcoding import pixels, saved

from dnnjpeg import encode, inspect, read_coefficients, transcode
from dnnjpeg.jpeg.markers import segment


def test_metadata_stay_byte_by_byte(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    data = saved(photo, exif=exif, icc_profile=bytes(70_000), comment=b"a note", xmp=b"<x/>", dpi=(300, 300))
    data = data[:2] + b"\xff\xe7\0\5abc" + data[2:]
    for options in ({}, {"lossless": True}, {"progressive": True}):
        found = transcode(data, quality=60, **options)
        assert read_coefficients(found).segments[: len(read_coefficients(data).segments)] == (
            read_coefficients(data).segments
        )
        assert inspect(found).table == (None if options.get("lossless") else "universal")


def test_own_notes_are_renewed(photo: Image.Image) -> None:
    comment = b"a note\ndnnjpeg keeps top1 of x at quality 90"
    data = encode(photo, quality=90, comment=comment)
    found = inspect(transcode(data, quality=50))
    assert (found.quality, found.comment) == (50, "a note")
    assert inspect(transcode(data, quality=50, signature=False)).table is None
    assert inspect(transcode(data, lossless=True, only_if_smaller=False)).quality == 90


@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_strip(orientation: int | None, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    if orientation:
        exif[0x0112] = orientation
    profile = b"\0" * 128 + b"of another space"
    data = saved(photo, exif=exif, icc_profile=profile, comment=b"a note", xmp=b"<x/>", dpi=(300, 300))
    for options in ({}, {"lossless": True}):
        found = transcode(data, quality=60, strip=True, signature=False, **options)
        with Image.open(io.BytesIO(found)) as image:
            assert b"maker" not in found and b"note" not in found and b"<x/>" not in found
            assert image.getexif().get(0x0112, 1) == (orientation or 1)
            assert image.info["icc_profile"] == profile
            assert ImageOps.exif_transpose(image).size == (
                photo.size[::-1] if orientation == 6 else photo.size
            )
    srgb = saved(photo, icc_profile=b"sRGB IEC61966-2.1")
    assert "ICC" not in inspect(transcode(srgb, strip=True)).metadata
    rgb = transcode(saved(photo, keep_rgb=True, quality=80), quality=79, strip=True)
    assert read_coefficients(rgb).colour == "RGB"


def test_strip_never_grows(photo: Image.Image) -> None:
    """It may only take metadata away."""
    small = transcode(saved(photo, quality=30, comment=b"a note"), lossless=True)
    bare, dropped = transcode(small, quality=95, strip=True), (b"JFIF\0\1\1\0\0\1\0\1\0\0", b"a note")
    assert len(bare) == len(small) - sum(len(segment(0xFE, one)) for one in dropped)
    assert np.array_equal(pixels(bare), pixels(small))
    assert len(transcode(small, lossless=True, strip=True, restart_blocks=1)) < len(small)
    signed = encode(photo, quality=30, comment=b"a note")
    assert b"a note" not in transcode(signed, quality=95, strip=True)


@pytest.mark.parametrize(
    ("kind", "value", "behind"),
    [
        (3, struct.pack("<HH", 6, 0), b""),
        (5, struct.pack("<I", 26), struct.pack("<II", 6, 1)),
        (11, struct.pack("<f", 6), b""),
        (12, struct.pack("<I", 26), struct.pack("<d", 6)),
    ],
)
def test_orientations_of_any_type(kind: int, value: bytes, behind: bytes, photo: Image.Image) -> None:
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHI", 1, 0x0112, kind, 1) + value + bytes(4) + behind
    data = saved(photo)
    data = data[:2] + segment(0xE1, b"Exif\0\0" + tiff) + data[2:]
    found = Image.open(io.BytesIO(transcode(data, quality=60, strip=True)))
    assert ImageOps.exif_transpose(found).size == photo.size[::-1]


@pytest.mark.parametrize(
    "odd",
    [
        segment(0xEE, b"other"),
        segment(0xEE, b"Adobe\0\x64\0\0"),
        segment(0xE0, b"JFIF\0\1\1"),
        segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + segment(0xEE, b"Adobe\0\x64"),
    ],
)
def test_colours_are_told_as_libjpeg_reads_them(odd: bytes, photo: Image.Image) -> None:
    """Segments that are too short, or of others, say nothing."""
    data = saved(photo, keep_rgb=True)  # its components are named R, G and B
    assert data[2:4] == b"\xff\xee"
    data = data[:2] + odd + data[18:]
    for options in ({}, {"lossless": True}, {"strip": True}):
        found = transcode(data, quality=95, only_if_smaller=False, **options)
        assert np.abs(pixels(found).astype(int) - pixels(data)).mean() < 6


def test_strip_keeps_what_says_that_colours_are_no_rgb(photo: Image.Image) -> None:
    """Components may be named R, G and B all the same: JFIF says that they are YCbCr."""
    tight = transcode(saved(photo, quality=30), lossless=True)
    sof, sos = tight.index(b"\xff\xc0") if b"\xff\xc0" in tight else tight.index(b"\xff\xc2"), 0
    named = bytearray(tight)
    for i, letter in enumerate(b"RGB"):
        named[sof + 10 + 3 * i] = letter
    at = sof
    while (sos := named.find(b"\xff\xda", at)) >= 0:
        for i in range(named[sos + 4]):
            named[sos + 5 + 2 * i] = b"\0RGB"[named[sos + 5 + 2 * i]]
        at = sos + 2
    source = bytes(named)
    assert read_coefficients(source).colour == "YCbCr"
    assert np.array_equal(pixels(source), pixels(tight))
    for options in ({"lossless": True}, {"quality": 100}):
        assert np.array_equal(pixels(transcode(source, strip=True, **options)), pixels(tight))


def test_strip_of_what_is_salvaged(photo: Image.Image) -> None:
    whole = encode(photo, quality=90, progressive=True, comment=b"a note")
    cut = whole[: whole.rindex(b"\xff\xda") + 5]
    found = transcode(cut, quality=50, salvage=True, strip=True)
    assert b"a note" not in found and inspect(found).complete
