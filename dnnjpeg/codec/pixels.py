"""What a caller may hand in as a picture, brought to rows of bytes that the kernels read in place."""

from dataclasses import dataclass
from typing import Any

import numpy as np

MODES = {"L": 1, "RGB": 3, "BGR": 3, "YCbCr": 3, "RGBX": 4, "BGRX": 4, "CMYK": 4}
"""Modes of an array and their channels."""

_PIL_MODES = {"1": "L", "L": "L", "RGB": "RGB", "RGBX": "RGBX", "YCbCr": "YCbCr", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Pixels:
    """uint8 `rows` of shape [height, width] or [height, width, channels], channels of `mode` adjacent in memory."""

    rows: np.ndarray
    mode: str

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    @property
    def height(self) -> int:
        return self.rows.shape[0]


def as_pixels(image: Any, mode: str | None) -> Pixels:
    """A PIL image, or a uint8 array of the given mode, as pixels.

    Raises TypeError for anything else, OSError for a PIL image in a mode that JPEG does not have, ValueError for an array whose shape
    does not fit its mode and for an empty picture.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, mode)
    if not hasattr(image, "mode") or not hasattr(image, "tobytes"):
        raise TypeError(f"image is a {type(image).__name__}, expected a PIL image or a uint8 array")
    if mode is not None:
        raise ValueError(f"mode is {mode!r}, but a PIL image knows its own; pass mode with an array only")
    if image.mode not in _PIL_MODES:
        raise OSError(f"cannot write mode {image.mode} as JPEG")
    if 0 in image.size:
        raise ValueError(f"image is empty: {image.width} x {image.height} pixels")
    return Pixels(np.asarray(image.convert("L") if image.mode == "1" else image), _PIL_MODES[image.mode])


def _from_array(array: np.ndarray, mode: str | None) -> Pixels:
    if array.dtype != np.uint8:
        raise TypeError(f"image is an array of {array.dtype}, expected uint8; scale it to 0..255 and convert it")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if mode is None:
        mode = {(2, 1): "L", (3, 3): "RGB"}.get((array.ndim, array.shape[-1] if array.ndim == 3 else 1))
        if mode is None:
            raise ValueError(
                f"image has shape {array.shape}, expected height x width or height x width x 3; "
                f"name the mode of four channels (one of {', '.join(m for m, n in MODES.items() if n == 4)})"
            )
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    if array.ndim != (2 if MODES[mode] == 1 else 3) or (array.ndim == 3 and array.shape[2] != MODES[mode]):
        shape = "height x width" + (f" x {MODES[mode]}" if MODES[mode] > 1 else "")
        raise ValueError(f"image has shape {array.shape}, expected {shape} for mode {mode}")
    if array.size == 0:
        raise ValueError(f"image is empty: its shape is {array.shape}")
    # rows may lie apart and run backwards, pixels within a row may not
    packed = array.strides[1:] == ((1,) if array.ndim == 2 else (array.shape[2], 1))
    return Pixels(array if packed else np.ascontiguousarray(array), mode)
