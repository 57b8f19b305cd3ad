"""The strict reader of the soak benchmark: against libjpeg on Pillow's files, and on damaged files."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

jpeglib = pytest.importorskip("jpeglib")


@pytest.fixture(scope="module")
def t81() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import t81
    finally:
        sys.path.pop(0)
    return t81


def pillow(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"quality": 30, "optimize": True},
    {"quality": 97, "subsampling": 0},
    {"progressive": True},
    {"progressive": True, "quality": 95, "subsampling": 1},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3, "progressive": True},
)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pillows_files_have_the_coefficients_that_libjpeg_finds(
    mode: str, options: dict[str, Any], t81: Any, tmp_path: Path
) -> None:
    data = pillow(Image.fromarray(draw(61, 43)).convert(mode), **options)
    (tmp_path / "x.jpg").write_bytes(data)
    expected = jpeglib.read_dct(tmp_path / "x.jpg")
    found = t81.read(data)
    assert (found.width, found.height) == (61, 43)
    planes = [expected.Y, expected.Cb, expected.Cr, expected.K][: len(found.components)]
    for c, (part, plane) in enumerate(zip(found.components, planes, strict=True)):
        assert np.array_equal(part.indices(), plane.reshape(*plane.shape[:2], 64))
        assert np.array_equal(part.steps, expected.get_component_qt(c).ravel())


def test_zigzag(t81: Any) -> None:
    assert t81.ZIGZAG[:10] == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert t81.ZIGZAG[-4:] == [47, 55, 62, 63]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_cut_or_has_more_is_refused(options: dict[str, Any], t81: Any) -> None:
    data = pillow(Image.fromarray(draw(40, 24)), **options)
    t81.read(data)
    scan = data.rindex(b"\xff\xda")
    for damaged in (
        data[:-1],
        data[:-2],
        data + b"\0",
        data[:-2] + b"\0" + data[-2:],
        data[:-3] + data[-2:],
        data[:scan],
        data[: scan - 1] + data[scan:],
        data[:2] + data,
        b"",
    ):
        with pytest.raises(t81.Damage):
            t81.read(damaged)


def test_padding_with_zeros_is_refused(t81: Any) -> None:
    """A flat gray block is two codes of two and four bits: two ones pad them."""
    data = pillow(Image.new("L", (8, 8), 128))
    assert t81.read(data).components[0].indices().any() == 0
    assert data[-3] & 3 == 3
    with pytest.raises(t81.Damage, match="padded with zeros"):
        t81.read(data[:-3] + bytes([data[-3] & 0xFC]) + data[-2:])
