"""The Pillow plugin's quantization tables and subsampling against Pillow's own."""

import array
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from PIL.JpegPresets import presets
from saving import (
    FLAT,
    SLOPE,
    closeness,
    refused,
    sampling,
    save,
    save_and_open,
    tables,
)

from dnnjpeg.plugins import pillow
from dnnjpeg.table.formats import to_wizard
from dnnjpeg.table.library import standard_table


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
