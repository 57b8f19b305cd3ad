"""`transcode`: coefficients against arithmetic in float64, everything else byte by byte."""

from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image
from scipy.fft import dctn, idctn
from transcoding import pixels, same, saved

from dnnjpeg import (
    OperatingPoint,
    Table,
    encode,
    inspect,
    read_coefficients,
    tables_only,
    transcode,
    write_coefficients,
)
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_scale


def planes(data: bytes) -> list[np.ndarray]:
    return [plane.astype(float) for plane in read_coefficients(data).planes]


# --- steps ---


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [20, 75, 90])
def test_each_coefficient_goes_to_the_nearest_step(mode: str, quality: int, photo: Image.Image) -> None:
    """Where the wanted step is larger; the others stay, with their steps."""
    data = saved(photo.convert(mode), quality=85, subsampling=2)
    source, found = (read_coefficients(one) for one in (data, transcode(data, "standard", quality)))
    for c, plane in enumerate(source.planes):
        wanted = ijg_scale(STANDARD_CHROMA if c else STANDARD_LUMA, quality)
        steps = np.maximum(source.tables[c], wanted)
        assert found.tables[c] == tuple(steps)
        expected = plane * np.array(source.tables[c]) / steps
        off = np.abs(found.planes[c] - expected)
        assert off.max() <= 0.5
        kept = steps == source.tables[c]
        assert np.array_equal(found.planes[c][..., kept], plane[..., kept])
        assert (quality < 85) != kept.all()


def test_three_tables_and_cells() -> None:
    data = saved(Image.fromarray(draw(64, 48)))
    point = OperatingPoint(
        50, "4:2:0", (9,) * 64, ((12,) * 64, (1,) * 64), bin_width=[1.5] * 64, hardness=None
    )
    source, found = read_coefficients(data), read_coefficients(transcode(data, point, only_if_smaller=False))
    assert [table[5] for table in found.tables] == [9, max(12, source.tables[1][5]), source.tables[2][5]]
    value = source.planes[0] * np.array(source.tables[0])
    coarse = np.array(source.tables[0]) < 9
    assert np.abs(found.planes[0] - value / 13.5)[..., coarse].max() <= 0.5


@pytest.mark.parametrize("source, factor", [("4:4:4", 1), ("4:2:2", 2**0.5), ("4:2:0", 2), ("4:1:1", 2)])
def test_chroma_of_fewer_samples_than_asked_gets_finer_steps(source: str, factor: float) -> None:
    """An error there is spread over more pixels: so that all steps leave as much noise in the picture."""
    data = encode(draw(64, 48), "standard", 99, subsampling=source)
    point = OperatingPoint(50, "4:4:4", (9,) * 64, ((30,) * 64,), hardness=None)
    found = read_coefficients(transcode(data, point, only_if_smaller=False))
    assert found.subsampling == source
    assert [set(table) for table in found.tables] == [{9}, {round(30 / factor)}, {round(30 / factor)}]
    asked = transcode(data, point, only_if_smaller=False, subsampling=source)
    assert read_coefficients(asked).tables[1] == (30,) * 64


def test_steps_go_with_the_frequency_of_the_picture() -> None:
    """Coefficient (u, v) of a 4:2:0 block has the frequency of (u/2, v/2) of a 4:4:4 block."""
    data = encode(draw(64, 48), "standard", 99, subsampling="4:2:0")
    chroma = np.add.outer(20 * np.arange(1, 9), 4 * np.arange(8))
    point = OperatingPoint(50, "4:4:4", (9,) * 64, (tuple(chroma.ravel().tolist()),), hardness=None)
    found = read_coefficients(transcode(data, point, only_if_smaller=False))
    expected = np.add.outer(20 * (1 + np.arange(8) / 2), 4 * np.arange(8) / 2) / 2
    assert np.array_equal(np.reshape(found.tables[2], (8, 8)), expected)


