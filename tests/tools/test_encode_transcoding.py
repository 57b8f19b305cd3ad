"""`dnnjpeg encode` of JPEG files: from their own coefficients, unless told otherwise."""

import io
import json

import numpy as np
import pytest
from encoding import encode
from PIL import Image

from dnnjpeg import encode as encode_pixels
from dnnjpeg import read_coefficients, transcode


@pytest.fixture
def source(photo, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    photo.save(folder / "a.jpg", quality=95, comment=b"a note")
    photo.save(folder / "b.png")
    photo.convert("L").save(folder / "c.jpg", quality=90, progressive=True)
    return folder


def test_files_are_those_of_transcode(source, out):
    result = encode(source, "-o", out, "--quality", 50, "--progressive-auto")
    assert result.stdout.startswith("3 encoded, 0 failed")
    assert "JPEG sources: 2 from their own coefficients" in result.stdout
    for name in ("a.jpg", "c.jpg"):
        expected = transcode((source / name).read_bytes(), quality=50, progressive="auto")
        assert (out / name).read_bytes() == expected
    assert json.loads(encode(source, "-o", out, "--json").stdout)["transcoded"] == 2


def test_pixels_are_the_old_way(source, out):
    result = encode(source, "-o", out, "--pixels")
    assert "coefficients" not in result.stdout
    with Image.open(source / "a.jpg") as image:
        assert (out / "a.jpg").read_bytes() == encode_pixels(image, comment=b"a note")


def test_no_file_becomes_larger(source, out):
    assert encode(source / "a.jpg", "-o", out, "--quality", 5).exit_code == 0
    small = out / "a.jpg"
    before = small.read_bytes()
    result = encode(small, "--in-place", "--quality", 90)
    assert len(small.read_bytes()) <= len(before)
    once = small.read_bytes()
    result = encode(small, "--in-place", "--quality", 90)
    assert result.stdout.startswith("0 encoded, 1 left as they were, 0 failed")
    assert "1 left as they were: the new file would not be smaller, or the same table" in result.stdout
    assert "coefficients" not in result.stdout
    assert small.read_bytes() == once


def test_strip_turns_pixels_where_it_must(source, out, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(source / "turned.jpg", exif=exif, quality=95)
    result = encode(source, "-o", out, "--strip")
    assert "JPEG sources: 2 from their own coefficients" in result.stdout
    with Image.open(out / "turned.jpg") as image:
        assert image.size == photo.size[::-1] and not image.getexif()
    assert b"a note" not in (out / "a.jpg").read_bytes()


def test_damage_is_refused_or_salvaged(source, out):
    data = (source / "a.jpg").read_bytes()
    (source / "a.jpg").write_bytes(data[: len(data) // 2])
    result = encode(source, "-o", out)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{source / 'a.jpg'}: the file has")
    assert "at byte" in result.stderr
    result = encode(source, "-o", out, "--salvage")
    assert result.exit_code == 0
    with Image.open(out / "a.jpg") as image:
        assert np.asarray(image).shape == (120, 160, 3)
    assert encode(source, "-o", out, "--salvage", "--pixels").exit_code == 2


def test_what_is_not_read_goes_by_pixels(out, tmp_path, photo):
    """Several pictures in one file, for instance."""
    buffer = io.BytesIO()
    photo.save(buffer, "MPO", save_all=True, append_images=[photo.rotate(180)], quality=95)
    (tmp_path / "two.jpg").write_bytes(buffer.getvalue())
    result = encode(tmp_path / "two.jpg", "-o", out)
    assert result.stdout.startswith("1 encoded, 0 failed") and "coefficients" not in result.stdout


def test_a_limit_is_met_by_requantizing(source, out):
    size = (source / "a.jpg").stat().st_size // 3
    result = encode(source, "-o", out, "--target-bytes", size)
    assert result.exit_code == 0
    assert all((out / name).stat().st_size <= size for name in ("a.jpg", "b.jpg", "c.jpg"))
    found = read_coefficients((out / "a.jpg").read_bytes())
    before = read_coefficients((source / "a.jpg").read_bytes())
    assert np.abs(
        found.planes[0] * np.array(found.tables[0]) - before.planes[0] * np.array(before.tables[0])
    ).max() <= (max(found.tables[0]) / 2)


def test_adapted_files_are_told_as_such(source, out):
    """A second run leaves them as they are, and another quality on average does not."""
    encode(source, "-o", out, "--quality", 90)
    for quality in (70, 40):
        again = [encode(out, "--in-place", "--adaptive", "--quality", quality) for _ in range(2)]
        assert [f"quality {quality} on average" in one.stdout for one in again] == [True, True]
        assert [one.stdout.startswith("0 encoded, 3 left as they were") for one in again] == [False, True]
