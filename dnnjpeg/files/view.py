"""The part of a picture that a network sees, and its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Picture = NDArray[np.uint8]  # height x width x 3, RGB
Pictures = Sequence[Picture] | NDArray[np.uint8]  # an array N x H x W x 3 if all have the same size

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of the kernels, in pixels of the coarser grid


@dataclass(frozen=True)
class View:
    """Resize a picture, and crop its centre to `size` x `size` pixels.

    resize: length of the shorter side after resizing, as with torchvision's `Resize` and `CenterCrop`. None:
        a shorter side above 8/7 of `size` is reduced to that, one below `size` is enlarged to `size`, and
        others stay as they are. A picture of `size` x `size` is never resized.
    interpolation: "bilinear" or "bicubic", both with Pillow's antialiasing.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bicubic"

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of a picture that is shown, in pixels."""
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
        """The view of a Pillow image, in its mode."""
        box = self.box(*image.size)
        return image.resize((self.size, self.size), FILTERS[self.interpolation], box)

    def of(self, picture: Picture) -> Picture:
        """The view of an array, uint8 size x size x 3."""
        if picture.shape == (self.size, self.size, 3):
            return picture
        return np.asarray(self.show(Image.fromarray(picture)))

    def matrices(self, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The view as two matrices, for gradients: down @ channel @ across.T is the view of a channel.

        Returns down, float32 size x height, and across, float32 size x width. The result is Pillow's, but in
        floating point and not clipped to 0..255.
        """
        left, top, right, bottom = self.box(width, height)
        return (
            _weights(height, top, bottom, self.size, self.interpolation),
            _weights(width, left, right, self.size, self.interpolation),
        )


def upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF says. EXIF that cannot be read is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's parser raises many kinds
        return image


@lru_cache(maxsize=64)
def _weights(length: int, start: float, stop: float, size: int, interpolation: str) -> NDArray[np.float32]:
    """The weights of `length` pixels in each of `size` pixels between start and stop, size x length."""
    pitch = (stop - start) / size
    scale = max(pitch, 1.0)  # the kernel is as wide as the coarser grid needs
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
    """Keys' kernel with a = -1/2 (Keys 1981, eq. 15), for distances >= 0."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