def test_limits() -> None:
    data = saved(Image.fromarray(draw(64, 48)))
    point = OperatingPoint(50, "4:2:0", (3,) * 64, (5,) * 64, max_index=[1023] + [2] * 63)
    found = read_coefficients(transcode(data, point, only_if_smaller=False))
    assert max(int(np.abs(plane[..., 1:]).max()) for plane in found.planes) == 2


def test_hardness_draws_one_of_two() -> None:
    data = saved(Image.fromarray(draw(160, 120)), quality=90)
    source = read_coefficients(data)
    files = [transcode(data, quality=30, hardness=20, seed=seed) for seed in (1, 1, 2)]
    assert files[0] == files[1] != files[2]
    found = read_coefficients(files[0])
    t = source.planes[0] * np.array(source.tables[0]) / np.array(found.tables[0])
    drawn = found.planes[0]
    assert np.abs(drawn - t).max() < 1
    between = np.abs(t - np.floor(t) - 0.5) < 0.1
    assert 0.2 < (drawn > t)[between].mean() < 0.8
    certain = np.abs(t - np.rint(t)) < 0.1
    assert np.array_equal(drawn[certain], np.rint(t)[certain])
    hard = read_coefficients(transcode(data, quality=30, hardness=1e6)).planes[0]
    assert np.array_equal(hard[~between], np.rint(t)[~between])


def test_indices_that_stay_are_not_drawn() -> None:
    data = saved(Image.fromarray(draw(160, 120)), quality=30)
    found = transcode(data, quality=90, hardness=0.5, only_if_smaller=False)
    assert same(read_coefficients(found), read_coefficients(data))


# --- chroma ---

