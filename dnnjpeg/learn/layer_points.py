"""Operating points and the parameters of a JPEG layer, one from the other.

Files have no steps below 1. A layer's step below 1 becomes a step of 1 with a lower max_index, or back.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dnnjpeg.checks import check_array
from dnnjpeg.soft.jpeg import MaxIndices
from dnnjpeg.table.fields import MaxIndex, spread
from dnnjpeg.table.point import OperatingPoint


def to_point(log_q: Tensor, max_index: MaxIndices, subsampling: str) -> OperatingPoint:
    """The operating point of a layer's round, with integer steps 1..255.

    log_q: logarithms of the steps, [tables, 64].
    max_index: largest indices of Y, Cb and Cr.
    """
    steps = log_q.exp().round().clamp(1, 255).int().tolist()
    point = OperatingPoint.from_tables(steps, subsampling=subsampling)
    return replace(point, max_index=tuple(map(_entry, max_index[: len(point.tables)])))


def without_limits(point: OperatingPoint) -> tuple[NDArray[np.float64], int]:
    """The steps of a layer, float64 tables x 64, and its levels, for a point with max_index.

    Raises ValueError if no number of levels gives this max_index.
    """
    entries = [[math.inf if limit is None else limit for limit in spread(entry)] for entry in point.max_index]
    max_index, steps = np.array(entries), np.array(point.tables, float)
    largest = max_index.max()
    if largest == math.inf or ((max_index < largest) & (steps > 1)).any():
        raise ValueError(
            "no number of levels gives the point's max_index: give levels, or a point without max_index"
        )
    return steps * max_index / largest, 2 * int(largest) + 1


def _entry(limit: int | Tensor | None) -> MaxIndex:
    """A limit of `quantize`, as an entry of a point's max_index."""
    if not isinstance(limit, Tensor):
        return limit
    held: list[int] = limit.int().tolist()
    return held[0] if len(set(held)) == 1 else tuple(held)


def first_tables(steps: ArrayLike | Sequence[Sequence[float]] | None) -> NDArray[np.float64]:
    """The first steps of a layer as tables x 64. Raises ValueError."""
    expected = "1 to 3 tables x 64"
    array = np.ones((2, 64)) if steps is None else check_array(steps, "steps", expected, float)
    if array.ndim != 2 or not 1 <= len(array) <= 3 or array.shape[1] != 64:
        raise ValueError(f"steps has the shape {array.shape}, expected {expected}")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError("steps holds numbers that are not above 0, expected finite numbers > 0")
    return array
