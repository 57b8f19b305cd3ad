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
FITS = ("crop", "letterbox", "whole")
_BORDER = 114  # grey around a letterbox, as detectors have it
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of the kernels, in pixels of the coarser grid


@dataclass(frozen=True)
class View:
    """Resize a picture, and crop its centre to `size` x `size` pixels.

    fit: "crop" does that. "letterbox" shows the whole picture in the square, its proportions kept, between
        grey borders. "whole" shows the whole picture at its own size, its sides rounded to multiples of
        `size`.
    resize: for "crop", length of the shorter side after resizing, as with torchvision's `Resize` and
        `CenterCrop`. None: a shorter side above 8/7 of `size` is reduced to that, one below `size` is
        enlarged to `size`, and others stay as they are. A picture of `size` x `size` is never resized.
    interpolation: "bilinear" or "bicubic", both with Pillow's antialiasing.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bicubic"
    fit: str = "crop"

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the view of a picture."""
        if self.fit != "whole":
            return self.size, self.size
        rows, columns = (max(round(side / self.size), 1) * self.size for side in (height, width))
        return rows, columns

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of a picture that is shown, in pixels.

        A letterbox shows more than the picture has.
        """
        size, short = self.size, min(width, height)
        if self.fit == "whole":
            return 0, 0, width, height
        if self.fit == "letterbox":
            wide, high = self._inside(width, height)
            left, top = (size - wide) // 2 * width / wide, (size - high) // 2 * height / high
            return -left, -top, size * width / wide - left, size * height / high - top
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
        how = FILTERS[self.interpolation]
        if self.fit == "letterbox":
            wide, high = self._inside(*image.size)
            square = Image.new(image.mode, (self.size, self.size), (_BORDER,) * len(image.getbands()))
            square.paste(image.resize((wide, high), how), ((self.size - wide) // 2, (self.size - high) // 2))
            return square
        rows, columns = self.shape(*image.size)
        return image.resize((columns, rows), how, self.box(*image.size))

    def of(self, picture: Picture) -> Picture:
        """The view of an array, uint8 height x width x 3 with the sides of `shape`."""
        height, width = picture.shape[:2]
        if (height, width) == self.shape(width, height):
            return picture
        return np.asarray(self.show(Image.fromarray(picture)))

    def matrices(self, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The view as two matrices, for gradients: down @ channel @ across.T is the view of a channel.

        Returns down, float32 with a row for each row of the view and a column for each of the picture, and
        across, the same for columns. The result is Pillow's, but in floating point and not clipped to 0..255.
        The border of a letterbox is 0: `border` adds it.
        """
        left, top, right, bottom = self.box(width, height)
        rows, columns = self.shape(width, height)
        return (
            _weights(height, top, bottom, rows, self.interpolation),
            _weights(width, left, right, columns, self.interpolation),
        )

    def border(self, width: int, height: int) -> NDArray[np.float32]:
        """The grey around a letterbox, float32 with the sides of `shape`, and 0 inside."""
        grey = np.zeros(self.shape(width, height), np.float32)
        if self.fit == "letterbox":
            wide, high = self._inside(width, height)
            left, top = (self.size - wide) // 2, (self.size - high) // 2
            grey += _BORDER
            grey[top : top + high, left : left + wide] = 0
        return grey

    def _inside(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture in its letterbox."""
        scale = self.size / max(width, height)
        return max(round(width * scale), 1), max(round(height * scale), 1)


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
        if not 0 <= centre <= length:
            continue  # in the border of a letterbox
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), length)
        x = np.abs((np.arange(first, last) + 0.5 - centre) / scale)
        kernel = _cubic(x) if interpolation == "bicubic" else np.maximum(1 - x, 0)
        weights[i, first:last] = kernel / kernel.sum()
    return weights.astype(np.float32)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2 (Keys 1981, eq. 15), for distances >= 0."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
