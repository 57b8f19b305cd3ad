"""The metadata that the Pillow plugin writes, against Pillow's own."""

from typing import Any

import pytest
from PIL import Image
from saving import refused, save, save_and_open, segments


def test_exif(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a picture"
    raw = exif.tobytes()
    for value in (exif, raw, raw.removeprefix(b"Exif\0\0")):
        opened = save_and_open(photo, exif=value)
        assert dict(opened.getexif()) == {0x0112: 6, 0x010E: "a picture"}
        assert opened.info["exif"] == raw
    assert "exif" not in save_and_open(photo).info


def test_xmp_and_icc_profile(photo: Image.Image) -> None:
    profile = bytes(range(256)) * 800  # four segments
    ours, theirs = (save_and_open(photo, f, xmp=b"<x/>", icc_profile=profile) for f in ("DNNJPEG", "JPEG"))
    for name in ("xmp", "icc_profile"):
        assert ours.info[name] == theirs.info[name]
    assert ours.info["icc_profile"] == profile


def test_comment(photo: Image.Image) -> None:
    assert save_and_open(photo, comment=b"a note").info["comment"] == b"a note"
    assert save_and_open(photo, comment="häßlich").info["comment"] == "häßlich".encode()
    photo.info["comment"] = b"from the source"
    assert save_and_open(photo).info["comment"] == b"from the source"
    assert save_and_open(photo, comment=b"other").info["comment"] == b"other"
    for nothing in (None, b"", ""):
        assert "comment" not in save_and_open(photo, comment=nothing).info


def test_only_the_comment_is_taken_from_info(photo: Image.Image) -> None:
    photo.info |= {
        "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0",
        "icc_profile": b"icc",
        "xmp": b"<x/>",
        "dpi": (9, 9),
    }
    for name in ("exif", "icc_profile", "xmp", "dpi"):
        assert name not in save_and_open(photo).info
        assert name not in save_and_open(photo, "JPEG").info


@pytest.mark.parametrize("dpi", [(72, 72), (300, 150), (72.6, 72.4), (65535, 1), [96, 96]])
def test_dpi(photo: Image.Image, dpi: Any) -> None:
    ours, theirs = (save_and_open(photo, f, dpi=dpi) for f in ("DNNJPEG", "JPEG"))
    assert ours.info["dpi"] == theirs.info["dpi"]


def test_no_dpi(photo: Image.Image) -> None:
    for options in ({}, {"dpi": (0, 0)}, {"dpi": None}):
        assert "dpi" not in save_and_open(photo, **options).info


@pytest.mark.parametrize("dpi", [(70000, 70000), (-1, -1), (0, 72), (72,), (1, 2, 3)])
def test_bad_dpi(photo: Image.Image, dpi: Any) -> None:
    refused(photo, ValueError, "dpi", dpi=dpi)


@pytest.mark.parametrize(
    ("name", "most"),
    [("exif", 65533 - 6), ("xmp", 65533 - 29), ("comment", 65533), ("icc_profile", 255 * 65519)],
)
def test_metadata_as_long_as_a_file_can_hold(photo: Image.Image, name: str, most: int) -> None:
    small = photo.resize((8, 8))
    assert save_and_open(small, **{name: bytes(most)}).size == (8, 8)
    refused(small, ValueError, None, **{name: bytes(most + 1)})


@pytest.mark.parametrize("name", ["exif", "xmp", "icc_profile"])
def test_metadata_is_bytes(photo: Image.Image, name: str) -> None:
    refused(photo, TypeError, None, **{name: "text"})


def test_segments_of_our_own(photo: Image.Image) -> None:
    def has(marker: int, **options: Any) -> bool:
        return marker in dict(segments(save(photo, **options)))

    assert has(0xE9)
    assert not has(0xE9, signature=False)
    assert not has(0xE0)
    assert has(0xE0, jfif=True)
    assert has(0xE0, dpi=(72, 72))
