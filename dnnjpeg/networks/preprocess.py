"""What a network takes: the part of a picture that it sees, in its range of numbers."""

import math
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any, Self

from dnnjpeg.checks import check_integer, check_items, check_keys, is_number
from dnnjpeg.files.view import FILTERS, View


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
