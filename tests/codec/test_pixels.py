"""What is taken as a picture: every form of the same pixels is the same file, and nothing else is read."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg import encode, write_coefficients
from dnnjpeg.codec.pillow import origins
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.jpeg.inspect import inspect
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS


@pytest.fixture
def rgb(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo)[:101, :77]


def with_fourth(array: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, array.shape[:2], np.uint8)
    return np.dstack([array, noise])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("hardness", [None, 1])
def test_orders_of_channels_give_one_file(subsampling: str, hardness: float | None, rgb: np.ndarray) -> None:
    options = {"subsampling": subsampling, "hardness": hardness}
    expected = encode(rgb, **options)
    assert encode(rgb, mode="RGB", **options) == expected
    assert encode(rgb[:, :, ::-1], mode="BGR", **options) == expected
    assert encode(with_fourth(rgb), mode="RGBX", **options) == expected
    assert encode(with_fourth(rgb[:, :, ::-1]), mode="BGRX", **options) == expected
    assert encode(Image.fromarray(rgb), **options) == expected
    assert encode(Image.fromarray(rgb).convert("RGBX"), **options) == expected


def test_images_of_pillow_are_their_arrays(rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb)
    for mode in ("L", "YCbCr", "CMYK"):
        converted = image.convert(mode)
        assert encode(converted) == encode(np.asarray(converted), mode=mode)
    bilevel = image.convert("1")
    assert encode(bilevel) == encode(np.asarray(bilevel.convert("L")))
    assert encode(bilevel) == encode(np.asarray(bilevel).astype(np.uint8) * 255)


def test_a_file_that_is_not_loaded_yet(rgb: np.ndarray, tmp_path: Any) -> None:
    Image.fromarray(rgb).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert encode(image) == encode(rgb)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBX", "YCbCr", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (77, 101), (1000, 40), (33_000, 130), (130, 40_000), (4100, 1100)])
def test_images_of_pillow_of_any_size(mode: str, size: tuple[int, int]) -> None:
    """Pillow keeps large pictures in several blocks of 16 MB, and gray ones a byte a pixel."""
    width, height = size
    plane = np.add.outer(np.arange(height) * 3, np.arange(width)).astype(np.uint8)
    image = Image.merge(
        "RGB", [Image.fromarray(plane), Image.fromarray(plane[::-1]), Image.fromarray(255 - plane)]
    )
    image = image.convert("RGB" if mode == "RGBX" else mode)
    array = np.asarray(image.convert("L") if mode == "1" else image)
    if mode == "RGBX":
        image = image.convert("RGBX")
    expected = encode(array, mode={"1": "L", "RGBX": "RGB"}.get(mode, mode), hardness=9)
    assert encode(image, hardness=9) == encode(image, hardness=9, threads=3) == expected


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"progressive": True}, {"restart_rows": 3}])
def test_a_large_image_of_pillow_is_read_in_parts(subsampling: str, options: dict[str, Any]) -> None:
    plane = np.add.outer(np.arange(1003) * 3, np.arange(4200)).astype(np.uint8)
    image = Image.merge(
        "RGB", [Image.fromarray(plane), Image.fromarray(plane[::-1]), Image.fromarray(255 - plane)]
    )
    options = {"subsampling": subsampling, **options}
    assert encode(image, **options) == encode(np.asarray(image), **options)


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("height", [1040, 1041, 1056])
def test_a_large_image_of_a_pillow_that_does_not_tell_where_rows_are(
    is_told: bool, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = np.add.outer(np.arange(height) * 3, np.arange(4200)).astype(np.uint8)
    image = Image.fromarray(np.dstack([plane, plane[::-1], 255 - plane]))
    if not is_told:
        monkeypatch.setattr("dnnjpeg.codec.pillow._size_place", lambda: None)
    windows = list(as_pixels(image, None).bands(0, -(-height // 16), 16))
    edges = [(begin, end) for _, _, begin, end in windows]
    assert edges[0][0] == 0 and edges[-1][1] == -(-height // 16)
    assert all(one[1] == other[0] for one, other in pairwise(edges))
    assert encode(image) == encode(np.asarray(image))


def test_memory_of_a_large_image_of_pillow() -> None:
    """All rows are where Pillow says that they are, pixel by pixel."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1100, 4200, 3), np.uint8))
    places, stride = origins(image)
    assert len(set(places.tolist())) > 1
    for y in range(0, 1100, 7):
        row = ctypes.string_at(int(places[y]) + y * stride, stride)
        assert row == image.crop((0, y, 4200, y + 1)).convert("RGBX").tobytes()


