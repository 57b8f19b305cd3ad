"""Saving through Pillow, and what is in the file."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

MODES = ["1", "L", "RGB", "RGBX", "YCbCr", "CMYK"]
FLAT = [[step] * 64 for step in (3, 5, 7, 9)]
SLOPE = [list(range(1, 65)), list(range(64, 0, -1)), [2 * step for step in range(1, 65)]]


def save(image: Image.Image, format: str = "DNNJPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def save_and_open(image: Image.Image, format: str = "DNNJPEG", **options: Any) -> Any:
    opened = Image.open(io.BytesIO(save(image, format, **options)))
    opened.load()
    return opened


def refused(image: Image.Image, error: type[Exception], match: str | None, /, **options: Any) -> None:
    """The save raises, and nothing is written."""
    buffer = io.BytesIO()
    with pytest.raises(error, match=match):
        image.save(buffer, "DNNJPEG", **options)
    assert buffer.getvalue() == b""


def sampling(image: Any) -> list[tuple[int, int]]:
    return [component[1:3] for component in image.layer]


def tables(image: Any) -> list[list[int]]:
    """The steps of each component, however the file shares them out."""
    return [list(image.quantization[component[3]]) for component in image.layer]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """Markers and contents up to the first scan."""
    found, at = [], 2
    while at < len(data) - 2 and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4])
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def huffman_tables(data: bytes) -> set[bytes]:
    found = set()
    for marker, content in segments(data):
        while marker == 0xC4 and content:
            length = 17 + sum(content[1:17])
            found.add(content[:length])
            content = content[length:]
    return found


def closeness(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())
