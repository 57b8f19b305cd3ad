"""The forward DCT and nearest rounding against scipy's DCT in double precision."""

from pathlib import Path

import numpy as np
import pytest
from decoders import Read
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from dnnjpeg import OperatingPoint, encode
from dnnjpeg.table.library import standard_table

TIE = 2e-4  # a float32 DCT of samples up to 128 is off by less


def blocks(samples: np.ndarray) -> np.ndarray:
    """[rows, columns, 8, 8] of samples whose sides are multiples of 8."""
    height, width = samples.shape
    return samples.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)


def coefficients(samples: np.ndarray) -> np.ndarray:
    return dctn(blocks(samples.astype(np.float64) - 128), axes=(2, 3), norm="ortho")


def assert_nearest(plane: np.ndarray, samples: np.ndarray, steps: np.ndarray) -> float:
    """`plane` is the DCT over the steps, rounded; in a tie, either neighbour. Returns the share of ties."""
    exact = coefficients(samples) / steps
    tie = np.abs(exact - np.floor(exact) - 0.5) < TIE
    assert np.array_equal(plane[~tie], np.rint(exact)[~tie])
    assert np.abs(plane - exact).max() <= 0.5 + TIE
    return float(tie.mean())


@pytest.mark.parametrize("quality", [30, 75, 95, 100])
def test_photograph(quality: int, data_dir: Path, read_dct: Read) -> None:
    with Image.open(data_dir / "photos" / "kodim05.png") as image:
        ycbcr = np.asarray(image.convert("YCbCr"))
    planes, steps = read_dct(encode(ycbcr, "standard", quality, mode="YCbCr", subsampling="4:4:4"))
    point = standard_table().at(quality)
    assert [step.ravel().tolist() for step in steps] == [list(point.tables[c > 0]) for c in range(3)]
    for c in range(3):
        # DC is a multiple of 1/8, so that exact ties are common
        assert assert_nearest(planes[c], ycbcr[:, :, c], steps[c]) < 0.02


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(("noise", "two values", "one frequency")),
    step=st.integers(1, 255),
)
def test_any_picture(seed: int, kind: str, step: int, read_dct: Read) -> None:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        samples = rng.integers(0, 256, (40, 72))
    elif kind == "two values":
        samples = rng.choice([0, 255], (40, 72))
    else:  # the sign of one basis function a block: the largest coefficients there are
        basis = np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16) >= 0
        u, v = rng.integers(0, 8, (2, 5, 9))
        samples = (
            np.where(basis[v][:, :, :, None] ^ basis[u][:, :, None, :], 0, 255).swapaxes(1, 2).reshape(40, 72)
        )
    steps = np.full(64, step)
    planes, _ = read_dct(encode(samples.astype(np.uint8), OperatingPoint(50, "4:4:4", steps, steps)))
    assert_nearest(planes[0], samples, steps.reshape(8, 8))


@pytest.mark.parametrize("value", [0, 1, 127, 128, 129, 255])
def test_flat_pictures_are_dc_alone(value: int, read_dct: Read) -> None:
    ones = (1,) * 64
    (plane,), _ = read_dct(
        encode(np.full((20, 300), value, np.uint8), OperatingPoint(100, "4:4:4", ones, ones))
    )
    assert (plane[..., 0, 0] == 8 * (value - 128)).all()
    assert not plane.reshape(*plane.shape[:2], 64)[..., 1:].any()
