"""Pictures for the tests: drawn here, or real ones from the folder that DNNJPEG_DATA names."""

import os
from pathlib import Path

import pytest
from drawing import draw
from PIL import Image


@pytest.fixture(scope="session")
def data_dir() -> Path:
    root = os.environ.get("DNNJPEG_DATA")
    if not root:
        pytest.skip("set DNNJPEG_DATA to the folder that holds data/ to run the tests on real pictures")
    return Path(root) / "data"


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(draw(160, 120))
