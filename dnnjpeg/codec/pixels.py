"""A caller's picture, PIL image or array, as rows of bytes that the kernels read where they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dnnjpeg.checks import brief
from dnnjpeg.codec.pillow import PIL_MODES, Rows, origins, rows_in_memory

MODES = {"L": 1, "RGB": 3, "BGR": 3, "YCbCr": 3, "RGBX": 4, "BGRX": 4, "CMYK": 4}
"""The modes of an array, and how many channels each has."""

_BAND_ROWS, _BAND_BYTES = 128, 8 << 20  # of a picture whose memory cannot be read in place; fits a cache


@dataclass(slots=True)
class Pixels:
    """A picture for the kernels. A channel is a byte, and the channels of a row are adjacent in memory.

    mode: a key of `MODES`, or "YCbCrX". width, height: in pixels.
    rows: where the rows are, or None if `image`, a PIL image, has them in several pieces.
    """

    mode: str
    width: int
    height: int
    rows: Rows | None
    image: Any = None

    def bands(self, first: int, last: int, mcu: int) -> Iterator[tuple[int, int, int, int]]:
        """Windows on the rows of MCUs first..last-1. An MCU is `mcu` pixels high.

        Yields (address, stride, begin, end). The window holds the rows of MCUs begin..end-1. The address is
        where the picture's first pixel would be if the whole picture lay in the window's memory. Rows of
        pixels are `stride` bytes apart. A window is valid until the next one is asked for.
        """
        if self.rows is not None:
            yield *self.rows[:2], first, last
            return
        places, stride = origins(self.image)
        starts = np.arange(0, self.height, mcu)
        lowest, highest = np.minimum.reduceat(places, starts), np.maximum.reduceat(places, starts)
        pieces = np.where(lowest == highest, lowest, 0)[first:last]
        edges = np.flatnonzero(np.diff(pieces)) + 1
        for begin, end in pairwise([0, *edges.tolist(), last - first]):
            if pieces[begin]:
                yield int(pieces[begin]), stride, first + begin, first + end
            else:
                yield from self._copied(first + begin, first + end, mcu)

    def _copied(self, first: int, last: int, mcu: int) -> Iterator[tuple[int, int, int, int]]:
        """The windows of `bands` on copies, of rows of MCUs that no piece of memory holds whole."""
        step = min(max(1, min(_BAND_ROWS, _BAND_BYTES // (4 * self.width)) // mcu), last - first)
        # one band for all: a fresh one each time costs a quarter more
        band = self.image.crop((0, first * mcu, self.width, (first + step) * mcu))
        for begin in range(first, last, step):
            if begin > first:
                band.paste(self.image, (0, -begin * mcu))
            address, stride, owner = _read(band)
            yield address - begin * mcu * stride, stride, begin, min(begin + step, last)
            del owner


def mode_components(mode: str) -> int:
    """The number of components of a JPEG file that is made from pixels of a mode: 1, 3 or 4."""
    return {"L": 1, "CMYK": 4}.get(mode, 3)


def as_pixels(image: Any, mode: str | None) -> Pixels:
    """The pixels of a PIL image or of a uint8 array. Their values stay as they are.

    image: a PIL image, or an array height x width or height x width x channels.
    mode: of an array, a key of `MODES`. None means L for one channel and RGB for three.

    Raises TypeError for another kind of object or of numbers, OSError for a PIL image whose mode JPEG does
    not have, and ValueError for an empty picture, a shape that does not fit the mode, or a mode beside a PIL
    image.
    """
    if isinstance(image, Pixels):
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image, mode)
    if not hasattr(image, "mode") or not hasattr(image, "tobytes"):
        raise TypeError(f"image is a {type(image).__name__}, expected a PIL image or a uint8 array")
    if mode is not None:
        raise ValueError(
            f"mode is {brief(mode)}, but a PIL image has its own mode: give mode with an array only"
        )
    its_mode, (width, height) = image.mode, image.size
    if its_mode not in PIL_MODES:
        raise OSError(f"cannot write mode {its_mode} as JPEG: convert the image first, for example to RGB")
    if not (width and height):
        raise ValueError(f"image is empty: {width} x {height} pixels")
    image.load()
    try:
        rows = rows_in_memory(image)
    except (AttributeError, ValueError):
        rows = None
    return Pixels(PIL_MODES[its_mode], width, height, rows, image)


def as_image(pixels: Pixels) -> Any:
    """The pixels as a PIL image in the mode RGB or L."""
    from PIL import Image

    if pixels.image is not None:
        return pixels.image.convert("L" if pixels.mode == "L" else "RGB")
    assert pixels.rows is not None
    array = pixels.rows[2]
    if pixels.mode in ("L", "CMYK", "YCbCr"):
        image = Image.fromarray(array, pixels.mode)
        return image if pixels.mode == "L" else image.convert("RGB")
    channels = array[..., 2::-1] if pixels.mode.startswith("BGR") else array[..., :3]
    return Image.fromarray(np.ascontiguousarray(channels))


def _read(image: Any) -> Rows:
    """The pixels of a band as they are in Pillow's memory, or a copy like them."""
    try:
        return rows_in_memory(image)
    except (AttributeError, ValueError):
        rows = np.asarray(image.convert("L") if image.mode == "1" else image)
        if rows.ndim == 3 and rows.shape[2] == 3:
            rows = np.concatenate([rows, rows[:, :, :1]], axis=2)
        return _rows(rows)


def _rows(array: np.ndarray) -> Rows:
    return array.__array_interface__["data"][0], array.strides[0], array


def _from_array(array: np.ndarray, mode: str | None) -> Pixels:
    if array.dtype != np.uint8:
        raise TypeError(
            f"image is an array of {array.dtype}, expected uint8; scale it to 0..255 and convert it"
        )
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if mode is None:
        mode = {1: "L", 3: "RGB"}.get(channels)
        if mode is None:
            raise ValueError(
                f"image has shape {array.shape}, expected height x width or height x width x 3; "
                f"name the mode of four channels (one of {', '.join(m for m, n in MODES.items() if n == 4)})"
            )
    if mode not in tuple(MODES):
        raise ValueError(f"mode is {brief(mode)}, expected one of {', '.join(MODES)}")
    if channels != MODES[mode]:
        shape = "height x width" + (f" x {MODES[mode]}" if MODES[mode] > 1 else "")
        raise ValueError(f"image has shape {array.shape}, expected {shape} for mode {mode}")
    if array.size == 0:
        raise ValueError(f"image is empty: its shape is {array.shape}")
    height, width = array.shape[:2]
    rows = array.reshape(height, width) if channels == 1 else array
    # rows may lie apart and run backwards, pixels within a row may not
    packed = rows.strides[1:] == ((1,) if channels == 1 else (channels, 1))
    return Pixels(mode, width, height, _rows(rows if packed else np.ascontiguousarray(rows)))
