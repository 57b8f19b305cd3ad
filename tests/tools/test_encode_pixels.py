"""`dnnjpeg encode`: pixels and metadata, from file to file."""

import cv2
import numpy as np
from encoding import encode, files, opened, psnr
from PIL import Image, ImageCms, ImageOps


def test_metadata_is_kept_or_stripped(photo, tmp_path, out):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(
        tmp_path / "a.jpg",
        quality=95,
        exif=exif,
        icc_profile=profile,
        xmp=b"<x/>",
        comment=b"hello",
        dpi=(300, 300),
    )
    assert encode(tmp_path / "a.jpg", "-o", out).exit_code == 0
    with Image.open(out / "a.jpg") as kept, Image.open(tmp_path / "a.jpg") as before:
        for key in ("exif", "icc_profile", "xmp", "comment", "dpi"):
            assert kept.info[key] == before.info[key]
        assert kept.size == before.size
        assert psnr(kept, before) > 25
    assert encode(tmp_path / "a.jpg", "-o", out, "--strip").exit_code == 0
    with Image.open(out / "a.jpg") as bare, Image.open(tmp_path / "a.jpg") as before:
        assert not {"exif", "xmp", "comment"} & set(bare.info)
        assert bare.size == before.size[::-1]
        assert psnr(bare, before.transpose(Image.Transpose.ROTATE_270)) > 25


def test_viewers_see_the_same_side_up(photo, tmp_path, out):
    exif = Image.Exif()
    exif[0x0112] = 8
    photo.save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert encode(tmp_path / "a.jpg", "-o", out / "keep").exit_code == 0
    assert encode(tmp_path / "a.jpg", "-o", out / "strip", "--strip").exit_code == 0
    seen = [
        cv2.imread(str(path))
        for path in (tmp_path / "a.jpg", out / "keep" / "a.jpg", out / "strip" / "a.jpg")
    ]
    assert cv2.PSNR(seen[0], seen[1]) > 25
    assert cv2.PSNR(seen[0], seen[2]) > 25


def test_unusual_pixels_come_out_right_or_not_at_all(photo, tmp_path, out):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = np.asarray(photo.convert("L"))
    expected = {
        "palette": photo.quantize(64).convert("RGB"),
        "sixteen": photo.convert("L"),
        "opaque": photo,
        "bilevel": photo.convert("1"),
        "cmyk": photo,
    }
    photo.quantize(64).save(folder / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    photo.convert("RGBA").save(folder / "opaque.png")
    photo.convert("1").save(folder / "bilevel.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    clear = photo.copy()
    clear.putalpha(100)
    clear.save(folder / "transparent.png")
    photo.save(folder / "animated.gif", save_all=True, append_images=[ImageOps.invert(photo)])
    Image.fromarray(grey.astype(np.float32)).save(folder / "float.tif")
    result = encode(folder, "-o", out, "--quality", 90)
    assert result.exit_code == 1
    assert [line.split(": ")[1][:18] for line in result.stderr.splitlines()] == [
        "holds 2 frames and", "has pixels of mode", "has transparent pi"
    ]  # fmt: skip
    assert files(out) == sorted(f"{name}.jpg" for name in expected)
    for name, image in expected.items():
        assert psnr(opened(out / f"{name}.jpg"), image) > 18, name
        b, g, r = cv2.split(cv2.imread(str(out / f"{name}.jpg")))  # another reader: not inverted, not swapped
        assert psnr(Image.fromarray(cv2.merge([r, g, b])), image) > 18, name
    assert encode(folder / "transparent.png", "-o", out, "--background", "#ff0000").exit_code == 0
    on_red = Image.composite(photo, Image.new("RGB", photo.size, "red"), Image.new("L", photo.size, 100))
    assert psnr(opened(out / "transparent.jpg"), on_red) > 25


def test_big_pictures_raise_no_warning(photo, tmp_path, out, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1
    )  # Pillow warns from here, and refuses from twice that
    photo.save(tmp_path / "a.png")
    photo.resize((320, 240)).save(tmp_path / "b.png")
    result = encode(tmp_path / "a.png", tmp_path / "b.png", "-o", out)
    assert result.exit_code == 1
    assert files(out) == ["a.jpg"]
    assert result.stderr.startswith(f"{tmp_path / 'b.png'}: ")
    assert len(result.stderr.splitlines()) == 1
