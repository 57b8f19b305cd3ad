"""The Pillow plugin's options: names, types, conflicts, refusals and defaults."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from saving import FLAT, SLOPE, refused, sampling, save, save_and_open, tables

from dnnjpeg.plugins import pillow, pillow_options
from dnnjpeg.table.library import standard_table


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dpi", 72, "dpi is 72, expected two numbers"),
        ("dpi", "72", "dpi is '72', expected two numbers"),
        ("dpi", ("72", "72"), r"dpi is \('72', '72'\), expected two numbers"),
        ("dpi", (float("nan"), 1), r"dpi is \(nan, 1\), expected two numbers"),
        ("dpi", (float("inf"), 1), r"dpi is \(inf, 1\), expected two numbers"),
        ("qtables", 5, "qtables is 5, expected"),
        ("subsampling", [], r"subsampling is \[\], expected"),
        ("optimize", "no", "optimize is 'no', expected"),
    ],
)
def test_a_wrong_type_is_named(photo: Image.Image, name: str, value: Any, message: str) -> None:
    refused(photo, ValueError, message, **{name: value})


@pytest.mark.parametrize("image", [None, "photo.png", np.zeros((8, 8), np.uint8)])
def test_what_is_no_image_is_named(image: Any) -> None:
    with pytest.raises(TypeError, match=f"image is a {type(image).__name__}, expected a PIL image"):
        pillow.encode(image)


# Options: names, conflicts, refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [("smooth", 10), ("keep_rgb", True), ("extra", b"\xff\xe3\0\2"), ("append_images", [1])],
)
def test_refused_with_a_reason(photo: Image.Image, name: str, value: Any) -> None:
    refused(photo, ValueError, f"refuses {name}: .{{20,}}", **{name: value})
    assert save(photo, **{name: type(value)()}) == save(photo)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("modle", "'model'"), ("Quality", "'quality'"), ("qtable", "'qtables'"), ("zzz", "xmp")],
)
def test_unknown_options(photo: Image.Image, name: str, hint: str) -> None:
    refused(photo, TypeError, f"no option '{name}'.*{hint}", **{name: 1})
    with pytest.raises(TypeError, match=f"no option '{name}'"):
        pillow.register(**{name: 1})


def test_an_option_named_like_a_parameter(photo: Image.Image) -> None:
    refused(photo, TypeError, "no option 'image'", image=1)


@pytest.mark.parametrize(
    "options",
    [
        {"model": "standard", "table": "standard"},
        {"model": "standard", "qtables": FLAT[:2]},
        {"table": standard_table(), "qtables": FLAT[:2]},
        {"model": "standard", "quality": "web_high"},
        {"quality": "web_high", "subsampling": 0},
        {"quality": "web_high", "qtables": FLAT[:2]},
        {"quality": "web_high", "qtables": np.array(FLAT[:2])},
        {"table": standard_table().at(50), "quality": 50},
    ],
)
def test_conflicts(photo: Image.Image, options: dict[str, Any]) -> None:
    refused(photo, ValueError, "leave out|give one of them", **options)


def test_none_is_not_given(photo: Image.Image) -> None:
    nothing = dict.fromkeys(pillow_options.OPTIONS)
    pillow.register()
    assert save(photo, **nothing) == save(photo)
    pillow.register(quality=30, restart_marker_blocks=5)
    assert save(photo, quality=None, restart_marker_blocks=None) == save(
        photo, quality=75, restart_marker_blocks=0
    )


def test_unknown_model_names_the_installed_ones(photo: Image.Image) -> None:
    refused(photo, ValueError, "resnet5000.*standard", model="resnet5000")
    refused(photo, ValueError, "resnet5000.*standard", table="resnet5000")


def test_models_and_tables(photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = replace(standard_table().at(50), luma=SLOPE[0], chroma=SLOPE[1], quality=60)
    table = replace(standard_table(), name="mine", points=(point,))
    table.save(tmp_path / "mine.json")
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path))
    expected = [SLOPE[0], SLOPE[1], SLOPE[1]]
    for options in (
        {"model": "mine", "quality": 60},
        {"table": tmp_path / "mine.json", "quality": 60},
        {"table": str(tmp_path / "mine.json"), "quality": 60},
        {"table": table, "quality": 60},
        {"table": point},
    ):
        assert tables(save_and_open(photo, **options)) == expected
    luma, *_ = tables(save_and_open(photo, model="mine"))
    assert luma == list(table.at(75).luma)


def test_hardness_seed_and_threads(photo: Image.Image) -> None:
    def sampled(**options: Any) -> bytes:
        return save(photo, hardness=3.0, **options)

    assert sampled(seed=1) == sampled(seed=1, threads=2)
    assert len({sampled(), sampled(seed=1), save(photo), save(photo, hardness=math.inf, seed=1)}) == 3
    refused(photo, ValueError, "seed", seed=-1)
    refused(photo, ValueError, "hardness", hardness=-1)
    refused(photo, ValueError, "threads", threads=0)


# Defaults


def test_defaults_and_what_overrides_them(photo: Image.Image) -> None:
    def ours(**options: Any) -> list[list[int]]:
        return tables(save_and_open(photo, **options))

    def theirs(**options: Any) -> list[list[int]]:
        return tables(save_and_open(photo, "JPEG", **options))

    pillow.register(model="standard", quality=40, subsampling="4:4:4")
    assert save(photo) == pillow.encode(photo) == pillow.encode(photo, quality=40)
    assert ours() == theirs(quality=40)
    assert ours(quality=90) == theirs(quality=90)
    assert sampling(save_and_open(photo)) == [(1, 1)] * 3
    assert sampling(save_and_open(photo, subsampling=2)) == [(2, 2), (1, 1), (1, 1)]
    # A table of the save's own sets aside the default's, and the quality where it does not need one.
    assert ours(qtables=FLAT[:2]) == [FLAT[0], FLAT[1], FLAT[1]]
    assert ours(quality="web_high") == theirs(quality="web_high")
    assert ours(table=standard_table().at(20)) == theirs(quality=20)
    assert ours(table=standard_table()) == theirs(quality=40)

    pillow.register(quality="web_low")
    assert ours() == theirs(quality="web_low")
    assert ours(quality=80, model="standard") == theirs(quality=80)
    assert ours(model="standard") == theirs()

    pillow.register(quality="keep")
    refused(photo, ValueError, "'keep'")
    pillow.register()
    assert ours(model="standard") == theirs()
    assert save(photo) == save(photo, model="universal")


@pytest.mark.parametrize(
    "defaults",
    [
        {"model": "resnet5000"},
        {"model": "standard", "table": "standard"},
        {"quality": 101},
        {"quality": "best"},
        {"smooth": 5},
        {"subsampling": "4:2:1"},
        {"table": "no/such/file.json"},
        {"hardness": "hard"},
    ],
)
def test_bad_defaults_are_refused_at_once(photo: Image.Image, defaults: dict[str, Any]) -> None:
    pillow.register(quality=40)
    before = save(photo)
    with pytest.raises((ValueError, TypeError, OSError)):
        pillow.register(**defaults)
    assert save(photo) == before
