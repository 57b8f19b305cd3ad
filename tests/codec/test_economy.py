"""The rate-aware quantizer: what it minimises falls, and its indices are those that the rule allows."""

import numpy as np
import pytest
from conftest import Read
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from dnnjpeg import OperatingPoint, encode, inspect
from dnnjpeg.codec import economy

STEPS = [8 + 2 * (k // 8 + k % 8) for k in range(64)]
POINT = OperatingPoint.from_tables([STEPS], quality=50)


def scaled(grey: np.ndarray) -> np.ndarray:
    """c/q of a picture of whole blocks, [rows, columns, 8, 8]."""
    rows, columns = grey.shape[0] // 8, grey.shape[1] // 8
    blocks = grey.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3) - 128.0
    return dctn(blocks, axes=(2, 3), norm="ortho") / np.reshape(STEPS, (8, 8))


def drawn(rng: np.random.Generator, rows: int, columns: int, noise: float) -> np.ndarray:
    """Waves with noise: blocks of all kinds."""
    y, x = np.mgrid[: 8 * rows, : 8 * columns]
    wave = 60 * np.sin(x * y / 90 + rng.uniform(0, 6)) + 40 * np.sin(x / rng.uniform(2, 20))
    return np.clip(128 + wave + rng.normal(0, noise, wave.shape), 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), columns=st.integers(1, 9), noise=st.floats(0, 60)
)
def test_the_price_of_a_picture_falls(
    read_dct: Read, seed: int, rows: int, columns: int, noise: float
) -> None:
    """Squared error in steps plus μ times the bits of scan and tables, which are made for the indices."""
    grey = drawn(np.random.default_rng(seed), rows, columns, noise)
    exact = scaled(grey)
    price, planes = [], []
    for quantizer in ("nearest", "rate-aware"):
        data = encode(grey, POINT, quantizer=quantizer)
        (plane,), _ = read_dct(data)
        found = inspect(data)
        bits = 8 * (found.scan_bytes - data.count(b"\xff\0") + found.segments["DHT"])  # stuffing is luck
        price.append(np.square(exact - plane).sum() + economy.MU * bits)
        planes.append(plane)
    # a scan ends in whole bytes, and coefficients are known to a thirty-second of a step
    slack = economy.MU * 8 + np.abs(planes[0] - planes[1]).sum() / 16
    assert price[1] <= price[0] + slack


def test_indices_are_nearest_or_nearer_to_zero(read_dct: Read) -> None:
    grey = drawn(np.random.default_rng(0), 30, 30, 20)
    exact = scaled(grey)
    (plane,), _ = read_dct(encode(grey, POINT, quantizer="rate-aware"))
    sizes, nearest = np.abs(plane), np.abs(np.rint(exact))
    tie = np.abs(np.abs(exact) % 1 - 0.5) < 1 / 16  # coefficients are known in sixteenths of a step
    assert ((sizes == nearest) | (sizes == nearest - 1) | (sizes == 0) | tie).all()
    assert ((plane == 0) | (np.sign(plane) == np.sign(exact))).all()
    dc = tie[..., 0, 0] | (plane[..., 0, 0] == np.rint(exact[..., 0, 0]))
    assert dc.all()
    assert (sizes < nearest).sum() > 500


def test_bits_for_nothing_is_rounding(read_dct: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(economy, "MU", 0.0)
    grey = drawn(np.random.default_rng(1), 30, 30, 20)
    exact = scaled(grey)
    (plane,), _ = read_dct(encode(grey, POINT, quantizer="rate-aware"))
    tie = np.abs(np.abs(exact) % 1 - 0.5) < 1 / 16
    assert ((plane == np.rint(exact)) | tie).all()


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:1:1"])
def test_every_form_of_a_file_holds_one_picture(read_dct: Read, subsampling: str, photo: Image.Image) -> None:
    options = {"quantizer": "rate-aware", "subsampling": subsampling}
    one, *others = (
        read_dct(encode(photo, **options, **more))[0]
        for more in ({}, {"progressive": True}, {"threads": 3}, {"restart_rows": 1}, {"optimize": False})
    )
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(encode(photo, **options)) < len(encode(photo, subsampling=subsampling))


@pytest.mark.parametrize("quality", [1, 100])
def test_extreme_steps_and_noise(read_dct: Read, quality: int) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (64, 64, 3), np.uint8) * 255
    planes, _ = read_dct(encode(noise, quality=quality, quantizer="rate-aware", subsampling="4:4:4"))
    plain, _ = read_dct(encode(noise, quality=quality, subsampling="4:4:4"))
    for plane, other in zip(planes, plain, strict=True):
        assert (np.abs(plane) <= np.abs(other) + 1).all()


def test_it_has_no_hardness() -> None:
    with pytest.raises(ValueError, match="quantizer='rate-aware' has none"):
        encode(np.zeros((8, 8), np.uint8), quantizer="rate-aware", hardness=20)
