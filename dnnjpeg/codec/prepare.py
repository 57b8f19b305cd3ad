"""What pictures of one size and mode are encoded with, made from an operating point and options."""

import os
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from dnnjpeg.checks import brief
from dnnjpeg.codec.coding import Coding
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.picture import Work
from dnnjpeg.codec.pixels import mode_components
from dnnjpeg.codec.quantize import Quantizer, quantizer_of
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.fields import spread
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

DEFAULT_QUALITY = 75  # of a table, unless told otherwise
T = TypeVar("T")


def operating_point(
    table: str | os.PathLike[str] | Table | OperatingPoint, quality: float | None
) -> tuple[OperatingPoint, str]:
    """The operating point that a table has at a quality, and the name of the table.

    table: a table, its name or its path; or an OperatingPoint, which has its quality and the name "custom".
    quality: 1..100. None means 75.

    Raises TypeError for another kind of table, and ValueError for a quality beside an OperatingPoint.
    """
    if isinstance(table, OperatingPoint):
        if quality is not None:
            raise ValueError(f"table is an OperatingPoint, its quality is {table.quality}: leave out quality")
        return table, "custom"
    if not isinstance(table, Table):
        if not isinstance(table, str | os.PathLike):
            raise TypeError(f"table is {brief(table)}, expected a name, a path, a Table or an OperatingPoint")
        table = load_table(table)
    return table.at(DEFAULT_QUALITY if quality is None else quality), table.name


@lru_cache(maxsize=256)
def prepared(
    point: OperatingPoint, options: EncodeOptions, width: int, height: int, mode: str
) -> tuple[Coding, Work]:
    """What all pictures of one size and mode share; the latest 256 are kept.

    width, height: in pixels. mode: see `pixels.Pixels`.
    """
    components = mode_components(mode)
    coding = coding_of(
        width,
        height,
        sampling_of(components, options.subsampling or point.subsampling),
        for_all(point.tables, components),
        options,
    )
    quantizer = quantizer_for(point, options.hardness, components)
    restart = 0 if options.progressive else coding.interval
    return coding, Work.of(coding.frame, mode, quantizer, options.seed, bool(options.progressive), restart)


def coding_of(
    width: int,
    height: int,
    sampling: tuple[tuple[int, int], ...],
    tables: tuple[Steps, ...],
    options: EncodeOptions,
) -> Coding:
    """The coding of a picture of a size, in pixels.

    sampling: the sampling factors (h, v) of each component.
    tables: the 64 steps of each component. Equal ones are written once.
    """
    used = tuple(dict.fromkeys(tables))  # equal tables are written once
    return Coding(Frame(width, height, sampling, tuple(used.index(table) for table in tables)), used, options)


def sampling_of(components: int, subsampling: str) -> tuple[tuple[int, int], ...]:
    """The sampling factors (h, v) of each component. Only three components are subsampled."""
    return SUBSAMPLINGS[subsampling] if components == 3 else ((1, 1),) * components


@lru_cache(maxsize=64)
def quantizer_for(point: OperatingPoint, hardness: Any, components: int) -> Quantizer:
    """The quantizer of an operating point, for pictures of 1, 3 or 4 components.

    hardness: in place of the point's. None leaves that.
    """
    if hardness is not None:
        point = replace(point, hardness=hardness)
    kappas, limits = tuple(map(spread, point.hardness)), tuple(map(spread, point.max_index))
    return quantizer_of(
        for_all(point.divisors, components), for_all(kappas, components), for_all(limits, components)
    )


def for_all(rows: tuple[T, ...], components: int) -> tuple[T, ...]:
    """The value of each component. All components of gray and CMYK pictures have that of luma, the first."""
    return by_component(rows if components == 3 else rows[:1], components)


def by_component(rows: tuple[T, ...], components: int) -> tuple[T, ...]:
    """The value of each component. If there are too few values, the last one is repeated."""
    return (rows + rows[-1:] * 3)[:components]
