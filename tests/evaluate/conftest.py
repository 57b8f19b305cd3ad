"""Small pictures, with labels or many."""

import numpy as np
import pytest
from drawing import draw
from PIL import Image

from dnnjpeg.files.dataset import Dataset

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


@pytest.fixture(scope="session")
def photos() -> Dataset:
    """Nine cuttings of each of twenty drawn photographs, without labels: so many that curves are smooth."""
    places = [(y, x) for y in (0, 40, 80) for x in (0, 40, 80)]
    drawn = [draw(160, 120, seed) for seed in range(20)]
    pictures = np.stack([one[y : y + SIZE, x : x + SIZE] for one in drawn for y, x in places])
    return Dataset(pictures, None, tuple(map(str, range(len(pictures)))), "drawn")
