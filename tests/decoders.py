"""Independent readers of what the codec writes: libjpeg 6b for coefficients, three decoders for pixels."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

Read = Callable[[bytes], tuple[list[np.ndarray], list[np.ndarray]]]
Decode = Callable[[bytes], np.ndarray]


@pytest.fixture(scope="session")
def read_dct(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """read_dct(data): by component, indices [rows, columns, 8, 8] and steps [8, 8] as libjpeg 6b has them."""
    jpeglib = pytest.importorskip("jpeglib", reason="jpeglib has wheels for x86 only")
    path = tmp_path_factory.mktemp("read_dct") / "x.jpg"

    def read(data: bytes) -> tuple[list[np.ndarray], list[np.ndarray]]:
        path.write_bytes(data)
        file = jpeglib.read_dct(path)
        planes = [file.Y, file.Cb, file.Cr, file.K][: file.num_components]
        return planes, [file.get_component_qt(c) for c in range(len(planes))]

    return read


@pytest.fixture(scope="session")
def decode() -> Decode:
    """decode(data): the pixels, equal in Pillow, OpenCV and simplejpeg (which is strict about damage)."""

    def check(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            pillow, mode = np.asarray(image), image.mode
        opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        simple = simplejpeg.decode_jpeg(data, {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[mode])
        if mode == "CMYK":
            assert opencv.shape == (*pillow.shape[:2], 3)  # OpenCV makes BGR of it
            assert np.array_equal(255 - pillow, simple)  # as stored, inverted
        else:
            assert np.array_equal(pillow, opencv[:, :, ::-1] if mode == "RGB" else opencv)
            assert np.array_equal(pillow, simple if mode == "RGB" else simple[:, :, 0])
        return pillow

    return check
