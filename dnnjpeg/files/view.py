"""What is shown of a picture: which part of it, at which size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
