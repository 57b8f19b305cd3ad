"""Pictures for the tests inside other libraries, which the extra `integrations` installs."""

import io
import sys
from types import ModuleType
from typing import Any

import pytest
from drawing import draw
from PIL import Image
from skipping import TORCH


@pytest.fixture
def images() -> list[Image.Image]:
    return [Image.fromarray(draw(64, 48, seed)) for seed in range(3)]


@pytest.fixture
def sources(images: list[Image.Image]) -> list[bytes]:
    """JPEG files by Pillow."""
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """Python's part of it: the operators of the one on PyPI do not load beside a torch for CPUs."""
    pytest.importorskip("torch", reason=f"torch {TORCH}")
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("without operators"))
    return pytest.importorskip("torchvision", reason=f"torchvision {TORCH}")
