"""Colour and chroma downsampling, read back from flat blocks; edges of any width against padded pictures."""

import io

import numpy as np
import pytest
from decoders import Read
from PIL import Image

from dnnjpeg import OperatingPoint, encode
from dnnjpeg.codec.pixels import MODES
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

ONES = OperatingPoint(100, "4:4:4", (1,) * 64, (1,) * 64)
WEIGHTS = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)


def samples(data: bytes, read_dct: Read) -> list[np.ndarray]:
    """The samples of a picture whose blocks are flat in every component, one a block: its DC over 8."""
    planes, steps = read_dct(data)
    for plane, step in zip(planes, steps, strict=True):
        assert (step == 1).all() and not plane.reshape(-1, 64)[:, 1:].any()
        assert not (plane[:, :, 0, 0] % 8).any()
    return [plane[:, :, 0, 0] // 8 + 128 for plane in planes]


def corners_and_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random colours, among them many with channels of 0 and 255."""
    values = rng.integers(0, 256, shape)
    return np.where(rng.random(shape) < 0.3, rng.choice([0, 255], shape), values).astype(np.uint8)


def test_colours(read_dct: Read) -> None:
    colours = corners_and_noise(np.random.default_rng(0), (60, 70, 3))
    picture = colours.repeat(8, axis=0).repeat(8, axis=1)
    found = np.stack(samples(encode(picture, ONES), read_dct), axis=-1)
    exact = colours @ WEIGHTS.T + [0, 128, 128]
    assert np.abs(found - exact).max() < 0.51
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=100, subsampling="4:4:4")
    difference = np.abs(found - np.stack(samples(buffer.getvalue(), read_dct), axis=-1))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # libjpeg's constants have a bit more


def test_grays_stay_gray(read_dct: Read) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    y, cb, cr = samples(encode(levels.repeat(8, axis=0).repeat(8, axis=1), ONES), read_dct)
    assert np.array_equal(y, levels[:, :, 0])
    assert (cb == 128).all() and (cr == 128).all()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_chroma_is_the_mean_of_its_pixels_rounded_once(subsampling: str, read_dct: Read) -> None:
    h, v = SUBSAMPLINGS[subsampling][0]
    cells = corners_and_noise(
        np.random.default_rng(1), (20, 33, v, h, 3)
    )  # the pixels under one chroma sample
    block = np.tile(cells, (1, 1, 8, 8, 1))
    picture = block.swapaxes(1, 2).reshape(20 * 8 * v, 33 * 8 * h, 3)
    planes, _ = read_dct(encode(picture, ONES, subsampling=subsampling))
    exact = cells.mean(axis=(2, 3)) @ WEIGHTS.T + [0, 128, 128]
    for c in (1, 2):
        assert not planes[c].reshape(-1, 64)[:, 1:].any()
        assert np.abs(planes[c][:, :, 0, 0] / 8 + 128 - exact[:, :, c]).max() < 0.51


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_ycbcr_is_taken_as_it_is(subsampling: str, read_dct: Read) -> None:
    h, v = SUBSAMPLINGS[subsampling][0]
    cells = corners_and_noise(np.random.default_rng(2), (20, 33, v, h, 3))
    picture = np.tile(cells, (1, 1, 8, 8, 1)).swapaxes(1, 2).reshape(20 * 8 * v, 33 * 8 * h, 3)
    planes, _ = read_dct(encode(picture, ONES, subsampling=subsampling, mode="YCbCr"))
    mean = cells.mean(axis=(2, 3))
    for c in (1, 2):
        assert np.array_equal(
            planes[c][:, :, 0, 0] // 8 + 128, np.floor(mean[:, :, c] + 0.5)
        )  # halves upwards
    luma = planes[0][:, :, 0, 0] / 8 + 128
    assert np.abs(luma.reshape(20, v, 33, h).mean(axis=(1, 3)) - mean[:, :, 0]).max() < 0.1


def test_cmyk_is_stored_inverted(read_dct: Read) -> None:
    colours = corners_and_noise(np.random.default_rng(3), (9, 21, 4))
    found = samples(encode(colours.repeat(8, axis=0).repeat(8, axis=1), ONES, mode="CMYK"), read_dct)
    assert np.array_equal(np.stack(found, axis=-1), 255 - colours)


# --- edges ---


def padded(picture: np.ndarray, across: int, down: int) -> np.ndarray:
    """The last row and column repeated up to whole MCUs."""
    height, width = picture.shape[:2]
    edges = [(0, -height % down), (0, -width % across)] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, edges, "edge")


def assert_edges(picture: np.ndarray, read_dct: Read, mode: str, subsampling: str = "4:4:4") -> None:
    """Every block of the picture is that of the padded one."""
    h, v = SUBSAMPLINGS[subsampling][0]
    small, _ = read_dct(encode(picture, quality=95, mode=mode, subsampling=subsampling))
    large, _ = read_dct(encode(padded(picture, 8 * h, 8 * v), quality=95, mode=mode, subsampling=subsampling))
    for c, (one, other) in enumerate(zip(small, large, strict=True)):
        assert np.array_equal(one, other[: one.shape[0], : one.shape[1]]), (picture.shape, c)


@pytest.mark.parametrize(
    ("mode", "subsampling"),
    [
        ("L", "4:4:4"),
        ("RGB", "4:2:0"),
        ("RGB", "4:1:1"),
        ("RGB", "4:4:4"),
        ("BGRX", "4:2:2"),
        ("YCbCr", "4:4:0"),
        ("CMYK", "4:4:4"),
    ],
)
def test_every_width(mode: str, subsampling: str, read_dct: Read) -> None:
    rng = np.random.default_rng(0)
    for width in range(1, 131):
        shape = (int(rng.integers(1, 20)), width, MODES[mode])
        assert_edges(rng.integers(0, 256, shape, np.uint8), read_dct, mode, subsampling)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_height(subsampling: str, read_dct: Read) -> None:
    rng = np.random.default_rng(0)
    for height in range(1, 50):
        assert_edges(rng.integers(0, 256, (height, 11, 3), np.uint8), read_dct, "RGB", subsampling)
