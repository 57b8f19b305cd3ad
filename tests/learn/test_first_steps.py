"""First steps of JPEG layers against their formulas, and scipy's DCT."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import luma_coefficients, pictures  # noqa: E402

from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.first_steps import magnitude_steps, sensitivity_steps  # noqa: E402
from dnnjpeg.learn.jpegdl import JPEGLayer  # noqa: E402


def test_first_steps_from_sensitivities() -> None:
    s = np.random.default_rng(0).uniform(0.1, 5, (3, 64))
    luma, chroma = sensitivity_steps(s, 7)
    assert luma.max() == pytest.approx(7)
    assert np.allclose(luma * s[0], luma[0] * s[0, 0])
    assert np.allclose(chroma, 7 * (2 / (s[1] + s[2])) / (1 / s[0]).max())


def test_first_steps_from_magnitudes() -> None:
    some = pictures(120)
    dataset = Dataset(some, None, tuple(map(str, range(120))), "drawn")
    mean = np.mean([np.abs(luma_coefficients(picture)).mean(0) for picture in some], axis=0)
    found = magnitude_steps(dataset)
    assert found.shape == (2, 64)
    assert np.allclose(found[0], 2 * mean / math.sqrt(128), rtol=1e-3, atol=1e-3)


def test_first_steps_of_grey_pictures() -> None:
    """Whose chroma is nothing: any step will do."""
    grey = np.repeat(pictures(8)[..., :1], 3, axis=3)
    found = magnitude_steps(Dataset(grey, None, tuple(map(str, range(8))), "drawn"))
    layer = JPEGLayer(found, least=1e-5)
    assert (layer.log_q.exp()[0, 1] < 0.01).all() and layer.log_q.exp()[0, 0].max() > 5
