"""Many pictures at once, and files of pictures."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

import dnnjpeg
from dnnjpeg.plugins.batches import FileEncoder, encode_batch

HOW: dict[str, Any] = {"table": "universal", "quality": 60}
PIXELS = np.stack([draw(64, 48, seed) for seed in range(9)])
EXPECTED = [dnnjpeg.encode(one, "universal", 60) for one in PIXELS]


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_arrays(threads: int | None) -> None:
    assert encode_batch(PIXELS, "universal", 60, threads=threads) == EXPECTED
    assert encode_batch([], threads=threads) == []
    gray = PIXELS[..., 0]
    assert encode_batch(gray, threads=threads) == [dnnjpeg.encode(one) for one in gray]


def test_tensors_and_mixtures() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(PIXELS).permute(0, 3, 1, 2)
    assert encode_batch(tensor, "universal", 60) == EXPECTED
    mixed = [tensor[0], PIXELS[1], Image.fromarray(PIXELS[2])]
    assert encode_batch(mixed, "universal", 60) == EXPECTED[:3]
    assert encode_batch(tensor[:, :1]) == [dnnjpeg.encode(one) for one in PIXELS[..., 0]]


def test_options_go_to_encode() -> None:
    options: dict[str, Any] = {"progressive": True, "subsampling": "4:4:4", "comment": b"x"}
    assert encode_batch(PIXELS[:1], **options) == [dnnjpeg.encode(PIXELS[0], **options)]


def test_an_error_says_which_picture() -> None:
    torch = pytest.importorskip("torch")
    for bad in (torch.zeros(3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8), np.zeros((8, 8)), "x.jpg"):
        with pytest.raises((TypeError, ValueError)) as raised:
            encode_batch([PIXELS[0], PIXELS[1], bad])
        assert raised.value.__notes__ == ["This is about pictures[2]."]


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_files() -> None:
    image = Image.fromarray(PIXELS[0])
    encoder = pickle.loads(pickle.dumps(FileEncoder("universal", 60)))
    assert encoder.encode(image) == encoder.encode(PIXELS[0]) == EXPECTED[0]
    assert encoder.encode(file_of(image, "PNG")) == EXPECTED[0]
    jpeg = file_of(image, "JPEG", quality=95, comment=b"kept")
    assert encoder.encode(memoryview(jpeg)) == dnnjpeg.transcode(jpeg, **HOW)
    assert b"kept" in encoder.encode(jpeg)
    exif = Image.Exif()
    exif[0x010F] = "maker"
    assert b"maker" in encoder.encode(file_of(image, "PNG", exif=exif))


def test_a_jpeg_of_another_kind_goes_by_pixels(cjpeg: Any) -> None:
    arithmetic = cjpeg(Image.fromarray(PIXELS[0]), "-arithmetic")
    with Image.open(io.BytesIO(arithmetic)) as opened:
        pixels = np.asarray(opened)
    assert FileEncoder("universal", 60).encode(arithmetic) == dnnjpeg.encode(pixels, **HOW)


@pytest.mark.parametrize(
    "options", [{"table": "resnet5000"}, {"quality": 0}, {"threads": 2}, {"strip": True}]
)
def test_wrong_options_raise_at_once(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        FileEncoder(**options)


def test_a_file_object_is_no_picture() -> None:
    with pytest.raises(TypeError, match="image is a BytesIO"):
        FileEncoder().encode(io.BytesIO(EXPECTED[0]))


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0\0\1"])
def test_what_is_no_picture_raises(data: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        FileEncoder().encode(data)