def test_parts_and_copies_of_images_of_pillow(photo: Image.Image) -> None:
    buffer = bytearray(np.asarray(photo.convert("RGBX")).tobytes())
    shared = Image.frombuffer("RGBX", photo.size, buffer, "raw", "RGBX", 0, 1)
    for image in (
        photo.crop((3, 5, 90, 71)),
        photo.resize((31, 17)),
        photo.transpose(Image.Transpose.ROTATE_90),
        photo.copy(),
        photo.getchannel("G"),
        shared,
        Image.frombytes("L", (13, 7), bytes(range(91))),
    ):
        array = np.asarray(image)
        assert encode(image) == encode(array, mode=image.mode)


def test_an_image_of_pillow_can_be_changed_and_encoded_again(photo: Image.Image) -> None:
    first = encode(photo)
    photo.putpixel((5, 5), (255, 0, 255))
    photo.paste((0, 0, 0), (50, 50, 90, 90))
    assert encode(photo) == encode(np.asarray(photo)) != first


@pytest.mark.parametrize(
    "setting", ["PILLOW_ALIGNMENT=64", "PILLOW_BLOCK_SIZE=64k", "PILLOW_BLOCK_SIZE=256m"]
)
def test_other_layouts_of_pillows_memory(setting: str) -> None:
    """Bytes between the rows; many blocks; one large block."""
    program = (
        "import numpy as np; from PIL import Image; from dnnjpeg import encode\n"
        "for mode in ('1', 'L', 'RGB', 'CMYK'):\n"
        "    for width in (1, 77, 80, 4001):\n"
        "        image = Image.effect_noise((width, 1140), 90).convert(mode)\n"
        "        array = np.asarray(image.convert('L') if mode == '1' else image)\n"
        "        expected = encode(array, mode={'1': 'L'}.get(mode, mode))\n"
        "        assert encode(image) == encode(image, threads=2) == expected, (mode, width)\n"
    )
    environment = os.environ | dict([setting.split("=")])
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flipped": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "mirrored": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "turned": lambda a: np.rot90(np.ascontiguousarray(np.rot90(a)), -1),
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every third column": lambda a: np.repeat(a, 3, axis=1)[:, ::3],
    "cropped": lambda a: np.pad(a, [(3, 5), (7, 1), *[(0, 0)] * (a.ndim - 2)])[3:-5, 7:-1],
    "planar": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1),
    "channels of a wider array": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "read-only": lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].reshape(a.shape),
    "big-endian": lambda a: a.astype(">u1"),
    "a subclass": lambda a: a.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str, rgb: np.ndarray) -> None:
    for picture, mode in (
        (rgb, "RGB"),
        (with_fourth(rgb), "CMYK"),
        (rgb[:, :, :1], "L"),
        (rgb[:, :1], "RGB"),
    ):
        assert encode(VIEWS[view](picture), mode=mode) == encode(np.ascontiguousarray(picture), mode=mode)


def test_a_row_repeated_without_copies() -> None:
    row = np.arange(100, dtype=np.uint8)
    assert encode(np.broadcast_to(row, (50, 100))) == encode(np.tile(row, (50, 1)))


def test_one_channel_with_or_without_an_axis(rgb: np.ndarray) -> None:
    assert encode(rgb[:, :, :1]) == encode(rgb[:, :, 0]) == encode(rgb[:, :, :1], mode="L")


def test_the_picture_is_left_as_it_was(rgb: np.ndarray) -> None:
    before = rgb.copy()
    encode(rgb)
    assert np.array_equal(before, rgb)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_strides(data: st.DataObject) -> None:
    """Steps of any sign and offset through a larger array."""
    channels = data.draw(st.sampled_from((1, 3)))
    base = np.random.default_rng(0).integers(0, 256, (40, 60, channels), np.uint8)
    index = []
    for size in base.shape[:2]:
        step = data.draw(st.sampled_from((-3, -2, -1, 1, 2, 3)))
        start = data.draw(st.integers(0, size - 1))
        index.append(slice(start, None, step))
    view = base[tuple(index)]
    assert encode(view) == encode(view.copy())


# --- what is refused ---


@pytest.mark.parametrize(
    "dtype", [bool, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64, complex, object, "S1"]
)
def test_other_types_of_numbers(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"image is an array of .*, expected uint8"):
        encode(np.zeros((8, 8), dtype))


@pytest.mark.parametrize("image", [None, "x.png", b"\xff\xd8", [[1, 2], [3, 4]], 5, memoryview(bytes(4))])
def test_other_objects(image: Any) -> None:
    with pytest.raises(TypeError, match=f"image is a {type(image).__name__}"):
        encode(image)


