"""Small pictures with labels."""

import numpy as np
import pytest
from PIL import Image

from dnnjpeg.dataset import Dataset

SIZE = 32  # what the networks of networks.py take


@pytest.fixture
def dataset(photo: Image.Image) -> Dataset:
    """Twenty cuttings of a drawn photograph."""
    rng = np.random.default_rng(0)
    pixels = np.asarray(photo)
    corners = rng.integers(0, [pixels.shape[0] - SIZE, pixels.shape[1] - SIZE], (20, 2))
    pictures = np.stack([pixels[y : y + SIZE, x : x + SIZE] for y, x in corners])
    names = tuple(f"{i:02}.png" for i in range(20))
    return Dataset(pictures, rng.integers(0, 10, 20), names, "drawn")