FACTORS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2), "4:4:0": (1, 2), "4:1:1": (4, 1)}


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ("4:4:4", "4:4:4", "4:4:4"), ("4:4:4", "4:2:2", "4:2:2"), ("4:4:4", "4:2:0", "4:2:0"),
        ("4:4:4", "4:4:0", "4:4:0"), ("4:4:4", "4:1:1", "4:1:1"), ("4:2:2", "4:4:4", "4:2:2"),
        ("4:2:2", "4:2:0", "4:2:0"), ("4:2:2", "4:4:0", "4:2:2"), ("4:2:2", "4:1:1", "4:1:1"),
        ("4:2:0", "4:4:4", "4:2:0"), ("4:2:0", "4:1:1", "4:2:0"), ("4:4:0", "4:2:0", "4:2:0"),
        ("4:1:1", "4:2:0", "4:1:1"), ("4:4:0", "4:2:2", "4:4:0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (9, 8), (17, 33), (151, 117), (160, 120)])
def test_chroma_becomes_averages(before: str, asked: str, after: str, size: tuple[int, int]) -> None:
    """Luma stays; chroma has the coefficients of averaged samples."""
    data = encode(draw(160, 120)[: size[1], : size[0]], quality=97, subsampling=before)
    point = OperatingPoint(75, asked, (1,) * 64, (2,) * 64)
    source, found = (read_coefficients(one) for one in (data, transcode(data, point, only_if_smaller=False)))
    assert found.subsampling == after
    assert np.array_equal(found.planes[0], source.planes[0])
    across, down = (new // old for new, old in zip(FACTORS[after], FACTORS[before], strict=True))
    for c in (1, 2):
        if across * down == 1:
            continue
        values = (source.planes[c] * np.array(source.tables[c])).reshape(*source.planes[c].shape[:2], 8, 8)
        samples = idctn(values, axes=(2, 3), norm="ortho").swapaxes(1, 2)
        rows, columns = values.shape[0] * 8, values.shape[1] * 8
        samples = samples.reshape(rows, columns)
        samples = np.pad(samples, ((0, 8 * down), (0, 8 * across)), "edge")
        means = samples[: rows + -rows % (8 * down), : columns + -columns % (8 * across)]
        means = means.reshape(means.shape[0] // down, down, means.shape[1] // across, across).mean(
            axis=(1, 3)
        )
        blocks = means.reshape(means.shape[0] // 8, 8, means.shape[1] // 8, 8).swapaxes(1, 2)
        expected = dctn(blocks, axes=(2, 3), norm="ortho").reshape(*blocks.shape[:2], 64) / 2
        assert found.planes[c].shape == expected.shape
        assert np.abs(found.planes[c] - expected).max() < 0.501


@pytest.mark.parametrize("hardness", [None, 5])
@pytest.mark.parametrize("size", [(16, 16), (8, 8)])
def test_averages_are_limited(size: tuple[int, int], hardness: float | None) -> None:
    """Those of a hostile file would not fit into 16 bits."""
    blocks = size[0] // 8
    flat = [np.zeros((blocks, blocks, 64), int) for _ in range(3)]
    flat[1][..., 0], flat[2][..., 0] = 1000, -1000
    data = write_coefficients(flat, [np.full(64, 8), np.full(64, 255)], *size)
    point = OperatingPoint(98, "4:2:0", (1,) * 64, (1,) * 64)
    found = read_coefficients(transcode(data, point, hardness=hardness, only_if_smaller=False))
    assert (found.planes[1][0, 0, 0], found.planes[2][0, 0, 0]) == (1023, -1024)


@pytest.mark.parametrize("sampling", ["3x1", "2x2,2x1,1x2", "1x1,2x2,2x2"])
def test_other_samplings_stay(sampling: str, cjpeg: Any) -> None:
    data = cjpeg(Image.fromarray(draw(70, 50)), "-quality", "95", "-sample", sampling)
    for found in (transcode(data, quality=40), transcode(data, lossless=True)):
        assert read_coefficients(found).sampling == read_coefficients(data).sampling
        pixels(found)


# --- what is kept ---

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gray": ("L", {}),
    "4:2:0": ("RGB", {}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "RGB": ("RGB", {"keep_rgb": True}),
    "CMYK": ("CMYK", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_lossless(kind: str, photo: Image.Image) -> None:
    mode, options = KINDS[kind]
    data = saved(photo.convert(mode), **options)
    found = transcode(data, "standard", 10, lossless=True)
    assert len(found) < len(data)
    assert same(read_coefficients(found), read_coefficients(data))
    assert np.array_equal(pixels(found), pixels(data))


def test_lossless_of_sixteen_bits(photo: Image.Image, cjpeg: Any) -> None:
    data = cjpeg(photo, "-revert", "-quality", "3")
    found = transcode(data, lossless=True)
    assert len(found) < len(data)
    assert same(read_coefficients(found), read_coefficients(data))
    assert np.array_equal(pixels(found), pixels(data))
    coarse = transcode(data, quality=50, only_if_smaller=False)
    assert max(map(max, read_coefficients(coarse).tables)) > 255
    assert np.array_equal(pixels(coarse), pixels(data))


def test_never_larger_than_the_source(photo: Image.Image) -> None:
    small = transcode(saved(photo, quality=20), lossless=True)
    assert transcode(small, quality=90) == small
    assert transcode(small, lossless=True) == small
    larger = transcode(small, quality=90, only_if_smaller=False, progressive=False)
    assert larger != small and same(read_coefficients(larger), read_coefficients(small))
    plain = saved(photo, quality=20)
    assert len(transcode(plain, quality=90, optimize=False)) < len(plain)


# --- options ---


def test_the_coding(photo: Image.Image) -> None:
    data = saved(photo)
    plain, progressive, auto = (
        transcode(data, quality=50, progressive=choice) for choice in (False, True, "auto")
    )
    assert inspect(plain).kind == "baseline" and inspect(progressive).kind == "progressive"
    assert auto == min(plain, progressive, key=len)
    assert len(transcode(data, quality=50, optimize=False)) > len(plain)
    assert inspect(transcode(data, quality=50, restart_rows=1)).restart_interval == 10
    assert read_coefficients(transcode(data, quality=50, restart_blocks=7)).restart_interval == 7
    one, two = read_coefficients(plain), read_coefficients(progressive)
    assert same(one, two)


def test_adaptive(photo: Image.Image) -> None:
    busy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    calm = Image.new("RGB", (160, 120), "gray")
    qualities = [
        inspect(transcode(saved(image), quality=50, adaptive=True, only_if_smaller=False)).quality
        for image in (busy, calm)
    ]
    assert qualities[0] < 50 < qualities[1]


def test_tables_of_another_stream(photo: Image.Image) -> None:
    tables, picture = tables_only(quality=90), encode(photo, quality=90, abbreviated=True)
    found = transcode(picture, quality=50, tables=tables)
    assert np.array_equal(pixels(found), pixels(transcode(encode(photo, quality=90), quality=50)))
    assert pixels(transcode(picture, quality=100, tables=tables)).shape == (120, 160, 3)


def test_salvage(photo: Image.Image) -> None:
    data = saved(photo)
    with pytest.raises(ValueError, match="breaks off at byte"):
        transcode(data[:3000] + b"\xff\xd9")
    found = transcode(data[:3000], quality=90, salvage=True)
    assert pixels(found).shape == (120, 160, 3)
    assert inspect(found).complete
    whole = pixels(transcode(data, quality=90))
    assert np.array_equal(pixels(found)[:16, :64], whole[:16, :64])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "quality is 0"),
        ({"table": "nothing"}, "no table is named"),
        ({"subsampling": "4:2:1"}, "subsampling is '4:2:1'"),
        ({"progressive": "no"}, "progressive is 'no'"),
        ({"hardness": -3}, "hardness is -3"),
        ({"seed": -1}, "seed is -1"),
        ({"strip": 2}, "strip is 2"),
        ({"lossless": None}, "lossless is None"),
        ({"only_if_smaller": "yes"}, "only_if_smaller is 'yes'"),
        ({"adaptive": "yes"}, "adaptive is 'yes'"),
        ({"restart_rows": -1}, "restart_rows is -1"),
        ({"max_pixels": 100}, "160x120, more than 100 pixels"),
        ({"table": OperatingPoint(50, "4:2:0", (9,) * 64, (9,) * 64), "quality": 40}, "leave out quality"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str, photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=message):
        transcode(saved(photo), **options)


def test_a_table_of_ones_own(photo: Image.Image) -> None:
    table = Table("mine", (OperatingPoint(50, "4:4:4", (20,) * 64, (30,) * 64),))
    found = inspect(transcode(saved(photo, subsampling=0), table, 50))
    assert (found.table, found.quality, found.subsampling) == ("mine", 50, "4:4:4")


def test_extreme_indices() -> None:
    rng = np.random.default_rng(0)
    plane = rng.choice([-1023, 1023], (6, 7, 64))
    plane[..., 0] = rng.choice([-1024, 1023], (6, 7))
    data = write_coefficients([plane] * 3, [np.full(64, 3)], 56, 48)
    point = OperatingPoint(50, "4:2:0", (4,) * 64, (4,) * 64, bin_width=[0.5] * 64)
    found = read_coefficients(transcode(data, point, only_if_smaller=False))
    assert np.array_equal(
        found.planes[0], np.clip(np.rint(plane * 3 / 2), -1023 - (np.arange(64) == 0), 1023)
    )


@pytest.mark.parametrize("options", [{}, {"strip": True}, {"adaptive": True}, {"hardness": 15}])
def test_a_second_run_changes_nothing(photo: Image.Image, options: dict[str, Any]) -> None:
    source = encode(photo, quality=95, comment=b"mine", signature=False)
    once = transcode(source, "universal", 60, **options)
    assert len(once) < len(source)
    assert transcode(once, "universal", 60, **options) == once
    stripped = transcode(transcode(source, "universal", 60), "universal", 60, strip=True)
    assert b"mine" not in stripped


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": 2}, "adaptive is 2, expected True, False or 'read'"),
        ({"adaptive": True, "quality": 0}, "quality is 0, expected a number 1..100"),
        ({"adaptive": True, "quality": 101}, "quality is 101, expected a number 1..100"),
    ],
)
def test_adaptive_is_checked_as_encode_checks_it(
    options: dict[str, Any], message: str, photo: Image.Image
) -> None:
    for make in (lambda **given: encode(photo, **given), lambda **given: transcode(encode(photo), **given)):
        with pytest.raises(ValueError, match=message):
            make(**options)