@pytest.mark.parametrize(
    ("shape", "mode", "message"),
    [
        ((0, 5), None, "image is empty"),
        ((5, 0), None, "image is empty"),
        ((0, 5, 3), None, "image is empty"),
        ((5, 0, 4), "CMYK", "image is empty"),
        ((5,), None, r"shape \(5,\)"),
        ((), None, r"shape \(\)"),
        ((5, 4, 2), None, r"shape \(5, 4, 2\)"),
        ((5, 4, 0), None, r"shape \(5, 4, 0\)"),
        ((1, 5, 4, 3), None, r"shape \(1, 5, 4, 3\)"),
        ((5, 4, 4), None, "name the mode of four channels"),
        ((5, 4, 4), "RGB", r"shape \(5, 4, 4\), expected height x width x 3 for mode RGB"),
        ((5, 4, 3), "RGBX", r"expected height x width x 4 for mode RGBX"),
        ((5, 4, 3), "L", r"expected height x width for mode L"),
        ((5, 4), "YCbCr", r"expected height x width x 3 for mode YCbCr"),
        ((5, 4, 1), "RGB", r"shape \(5, 4, 1\)"),
        ((5, 4, 3), "RGBA", "mode is 'RGBA', expected one of L, RGB, BGR"),
        ((5, 4, 3), "", "mode is ''"),
        ((5, 4, 3), ["RGB"], r"mode is \['RGB'\]"),
        ((5, 4, 3), 3, "mode is 3"),
        ((65536, 1), None, "height is 65536"),
        ((1, 65536), None, "width is 65536"),
        ((1, 65536, 3), None, "width is 65536"),
    ],
)
def test_shapes_and_modes(shape: tuple[int, ...], mode: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(np.zeros(shape, np.uint8), mode=mode)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "PA", "RGBa", "La", "I", "F", "I;16", "LAB", "HSV"])
def test_modes_of_pillow_that_jpeg_does_not_have(mode: str) -> None:
    with pytest.raises(OSError, match=f"cannot write mode {mode} as JPEG"):
        encode(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_empty_images_of_pillow(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="image is empty"):
        encode(Image.new("RGB", size))


def test_an_image_of_pillow_knows_its_mode() -> None:
    with pytest.raises(ValueError, match="mode is 'RGB'"):
        encode(Image.new("RGB", (4, 4)), mode="RGB")


def test_largest_sides(decode: Callable[[bytes], np.ndarray]) -> None:
    for shape in (
        (1, 65500),
        (65500, 1),
        (2, 65500, 3),
        (65500, 2, 3),
    ):  # no decoder built on libjpeg takes more
        assert decode(encode(np.full(shape, 128, np.uint8))).shape == shape
    for shape in ((1, 65535), (65535, 1)):
        with pytest.warns(UserWarning, match="most decoders stop at 65,500"):
            data = encode(np.full(shape, 128, np.uint8))
        found = inspect(data)
        assert (found.height, found.width) == shape and found.complete


@pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"progressive": "auto"}, {"threads": 2}])
def test_sides_that_most_decoders_refuse_are_warned_of_once_a_call(options: dict[str, Any]) -> None:
    for shape in ((65501, 1), (1, 65501)):
        with pytest.warns(UserWarning) as caught:
            encode(np.full(shape, 128, np.uint8), **options)
        text = f"the picture has {shape[1]:,} x {shape[0]:,} pixels, and most decoders stop at 65,500 a side"
        assert [str(one.message) for one in caught] == [text]
        assert caught[0].filename == __file__


def test_coefficients_of_such_sides_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="65,501 x 1 pixels") as caught:
        write_coefficients([np.zeros((1, 8188, 8, 8), np.int16)], [[1] * 64], 65501, 1)
    assert len(caught) == 1 and caught[0].filename == __file__
    write_coefficients([np.zeros((1, 8188, 8, 8), np.int16)], [[1] * 64], 65500, 1)


def test_what_jpeg_cannot_hold_is_an_error_without_a_warning() -> None:
    with pytest.raises(ValueError, match="width is 65536"):
        encode(np.zeros((1, 65536), np.uint8))


def test_pixels_name_their_size() -> None:
    pixels = as_pixels(np.zeros((3, 5, 4), np.uint8), "BGRX")
    assert (pixels.width, pixels.height, pixels.mode) == (5, 3, "BGRX")


# --- memory ---


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mprotect")
@pytest.mark.parametrize("side", ["begin", "end"])
@pytest.mark.parametrize("what", ["pictures", "coefficients", "reading", "transcoding"])
def test_no_access_outside_of_any_buffer(what: str, side: str) -> None:
    program = Path(__file__).parent / "programs" / "fenced.py"
    run = subprocess.run([sys.executable, str(program), what, side], capture_output=True, text=True)
    cases = run.stdout.splitlines()
    assert run.returncode == 0, f"ended with {run.returncode} at {cases[-1:]}\n{run.stderr[-2000:]}"
    assert len(cases) > 200
