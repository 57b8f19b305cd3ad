"""The Pillow plugin against Pillow's own JPEG writer."""

import array
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from PIL.JpegPresets import presets

import dnnjpeg
from dnnjpeg.files import write_atomic
from dnnjpeg.plugins import pillow
from dnnjpeg.table import standard_table, to_wizard

MODES = ["1", "L", "RGB", "RGBX", "YCbCr", "CMYK"]
FLAT = [[step] * 64 for step in (3, 5, 7, 9)]
SLOPE = [list(range(1, 65)), list(range(64, 0, -1)), [2 * step for step in range(1, 65)]]


@pytest.fixture(autouse=True)
def plain_defaults() -> Any:
    yield
    pillow.register()


def save(image: Image.Image, format: str = "DNNJPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def save_and_open(image: Image.Image, format: str = "DNNJPEG", **options: Any) -> Any:
    opened = Image.open(io.BytesIO(save(image, format, **options)))
    opened.load()
    return opened


def refused(image: Image.Image, error: type[Exception], match: str | None, /, **options: Any) -> None:
    """The save raises, and nothing is written."""
    buffer = io.BytesIO()
    with pytest.raises(error, match=match):
        image.save(buffer, "DNNJPEG", **options)
    assert buffer.getvalue() == b""


def sampling(image: Any) -> list[tuple[int, int]]:
    return [component[1:3] for component in image.layer]


def tables(image: Any) -> list[list[int]]:
    """The steps of each component, however the file shares them out."""
    return [list(image.quantization[component[3]]) for component in image.layer]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and contents up to the first scan."""
    found, at = [], 2
    while at < len(data) - 2 and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def huffman_tables(data: bytes) -> set[bytes]:
    found = set()
    for marker, content in segments(data):
        while marker == 0xC4 and content:
            length = 17 + sum(content[1:17])
            found.add(content[:length])
            content = content[length:]
    return found


def closeness(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


# Pictures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quality", [30, 90])
def test_every_mode_decodes_as_pillows(photo: Image.Image, mode: str, quality: int) -> None:
    image = photo.convert("RGB").convert(mode)
    ours, theirs = (save_and_open(image, f, quality=quality) for f in ("DNNJPEG", "JPEG"))
    assert (ours.format, ours.mode, ours.size) == ("JPEG", theirs.mode, theirs.size)
    assert tables(ours) == tables(theirs)
    assert closeness(ours, theirs) < 1.5


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "La", "RGBA", "RGBa", "LAB", "HSV", "I", "F", "I;16"])
def test_other_modes_are_refused_as_by_pillow(mode: str) -> None:
    refused(Image.new(mode, (8, 8)), OSError, f"cannot write mode {mode} as JPEG")


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_empty_picture(size: tuple[int, int]) -> None:
    refused(Image.new("RGB", size), ValueError, "empty")


def test_too_large_picture() -> None:
    refused(Image.new("L", (65536, 1)), ValueError, "65,?535")


def test_sizes_beyond_pillows_limit() -> None:
    data = save(Image.new("L", (65535, 2)))
    assert Image.open(io.BytesIO(data)).size == (65535, 2)


# Tables


@pytest.mark.parametrize("quality", [None, -1, 0, *range(1, 101, 3), 100])
def test_quality_has_pillows_tables(quality: int | None) -> None:
    image = Image.new("RGB", (16, 16))
    options = {} if quality is None else {"quality": quality}
    assert tables(save_and_open(image, **options)) == tables(save_and_open(image, "JPEG", **options))


@pytest.mark.parametrize("quality", [-2, 101, 1000, float("nan"), "75", "best", [75]])
def test_bad_quality(photo: Image.Image, quality: Any) -> None:
    refused(photo, ValueError, "quality", quality=quality)
    refused(photo, ValueError, "quality", quality=quality, qtables=FLAT[:2])


def test_quality_may_be_fractional(photo: Image.Image) -> None:
    low, middle, high = (sum(tables(save_and_open(photo, quality=q))[0]) for q in (40, 40.5, 41))
    assert low > middle > high


@pytest.mark.parametrize("name", sorted(presets))
def test_presets(photo: Image.Image, name: str) -> None:
    for options in ({"quality": name}, {"qtables": name}, {"subsampling": name}):
        ours, theirs = (save_and_open(photo, f, **options) for f in ("DNNJPEG", "JPEG"))
        assert tables(ours) == tables(theirs)
        assert sampling(ours) == sampling(theirs)


@pytest.mark.parametrize(
    "qtables",
    [
        FLAT[:1],
        FLAT[:2],
        tuple(FLAT[:3]),
        FLAT,
        SLOPE,
        [tuple(steps) for steps in SLOPE],
        [array.array("B", steps) for steps in SLOPE],
        {0: SLOPE[0], 1: SLOPE[1]},
        "16 " * 64,
        "# luma\n" + "1 2 3 4 5 6 7 8\n" * 8 + "\n# chroma\n" + "9 " * 64,
        to_wizard(standard_table().at(33)),
    ],
)
@pytest.mark.parametrize("quality", [None, 30, 50, 92])
def test_qtables_as_pillow_takes_them(photo: Image.Image, qtables: Any, quality: int | None) -> None:
    options = {"qtables": qtables} if quality is None else {"qtables": qtables, "quality": quality}
    ours, theirs = (save_and_open(photo, f, **options) for f in ("DNNJPEG", "JPEG"))
    assert tables(ours) == tables(theirs)
    assert sampling(ours) == sampling(theirs)


def test_qtables_as_array(photo: Image.Image) -> None:
    assert save(photo, qtables=np.array(SLOPE)) == save(photo, qtables=SLOPE)
    assert save(photo, qtables=list(np.array(SLOPE, np.uint8))) == save(photo, qtables=SLOPE)


def test_qtables_of_a_gray_and_a_cmyk_picture(photo: Image.Image) -> None:
    for mode in ("L", "CMYK"):
        ours, theirs = (save_and_open(photo.convert(mode), f, qtables=SLOPE[:1]) for f in ("DNNJPEG", "JPEG"))
        assert tables(ours) == tables(theirs)


def test_cmyk_has_one_table_and_no_subsampling(photo: Image.Image) -> None:
    cmyk = photo.convert("CMYK")
    for options in ({"quality": "web_low"}, {"qtables": "web_low"}):
        assert tables(save_and_open(cmyk, **options)) == [presets["web_low"]["quantization"][0]] * 4
    assert tables(save_and_open(cmyk, qtables=[FLAT[0]] * 3)) == [FLAT[0]] * 4
    assert sampling(save_and_open(cmyk, subsampling="4:2:0")) == [(1, 1)] * 4
    refused(cmyk, ValueError, "share one", qtables=FLAT)
    source = save_and_open(cmyk, "JPEG", qtables=FLAT)
    refused(source, ValueError, "share one", quality="keep")


@pytest.mark.parametrize(
    "qtables",
    [
        [],
        FLAT + FLAT[:1],
        [[1] * 63],
        [[1] * 63 + [0]],
        [[1] * 63 + [256]],
        [[1] * 63 + [-1]],
        [[1.5] * 64],
        [["1"] * 64],
        [[True] * 64],
        "not a preset",
        "1 2 3",
        "",
        "0 " * 64,
        {},
    ],
)
def test_bad_qtables(photo: Image.Image, qtables: Any) -> None:
    refused(photo, ValueError, None, qtables=qtables)


@pytest.mark.parametrize("qtables", [5, [1] * 2, [None]])
def test_qtables_of_a_wrong_type(photo: Image.Image, qtables: Any) -> None:
    buffer = io.BytesIO()
    with pytest.raises((TypeError, ValueError)):
        photo.save(buffer, "DNNJPEG", qtables=qtables)
    assert buffer.getvalue() == b""


@pytest.mark.parametrize(
    "qtables",
    [
        {"luma": FLAT[0], "chroma": FLAT[1]},
        {0: FLAT[0], "1": FLAT[1]},
        {5: FLAT[0]},
        {-1: FLAT[0]},
        {1.5: FLAT[0]},
    ],
)
def test_qtables_by_name_are_not_put_in_an_order(photo: Image.Image, qtables: Any) -> None:
    refused(photo, ValueError, "qtables.*0..3", qtables=qtables)


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


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 35},
        {"quality": 95, "subsampling": 0},
        {"quality": 60, "subsampling": 1},
        {"qtables": SLOPE, "subsampling": 1},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_keep(photo: Image.Image, options: dict[str, Any], mode: str) -> None:
    if mode != "RGB":  # of one table, and not subsampled
        options = {name: value[:1] if name == "qtables" else value for name, value in options.items()}
        options.pop("subsampling", None)
    source = save_and_open(photo.convert(mode), "JPEG", **options)
    plain = save_and_open(source)
    for keep, same_tables, same_sampling in (
        ({"quality": "keep"}, True, True),
        ({"quality": "keep", "qtables": "keep", "subsampling": "keep"}, True, True),
        ({"qtables": "keep"}, True, False),
        ({"subsampling": "keep"}, False, True),
    ):
        kept = save_and_open(source, **keep)
        assert tables(kept) == tables(source if same_tables else plain)
        if mode == "RGB":  # a single component has no factors to speak of
            assert sampling(kept) == sampling(source if same_sampling else plain)


def test_keep_of_factors_that_pillow_cannot_keep(photo: Image.Image) -> None:
    for factor in (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411):
        _, data = cv2.imencode(".jpg", np.asarray(photo), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
        source: Any = Image.open(io.BytesIO(data.tobytes()))
        kept = save_and_open(source, quality="keep")
        assert sampling(kept) == sampling(source)
        assert tables(kept) == tables(source)


def test_keep_of_factors_that_nobody_can_keep(photo: Image.Image) -> None:
    data = bytearray(save(photo, "JPEG", subsampling=0))
    data[data.index(b"\xff\xc0") + 14] = 0x12  # Cb is the largest component
    with pytest.raises(ValueError, match="sampling factors"):
        pillow.encode(Image.open(io.BytesIO(data)), subsampling="keep")


@pytest.mark.parametrize("option", ["quality", "qtables", "subsampling"])
def test_keep_needs_a_jpeg(photo: Image.Image, option: str) -> None:
    message = "Cannot use 'keep' when original image is not a JPEG"
    refused(photo, ValueError, message, **{option: "keep"})
    with pytest.raises(ValueError, match=message):
        save(photo, "JPEG", **{option: "keep"})


def test_keep_on_real_files(data_dir: Path) -> None:
    for path in sorted((data_dir / "photos" / "web").glob("*.jpg"))[:5]:
        with Image.open(path) as source:
            kept = save_and_open(source, quality="keep")
            assert (tables(kept), kept.mode, kept.size) == (tables(source), source.mode, source.size)
            assert JpegImagePlugin.get_sampling(kept) == JpegImagePlugin.get_sampling(source)
            assert closeness(kept, source) < 1.5


@pytest.mark.parametrize("subsampling", [-1, 0, 1, 2, "4:4:4", "4:2:2", "4:2:0"])
def test_subsampling_as_pillows(photo: Image.Image, subsampling: int | str) -> None:
    ours, theirs = (save_and_open(photo, f, subsampling=subsampling) for f in ("DNNJPEG", "JPEG"))
    assert sampling(ours) == sampling(theirs)
    assert closeness(ours, theirs) < 1.5


def test_subsampling_that_pillow_does_not_write(photo: Image.Image) -> None:
    assert sampling(save_and_open(photo, subsampling="4:4:0")) == [(1, 2), (1, 1), (1, 1)]
    assert sampling(save_and_open(photo, subsampling="4:1:1")) == [(4, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("subsampling", [3, -2, "4:2:1", "420", 2.5])
def test_bad_subsampling(photo: Image.Image, subsampling: Any) -> None:
    refused(photo, ValueError, "subsampling", subsampling=subsampling)


# Entropy coding and structure


def test_optimize(photo: Image.Image) -> None:
    assert huffman_tables(save(photo, optimize=False)) == huffman_tables(save(photo, "JPEG"))
    assert len(save(photo)) == len(save(photo, optimize=True)) < len(save(photo, optimize=False))


def test_progressive(photo: Image.Image) -> None:
    plain = save_and_open(photo)
    assert "progressive" not in plain.info
    for options in ({"progressive": True}, {"progressive": 1}, {"progression": True}):
        progressive = save_and_open(photo, **options)
        assert progressive.info["progressive"]
        assert closeness(progressive, plain) == 0
    both = [len(save(photo, progressive=value)) for value in (False, True)]
    assert len(save(photo, progressive="auto")) == min(both)
    refused(photo, ValueError, "progressive", progressive="yes")


@pytest.mark.parametrize("options", [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}])
def test_restart_markers(photo: Image.Image, options: dict[str, int]) -> None:
    ours, theirs = (dict(segments(save(photo, f, **options))) for f in ("DNNJPEG", "JPEG"))
    assert ours[0xDD] == theirs[0xDD]
    assert b"\xff\xd0" in save(photo, **options)
    assert closeness(save_and_open(photo, **options), save_and_open(photo)) == 0


@pytest.mark.parametrize("name", ["restart_marker_blocks", "restart_marker_rows"])
@pytest.mark.parametrize("value", [-1, 65536, 1.5])
def test_bad_restart_markers(photo: Image.Image, name: str, value: Any) -> None:
    refused(photo, ValueError, "restart", **{name: value})


def test_streamtype(photo: Image.Image) -> None:
    whole, only_tables, only_image = (save(photo, streamtype=i, optimize=False) for i in (0, 1, 2))
    assert {marker for marker, _ in segments(only_tables)} == {0xDB, 0xC4}
    assert only_tables[-2:] == b"\xff\xd9"
    assert not {0xDB, 0xC4} & {marker for marker, _ in segments(only_image)}
    joined = Image.open(io.BytesIO(only_tables[:-2] + only_image[2:]))
    assert closeness(joined, Image.open(io.BytesIO(whole))) == 0
    refused(photo, ValueError, "streamtype", streamtype=3)


# Metadata


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
    nothing = dict.fromkeys(pillow._OPTIONS)
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


def test_quantizer_seed_and_threads(photo: Image.Image) -> None:
    def sampled(**options: Any) -> bytes:
        return save(photo, quantizer="probabilistic", hardness=3.0, **options)

    assert sampled(seed=1) == sampled(seed=1, threads=2)
    assert len({sampled(), sampled(seed=1), save(photo), save(photo, quantizer="nearest", seed=1)}) == 3
    refused(photo, ValueError, "quantizer", quantizer="closest")
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
    assert ours(quality=80) == theirs(quality=80)
    assert ours(model="standard") == theirs()

    pillow.register(quality="keep")
    refused(photo, ValueError, "'keep'")
    pillow.register()
    assert ours() == theirs()


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


# Files and registration


def test_jpg_and_opening_stay_pillows(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "theirs.jpg")
    assert (tmp_path / "theirs.jpg").read_bytes() == save(photo, "JPEG")
    photo.save(tmp_path / "ours.jpg", "DNNJPEG")
    assert (tmp_path / "ours.jpg").read_bytes() == save(photo) == save(photo, "dnnjpeg")
    with Image.open(tmp_path / "ours.jpg") as opened:
        assert opened.format == "JPEG"
    assert "DNNJPEG" not in Image.OPEN
    assert "DNNJPEG" not in Image.registered_extensions().values()
    assert Image.MIME["DNNJPEG"] == "image/jpeg"


def test_a_fresh_process() -> None:
    program = """
import io, sys
from PIL import Image
image = Image.new("RGB", (8, 8))
try:
    image.save(io.BytesIO(), "DNNJPEG")
except KeyError as error:
    assert error.args == ("DNNJPEG",)
else:
    raise AssertionError("known before the import")
import dnnjpeg
heavy = {"numpy", "numba", "cv2", "torch"} & sys.modules.keys()
assert not heavy, heavy
buffer = io.BytesIO()
image.save(buffer, "DNNJPEG")
assert Image.open(buffer).size == (8, 8)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_save_all_is_refused_before_the_file_is_touched(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"old")
    with pytest.raises(KeyError, match="DNNJPEG"):
        photo.save(path, "DNNJPEG", save_all=True)
    assert path.read_bytes() == b"old"
    photo.save(path, "DNNJPEG", save_all=False)
    assert path.read_bytes() == save(photo)


def test_a_refused_save_leaves_no_new_file(photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        photo.save(tmp_path / "x.jpg", "DNNJPEG", modle="resnet50")
    assert list(tmp_path.iterdir()) == []


def test_pillow_empties_an_old_file_before_it_asks(photo: Image.Image, tmp_path: Path) -> None:
    """As the module says; once Pillow stops doing so, it may say less."""
    (tmp_path / "x.jpg").write_bytes(b"old")
    with pytest.raises(TypeError):
        photo.save(tmp_path / "x.jpg", "DNNJPEG", modle="resnet50")
    assert (tmp_path / "x.jpg").read_bytes() == b""


def test_the_way_that_keeps_an_old_file(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomic(path, pillow.encode(photo, modle="resnet50"))
    assert path.read_bytes() == b"old"
    write_atomic(path, pillow.encode(photo, quality=60))
    assert path.read_bytes() == save(photo, quality=60)


def test_one_write(photo: Image.Image) -> None:
    class Target:
        """No more than what Pillow asks of a file object."""

        calls: list[bytes]

        def __init__(self) -> None:
            self.calls = []

        def write(self, data: bytes) -> int:
            self.calls.append(data)
            return len(data)

    target: Any = Target()
    photo.save(target, "DNNJPEG")
    assert target.calls == [save(photo)]


def test_saving_from_many_threads(photo: Image.Image) -> None:
    def job(quality: int) -> bytes:
        return save(photo.copy(), quality=quality)

    qualities = list(range(10, 90, 5))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, qualities)) == [job(quality) for quality in qualities]


def test_the_face_encodes_the_same(photo: Image.Image) -> None:
    assert dnnjpeg.encode(photo, "standard", 60) == save(photo, model="standard", quality=60)


# Whatever a user passes

VALID: dict[str, st.SearchStrategy[Any]] = {
    "quality": st.integers(-1, 100) | st.floats(1, 100),
    "subsampling": st.sampled_from([-1, 0, 1, 2, "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", "web_high"]),
    "optimize": st.booleans(),
    "progressive": st.sampled_from([False, True, 0, 1, "auto"]),
    "streamtype": st.just(0),
    "dpi": st.tuples(st.integers(1, 65535), st.floats(1, 65535)),
    "exif": st.binary(max_size=100),
    "xmp": st.binary(max_size=100),
    "icc_profile": st.binary(max_size=70000),
    "comment": st.binary(max_size=100) | st.text(max_size=30),
    "restart_marker_blocks": st.integers(0, 65535),
    "smooth": st.just(0),
    "keep_rgb": st.just(False),
    "seed": st.integers(0, 2**63 - 1),
    "hardness": st.floats(0.5, 1000),
    "threads": st.integers(1, 3),
    "jfif": st.booleans(),
    "signature": st.booleans(),
}
NUMBER = st.booleans() | st.integers() | st.floats()
ANYTHING = st.none() | NUMBER | st.text(max_size=5) | st.binary(max_size=5)
ANY_OPTION = st.sampled_from(sorted({*pillow._OPTIONS, "modle", "", "save"}))
SMALL = Image.effect_noise((17, 9), 60).convert("RGB")


@given(st.fixed_dictionaries({}, optional=VALID), st.sampled_from(MODES))
@settings(max_examples=60, deadline=None)
def test_valid_options_write_a_readable_file(options: dict[str, Any], mode: str) -> None:
    options["quantizer"] = "probabilistic" if "hardness" in options else "nearest"
    opened = save_and_open(SMALL.convert(mode), **options)
    assert opened.size == SMALL.size
    assert opened.mode == ("L" if mode in "1L" else "CMYK" if mode == "CMYK" else "RGB")


@given(
    st.fixed_dictionaries({}, optional=VALID),
    st.dictionaries(ANY_OPTION, ANYTHING | st.lists(ANYTHING, max_size=3), min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_a_file_whole_or_nothing(valid: dict[str, Any], arbitrary: dict[str, Any]) -> None:
    options = valid | arbitrary
    buffer = io.BytesIO()
    try:
        SMALL.save(buffer, "DNNJPEG", **options)
    except (TypeError, ValueError, OSError, OverflowError):
        assert buffer.getvalue() == b""
    else:
        data = buffer.getvalue()
        assert data[:2] == b"\xff\xd8"
        assert data[-2:] == b"\xff\xd9"
        if not options.get("streamtype"):
            assert np.asarray(Image.open(buffer)).shape == (9, 17, 3)
