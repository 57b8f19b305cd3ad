"""What a network is shown of a picture: which part of it, at which size, in which range of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dnnjpeg.checks import brief, check_integer, check_items, check_keys, is_number

Picture = NDArray[np.uint8]  # height x width x 3, RGB
Pictures = Sequence[Picture] | NDArray[np.uint8]  # an array N x H x W x 3 where all are of one size

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of the kernels, in pixels of the coarser grid


@dataclass(frozen=True)
class View:
    """A centre crop of `size` x `size` pixels, after the picture is resized.

    resize: what the shorter side is brought to first, as torchvision's `Resize` and `CenterCrop` do. With
        None, a shorter side above 8/7 of the size is reduced to that, one below the size is enlarged to it,
        and one between stays as it is. A square of just the size is always shown as it is.
    interpolation: "bilinear" or "bicubic"; both antialiased, as Pillow's.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bicubic"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of a picture that becomes the view."""
        size, short = self.size, min(width, height)
        if (width, height) == (size, size):
            return 0, 0, size, size
        if self.resize is None:
            side = short * size / min(max(short, size), round(size * 8 / 7))
            left, top = (width - side) / 2, (height - side) / 2
            if side == size:  # whole pixels, so that nothing is resampled
                left, top = int(left), int(top)
            return left, top, left + side, top + side
        wide, high = (int(self.resize * side / short) for side in (width, height))
        left, top = round((wide - size) / 2), round((high - size) / 2)
        x, y = width / wide, height / high
        return left * x, top * y, (left + size) * x, (top + size) * y

    def show(self, image: Image.Image) -> Image.Image:
        """The view, by Pillow, in the picture's mode. A long, narrow picture costs no memory."""
        box = self.box(*image.size)
        return image.resize((self.size, self.size), FILTERS[self.interpolation], box)

    def of(self, picture: Picture) -> Picture:
        """The view of an array, size x size x 3."""
        if picture.shape == (self.size, self.size, 3):
            return picture
        return np.asarray(self.show(Image.fromarray(picture)))

    def matrices(self, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Down (size x height) and across (size x width): down @ channel @ across.T is the view of a channel.

        What Pillow computes, but in floating point and not held to 0..255: for gradients.
        """
        left, top, right, bottom = self.box(width, height)
        return (
            _weights(height, top, bottom, self.size, self.interpolation),
            _weights(width, left, right, self.size, self.interpolation),
        )


@lru_cache(maxsize=64)
def _weights(length: int, start: float, stop: float, size: int, interpolation: str) -> NDArray[np.float32]:
    """What each of `length` pixels adds to each of `size` pixels between start and stop."""
    pitch = (stop - start) / size
    scale = max(pitch, 1.0)  # a kernel is as wide as the coarser grid needs
    reach = _REACH[interpolation] * scale
    weights = np.zeros((size, length))
    for i in range(size):
        centre = start + (i + 0.5) * pitch
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), length)
        x = np.abs((np.arange(first, last) + 0.5 - centre) / scale)
        kernel = _cubic(x) if interpolation == "bicubic" else np.maximum(1 - x, 0)
        weights[i, first:last] = kernel / kernel.sum()
    return weights.astype(np.float32)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2 (Keys 1981, eq. 15), of distances >= 0."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class Preprocess:
    """What a network takes: a `View`, as (pixels / 255 - mean) / std for red, green and blue."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int | None = None
    interpolation: str = "bicubic"

    @property
    def view(self) -> View:
        """Of stored pictures."""
        return View(self.size, self.resize, self.interpolation)

    @classmethod
    def of(cls, value: Any) -> Self:
        """From a dict of `size`, `mean` and `std`, and `resize` and `interpolation` where they are known: see
        `View`. Raises ValueError that names the field.
        """
        check_keys(value, "preprocess", ("size", "mean", "std"), ("resize", "interpolation"))
        mean, std = (_three(value[name], name) for name in ("mean", "std"))
        if not all(0 <= x <= 1 for x in mean):
            raise ValueError(f"mean is {mean}, expected 0..1, the mean of pixels / 255")
        if not all(x > 0 for x in std):
            raise ValueError(f"std is {std}, expected numbers above 0")
        size, resize = check_integer(value["size"], "size", 1, 65535), value.get("resize")
        if resize is not None:
            resize = check_integer(resize, "resize", size, 65535)
        interpolation = value.get("interpolation", "bicubic")
        if interpolation not in FILTERS:
            raise ValueError(f"interpolation is {interpolation!r}, expected {' or '.join(FILTERS)}")
        return cls(size, mean, std, resize, interpolation)


def _three(value: Any, name: str) -> tuple[float, float, float]:
    numbers = check_items(value, name, "three numbers")
    if len(numbers) != 3 or not all(is_number(x) and math.isfinite(x) for x in numbers):
        raise ValueError(f"{name} is {brief(value)}, expected three numbers: red, green, blue")
    red, green, blue = map(float, numbers)
    return red, green, blue
