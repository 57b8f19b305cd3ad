"""JPEG files for tests, and what is in them."""

import io
from typing import Any

import numpy as np
from PIL import Image

from dnnjpeg import Coefficients
from dnnjpeg.jpeg.segments import read_segments


def saved(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 95} | options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def same(one: Coefficients, other: Coefficients) -> bool:
    return one.tables == other.tables and all(map(np.array_equal, one.planes, other.planes))


def unsigned(data: bytes) -> bytes:
    """A file without its signature."""
    parts, at = [], 0
    for name, size, _ in read_segments(data):
        parts += [data[at : at + size]] if name != "APP9" else []
        at += size
    return b"".join(parts)
