"""What is done to a source's coefficients so that the file is of an operating point."""

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
"""By component, whether it is luma or alike, Cb or Cr."""


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
    """The tables that the file gets, and what is done to coefficients; `known`: the tables of the source.
    `asked`: the subsampling that the point's steps are for.
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
    """The point for chroma with fewer samples than its steps are for, by such factors.

    A block then covers more of the picture, and an error in it more pixels, at lower frequencies. The steps
    are those of the same frequencies of the picture, and smaller: as much noise at each of them.
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
    """That row; the last one serves all further ones."""
    return rows[min(number, len(rows) - 1)]
