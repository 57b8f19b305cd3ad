"""How the coefficients of a JPEG file are requantized for an operating point."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from dnnjpeg.codec.prepare import quantizer_for
from dnnjpeg.codec.quantize import Quantizer
from dnnjpeg.codec.requantize import Laws, Sampling, reduction
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.point import OperatingPoint

_ROLES = {"gray": (0,), "YCbCr": (0, 1, 2), "RGB": (0, 0, 0), "CMYK": (0, 0, 0, 0), "YCCK": (0, 1, 2, 0)}
"""The role of each component: 0 is luma or treated like luma, 1 is Cb, 2 is Cr."""


@lru_cache(maxsize=64)
def laws_of(
    point: OperatingPoint,
    asked: str,
    hardness: Any,
    colour: str,
    known: tuple[Steps, ...],
    before: Sampling,
    after: Sampling,
) -> tuple[tuple[Steps, ...], Laws]:
    """The quantization tables of the new file, and how the coefficients are requantized.

    asked: the subsampling that the steps of the point are for, a key of `SUBSAMPLINGS`.
    hardness: in place of the point's. None keeps the point's.
    colour: of the components: "gray", "YCbCr", "RGB", "CMYK" or "YCCK".
    known: the 64 steps of each component of the source.
    before, after: the sampling factors (h, v) of each component, in the source and in the new file.
    """
    if colour == "YCbCr":
        (h, v), (across, down), _ = after
        wide, high = SUBSAMPLINGS[asked][0]
        point = _for_fewer_samples(point, max(h / across / wide, 1), max(v / down / high, 1))
    roles = list(_ROLES[colour])
    tables: list[Steps] = []
    divisors: list[tuple[float, ...]] = []
    for c, role in enumerate(roles):
        wanted, given = _last(point.tables, role), _last(point.divisors, role)
        if reduction(before, after, c) == (1, 1):
            divisors.append(
                tuple(k if w <= k else d for k, w, d in zip(known[c], wanted, given, strict=True))
            )
            tables.append(tuple(map(max, known[c], wanted)))
        else:
            divisors.append(given)
            tables.append(wanted)
    whole = quantizer_for(point, hardness, 3 if 1 in roles else 1)
    law = Quantizer(whole.scale[roles], whole.law[roles], whole.reach[roles], whole.limit[roles])
    return tuple(tables), Laws.of(known, tuple(divisors), law, before, after)


def _for_fewer_samples(point: OperatingPoint, across: float, down: float) -> OperatingPoint:
    """The point for chroma that has fewer samples than the steps of the point are for.

    across, down: how many times fewer, 1 or more.

    A block of such chroma covers more pixels. So its coefficients are lower frequencies of the picture, and
    an error in one of them changes more pixels. The new steps are interpolated at the same frequencies of the
    picture, and divided by sqrt(across * down). Then each frequency has as much noise as before.
    """
    if across == down == 1:
        return point
    places = np.arange(8)

    def thinned(steps: Steps) -> Steps:
        table = np.array(steps).reshape(8, 8)
        table = np.array([np.interp(places / across, places, row) for row in table])
        table = np.array([np.interp(places / down, places, column) for column in table.T]).T
        return tuple(np.maximum(np.rint(table / (across * down) ** 0.5), 1).astype(int).ravel().tolist())

    return replace(point, chroma=tuple(map(thinned, point.chroma)))


def _last(rows: Sequence[Any], number: int) -> Any:
    """The row with this number, or the last row if there are fewer."""
    return rows[min(number, len(rows) - 1)]
