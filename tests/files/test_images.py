"""Pictures are read as JPEG can hold them: right, or refused with the reason."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from dnnjpeg.files.images import open_picture


def saved(image: Image.Image, format: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer


def tiff(width: int, height: int, bits: int, photometric: int, data: bytes) -> io.BytesIO:
    """A grey TIFF, little-endian, one strip."""
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return io.BytesIO(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


def pixels(source, **options) -> np.ndarray:
    return np.asarray(open_picture(source, **options).image)


# --- pixels


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "BMP"])
def test_plain_modes_pass_unchanged(photo, mode, format):
    image = photo.convert(mode)
    picture = open_picture(saved(image, format))
    assert (picture.image.mode, picture.format, picture.lone) == (mode, format, True)
    assert np.array_equal(np.asarray(picture.image), np.asarray(image))


def test_path_and_text_path(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(pixels(source), np.asarray(photo))


def test_palette_becomes_rgb(photo):
    image = photo.quantize(50)
    for format in ("PNG", "GIF", "BMP"):
        picture = open_picture(saved(image, format))
        assert picture.image.mode == "RGB"
        assert np.array_equal(np.asarray(picture.image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped(photo, mode):
    image = photo.convert(mode[:-1])
    source = saved(image.convert(mode), "PNG")
    picture = open_picture(source)
    assert picture.image.mode == mode[:-1]
    assert np.array_equal(np.asarray(picture.image), np.asarray(image))
    assert np.array_equal(pixels(source, background=(1, 2, 3)), np.asarray(image))


def test_unused_transparent_colour_is_dropped(photo):
    image = photo.quantize(50)
    source = saved(image, "PNG", transparency=200)
    assert np.array_equal(pixels(source), np.asarray(image.convert("RGB")))


def transparent(photo: Image.Image) -> dict[str, io.BytesIO]:
    alpha = Image.linear_gradient("L").resize(photo.size)
    rgba, la = photo.copy(), photo.convert("L")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    grey = photo.convert("L")
    return {
        "RGBA": saved(rgba, "PNG"),
        "LA": saved(la, "PNG"),
        "WebP": saved(rgba, "WEBP", lossless=True),
        "TIFF": saved(rgba, "TIFF"),
        "palette": saved(photo.quantize(50), "PNG", transparency=3),
        "palette alphas": saved(photo.quantize(50), "PNG", transparency=bytes(range(50))),
        "GIF": saved(photo.quantize(50), "GIF", transparency=3),
        "one grey": saved(grey, "PNG", transparency=grey.getpixel((3, 3))),
        "one colour": saved(photo, "PNG", transparency=photo.getpixel((3, 3))),
    }


KINDS = ["RGBA", "LA", "WebP", "TIFF", "palette", "palette alphas", "GIF", "one grey", "one colour"]


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_refused_without_background(photo, kind):
    with pytest.raises(ValueError, match="background"):
        open_picture(transparent(photo)[kind])


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_put_on_the_background(photo, kind, background):
    source = transparent(photo)[kind]
    rgba = np.asarray(Image.open(source).convert("RGBA")).astype(float)
    colour, alpha = rgba[..., :3], rgba[..., 3:] / 255
    expected = colour * alpha + np.array(background) * (1 - alpha)
    picture = open_picture(source, background=background)
    grey = kind in ("LA", "one grey") and len(set(background)) == 1
    assert picture.image.mode == ("L" if grey else "RGB")
    assert np.abs(np.asarray(picture.image.convert("RGB")) - expected).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_grey_is_scaled_exactly(format):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    picture = open_picture(saved(Image.fromarray(values), format))
    assert picture.image.mode == "L"
    assert np.array_equal(np.asarray(picture.image), np.rint(values / 257))


def test_pgm_is_scaled_by_its_own_maximum():
    source = io.BytesIO(b"P5 3 1 1000\n" + struct.pack(">3H", 0, 500, 1000))
    assert pixels(source).tolist() == [[0, 128, 255]]


def test_12_bit_tiff_is_scaled_to_its_white():
    values = np.array([0, 1, 2047, 4095], np.uint16)
    packed = b"".join(((int(a) << 12) | int(b)).to_bytes(3, "big") for a, b in values.reshape(2, 2))
    assert pixels(tiff(4, 1, 12, 1, packed)).tolist() == [np.rint(values / 4095 * 255).tolist()]


def test_16_bit_colour_arrives_within_one_level():
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    ok, data = cv2.imencode(".png", values)
    assert ok
    picture = open_picture(io.BytesIO(data.tobytes()))
    assert picture.image.mode == "RGB"
    assert np.abs(np.asarray(picture.image)[..., ::-1] - values / 257).max() <= 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (saved(Image.new("F", (4, 4)), "TIFF"), "mode F"),
        (saved(Image.new("I", (4, 4)), "TIFF"), "32-bit"),
        (saved(Image.new("LAB", (4, 4)), "TIFF"), "mode LAB"),
        (saved(Image.new("I;16", (4, 4)), "PNG", transparency=0), "transparent value"),
        (tiff(4, 1, 16, 0, bytes(8)), "0 for white"),
    ],
    ids=["F", "I", "LAB", "tRNS", "WhiteIsZero"],
)
def test_what_jpeg_lacks_is_refused(source, reason):
    with pytest.raises(ValueError, match=reason):
        open_picture(source)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_frames_are_refused(photo, format):
    source = saved(photo, format, save_all=True, append_images=[ImageOps.invert(photo)])
    with pytest.raises(ValueError, match="2 frames"):
        open_picture(source)


def test_mpo_gives_its_first_picture(photo):
    source = saved(photo, "MPO", save_all=True, append_images=[ImageOps.invert(photo)], quality=95)
    picture = open_picture(source)
    assert not picture.lone
    assert np.abs(np.asarray(picture.image).astype(int) - np.asarray(photo)).mean() < 10


def test_adobe_cmyk_is_not_inverted(photo):
    source = saved(photo.convert("CMYK"), "JPEG", quality=95)
    picture = open_picture(source)
    assert picture.image.mode == "CMYK"
    rgb = np.asarray(picture.image.convert("RGB")).astype(int)
    assert np.abs(rgb - np.asarray(photo)).mean() < 5
    other = cv2.imdecode(np.frombuffer(source.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(rgb - other).mean() < 5


# --- what is no whole picture


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "TGA"]
)
def test_truncated_files_fail(photo, format):
    data = saved(photo, format).getvalue()
    for part in (0.02, 0.5, 0.9):
        with pytest.raises(OSError):
            open_picture(io.BytesIO(data[: int(len(data) * part)]))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_fails(data):
    with pytest.raises(OSError, match="not a picture"):
        open_picture(io.BytesIO(data))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        open_picture(tmp_path / "none.jpg")


def test_bomb_fails(photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match="exceeds limit"):
        open_picture(saved(photo, "PNG"))


@pytest.mark.parametrize("word", ["Strip", "none", None, True])
def test_metadata_is_one_of_two_words(word, photo):
    """A typing error keeps no metadata that were to be dropped."""
    with pytest.raises(ValueError, match=f"metadata is {word!r}, expected 'keep' or 'strip'"):
        open_picture(saved(photo, "JPEG"), metadata=word)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about odd EXIF and MPO segments
def test_malformed_files_fail_as_promised(data_dir):
    read = 0
    for path in sorted((data_dir / "malformed").iterdir()):
        for metadata in ("keep", "strip"):
            try:
                picture = open_picture(path, metadata=metadata)
            except (OSError, ValueError):
                continue
            assert picture.image.mode in ("L", "RGB", "CMYK")
            read += 1
    assert 0 < read < 110


ENCODED = {
    format: saved(Image.radial_gradient("L").resize((40, 30)).convert("P"), format).getvalue()
    for format in ("PNG", "GIF", "TIFF", "BMP")
} | {
    format: saved(Image.radial_gradient("L").resize((40, 30)).convert("RGB"), format).getvalue()
    for format in ("JPEG", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA", "QOI")
}


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on what it skips
@given(
    format=st.sampled_from(sorted(ENCODED)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    length=st.floats(0.1, 1),
    metadata=st.sampled_from(["keep", "strip"]),
)
@settings(max_examples=150, deadline=None)
def test_damage_ends_in_a_picture_or_an_error(format, changes, length, metadata):
    data = bytearray(ENCODED[format])
    for place, value in changes:
        data[int(place * len(data))] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
        try:
            picture = open_picture(io.BytesIO(data[: int(length * len(data))]), metadata=metadata)
        except (OSError, ValueError):
            return
    assert picture.image.mode in ("1", "L", "RGB", "RGBX", "YCbCr", "CMYK")
    assert all(
        isinstance(picture.metadata.get(key, b""), bytes) for key in ("exif", "xmp", "icc_profile", "comment")
    )


# --- metadata


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "Maker"
    tags.get_ifd(0x8825)[1] = "N"
    return tags


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_metadata_is_kept_byte_for_byte(photo):
    given = {
        "exif": exif(6).tobytes(),
        "xmp": b"<x:xmpmeta/>",
        "icc_profile": SRGB,
        "comment": b"caf\xe9",
        "dpi": (300, 240),
    }
    picture = open_picture(saved(photo, "JPEG", **given))
    assert picture.metadata == given
    assert picture.image.size == photo.size


def test_there_is_no_metadata_where_there_was_none(photo):
    for format in ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "JPEG2000", "AVIF"):
        assert open_picture(saved(photo, format)).metadata.keys() <= {"dpi"}
        assert open_picture(saved(photo, format), metadata="strip").metadata == {}
    assert open_picture(saved(photo, "JPEG", exif=exif(1))).metadata.keys() == {"exif"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_stripping_turns_the_pixels(photo, format, orientation):
    lossless = {"lossless": True} if format == "WEBP" else {}
    a = np.asarray(Image.open(saved(photo, format, **lossless)))
    turned = {  # EXIF 2.3, 4.6.4 A: which side of the picture the first row and column are
        1: a,
        2: a[:, ::-1],
        3: a[::-1, ::-1],
        4: a[::-1],
        5: a.swapaxes(0, 1),
        6: np.rot90(a, -1),
        7: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(a),
    }[orientation]
    source = saved(photo, format, exif=exif(orientation), xmp=b"<x/>", **lossless)
    assert np.array_equal(pixels(source, metadata="strip"), turned)
    assert open_picture(source, metadata="strip").metadata == {}
    assert np.array_equal(pixels(source), a)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_turns_nothing_and_is_kept(photo):
    source = saved(photo, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12garbage")
    a = np.asarray(Image.open(io.BytesIO(source.getvalue())))
    assert np.array_equal(pixels(source, metadata="strip"), a)
    assert open_picture(source).metadata["exif"].endswith(b"garbage")


def test_stripping_keeps_a_profile_that_matters(photo):
    other = SRGB.replace(b"sRGB", b"Best").replace("sRGB".encode("utf-16-be"), "Best".encode("utf-16-be"))
    named = SRGB + b"sRGB IEC61966-2.1"
    assert open_picture(saved(photo, "PNG", icc_profile=other), metadata="strip").metadata == {
        "icc_profile": other
    }
    assert open_picture(saved(photo, "PNG", icc_profile=named), metadata="strip").metadata == {}


def test_grey_profile_leaves_with_the_grey(photo):
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    image = photo.convert("L")
    image.putalpha(128)
    source = saved(image, "PNG", icc_profile=grey)
    assert open_picture(source, background=(9, 9, 9)).metadata == {"icc_profile": grey}
    assert open_picture(source, background=(9, 0, 0)).metadata == {}


def test_tiff_keeps_what_is_about_the_picture(photo):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112] = 6
    tags[0x010F] = "Maker"
    tags[0x8769] = {0x829A: TiffImagePlugin.IFDRational(1, 100)}
    picture = open_picture(saved(photo, "TIFF", tiffinfo=tags, dpi=(300, 300)))
    assert np.array_equal(np.asarray(picture.image), np.rot90(np.asarray(photo), -1))
    found = Image.Exif()
    found.load(picture.metadata["exif"])
    assert found[0x010F] == "Maker"
    assert found.get_ifd(0x8769)[0x829A] == 0.01
    assert not {0x0100, 0x0101, 0x0103, 0x0111, 0x0112} & set(
        found
    )  # sizes, compression, strips, orientation
    assert picture.metadata["dpi"] == (300, 300)


def test_imagemagick_keeps_exif_in_a_png_text(photo):
    data = exif(6).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    source = saved(photo, "PNG", pnginfo=text)
    found = Image.Exif()
    found.load(open_picture(source).metadata["exif"])
    assert found[0x0112] == 6
    assert open_picture(source, metadata="strip").image.size == photo.size[::-1]


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    """And nobody waits for one to write into it."""
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OSError, match="not a regular file"):
        open_picture(tmp_path / "a.png")
