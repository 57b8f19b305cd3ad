"""`transcode` a row of MCUs at a time: the same as the whole picture, and the same errors as in reading."""

import io
import re
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

from dnnjpeg import encode, read_coefficients, transcode
from dnnjpeg.codec import decode


@pytest.fixture
def sequential(photo: Image.Image) -> bytes:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


@pytest.mark.parametrize("asked", ["4:4:4", "4:2:0", "4:2:2", "4:1:1", "4:4:0"])
@pytest.mark.parametrize("given", ["4:4:4", "4:2:0", "4:2:2", "4:1:1", "4:4:0", "gray", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (33, 8), (50, 57), (130, 97)])
def test_the_rows_in_turn_are_the_picture(given: str, asked: str, size: tuple[int, int]) -> None:
    """Salvage decodes the whole picture first; what is not damaged is the same then."""
    image = Image.fromarray(draw(*size, seed=3))
    image = image.convert({"gray": "L", "CMYK": "CMYK"}.get(given, "RGB"))
    subsampling = None if given in ("gray", "CMYK") else given
    for restart, hardness in ((0, None), (3, None), (0, 3.0)):
        data = encode(image, quality=92, subsampling=subsampling, restart_blocks=restart)
        options: dict[str, Any] = {"subsampling": asked, "hardness": hardness, "only_if_smaller": False}
        options |= {"restart_rows": int(restart > 0)}
        assert transcode(data, "standard", 60, **options) == transcode(
            data, "standard", 60, salvage=True, **options
        )


def test_a_sequential_scan_is_not_decoded_twice(sequential: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = transcode(sequential, "standard", 60)
    monkeypatch.setattr(decode, "sequential_scan", pytest.fail)
    assert transcode(sequential, "standard", 60) == expected


def test_what_is_wrong_with_a_scan_is_said_as_in_reading(sequential: bytes) -> None:
    data, rng = sequential, np.random.default_rng(0)
    begin = data.rindex(b"\xff\xda") + 14
    refused = 0
    for _ in range(60):
        noise = bytearray(data[: rng.integers(begin, len(data))] + data[-2:] * int(rng.integers(2)))
        noise[rng.integers(begin, len(noise))] = rng.integers(256)
        try:
            read_coefficients(bytes(noise))
        except ValueError as error:
            refused += 1
            with pytest.raises(ValueError, match=f"^{re.escape(str(error))}$"):
                transcode(bytes(noise), "standard", 60)
    assert refused > 20
