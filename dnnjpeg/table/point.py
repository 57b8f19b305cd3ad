"""An operating point: the quantization tables of one quality, and their forms as JSON, wizard text and CSV.

Everything a user may hand in is checked where the object is made, with a `ValueError` that names the field.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Any, Self, TypeVar

from dnnjpeg.checks import (
    Cells,
    Hardness,
    Limits,
    brief,
    check_cells,
    check_chroma,
    check_hardness,
    check_keys,
    check_limits,
    check_quality,
    check_record,
    check_steps,
    check_tables,
)
from dnnjpeg.jpeg.standard import STANDARD_LUMA, Steps, nearest_quality

T = TypeVar("T")

# Sampling factors (horizontal, vertical) of Y, Cb, Cr.
SUBSAMPLINGS = {
    "4:4:4": ((1, 1), (1, 1), (1, 1)),
    "4:2:2": ((2, 1), (1, 1), (1, 1)),
    "4:2:0": ((2, 2), (1, 1), (1, 1)),
    "4:4:0": ((1, 2), (1, 1), (1, 1)),
    "4:1:1": ((4, 1), (1, 1), (1, 1)),
}
_OPTIONAL = ("hardness", "cells", "limits", "measured")


@dataclass(frozen=True)
class OperatingPoint:
    """The quantization tables of one quality, checked and brought into one form when made.

    quality: number 1..100: loses as little as a standard JPEG of that quality does.
    subsampling: a name of SUBSAMPLINGS.
    luma: 64 steps 1..255 in natural order.
    chroma: 64 steps for Cb and Cr, or a list of one or two such tables; kept as a tuple of tables.
    hardness: κ >= 0.01 of the probabilistic quantizer (its alpha times the step squared); None rounds to the
        nearest. One for all, 64 for all (entries may be None), or a list with one of these a table, luma
        first; kept as the latter.
    measured: what was measured at this point (bpp, bytes, top1, loss, images), or None.
    cells: the width, in steps, 0.5..2, of the range of coefficients that become one index: a coefficient is
        divided by step times cell, and decodes to the index times the step. None is 1. Given and kept as
        hardness is.
    limits: the largest magnitude of an index, 1..1023: what is beyond is held to it. None is no limit. Given
        and kept as hardness is.

    Raises ValueError that names the field. `dataclasses.replace` checks again.
    """

    quality: float
    subsampling: str
    luma: Steps
    chroma: tuple[Steps, ...]
    hardness: tuple[Hardness, ...] = ()
    measured: Mapping[str, Any] | None = field(default=None, hash=False)
    cells: tuple[Cells, ...] = ()
    limits: tuple[Limits, ...] = ()

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("quality", check_quality(self.quality))
        if self.subsampling not in tuple(SUBSAMPLINGS):
            raise ValueError(
                f"subsampling is {brief(self.subsampling)}, expected one of {', '.join(SUBSAMPLINGS)}"
            )
        put("luma", check_steps(self.luma, "luma"))
        put("chroma", check_chroma(self.chroma))
        put("hardness", check_hardness(self.hardness, len(self.tables)))
        put("cells", check_cells(self.cells, len(self.tables)))
        put("limits", check_limits(self.limits, len(self.tables)))
        if self.measured is not None:
            put("measured", check_record(self.measured, "measured"))

    @property
    def tables(self) -> tuple[Steps, ...]:
        """Luma, then the one or two chroma tables."""
        return self.luma, *self.chroma

    @property
    def divisors(self) -> tuple[tuple[float, ...], ...]:
        """By table, what coefficients are divided by: steps times cells."""
        return tuple(
            tuple(map(mul, *pair)) for pair in zip(self.tables, map(spread, self.cells), strict=True)
        )

    @property
    def table_names(self) -> tuple[str, ...]:
        """What `tables` are for: luma and chroma, or luma, cb and cr."""
        return ("luma", "chroma") if len(self.chroma) == 1 else ("luma", "cb", "cr")

    @classmethod
    def from_tables(
        cls,
        tables: Any,
        *,
        quality: float | None = None,
        subsampling: str = "4:2:0",
        hardness: Any = None,
    ) -> Self:
        """A point from bare tables: one (for all components), two (luma, chroma) or three (Y, Cb, Cr).

        tables: sequences or arrays of 64 integers or 8x8, or a mapping of them by number, as Pillow's
            `image.quantization`. quality: None takes the standard quality that the luma steps resemble most.
        Raises ValueError for what is not 1..255 or not 64.
        """
        items = check_tables(tables, "tables", "1 to 3 tables of 64 integers")
        if len(items) in (8, 64):  # one bare table
            items = [items]
        if not 1 <= len(items) <= 3:
            raise ValueError(f"tables has {len(items)} tables, expected 1 to 3")
        luma, *chroma = (tuple(_flat(table)) for table in items)
        if quality is None:
            quality, _ = nearest_quality(check_steps(luma, "luma"), STANDARD_LUMA)
        return cls(quality, subsampling, luma, tuple(chroma) or (luma,), hardness)

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """A point from its JSON object. Raises ValueError that names the missing, unknown or wrong field."""
        check_keys(document, "point", ("quality", "subsampling", "luma", "chroma"), _OPTIONAL)
        return cls(**document)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the point: lists and numbers only; cells only where some are not 1, limits where
        there are any.
        """
        luma, *chroma = (list(table) for table in self.tables)
        kappas, cells, limits = (
            [list(entry) if isinstance(entry, tuple) else entry for entry in entries]
            for entries in (self.hardness, self.cells, self.limits)
        )
        return {
            "quality": self.quality,
            "subsampling": self.subsampling,
            "luma": luma,
            "chroma": chroma if len(chroma) > 1 else chroma[0],
            "hardness": None if kappas == [None] * len(kappas) else kappas,
            **({} if cells == [1] * len(cells) else {"cells": cells}),
            **({} if limits == [None] * len(limits) else {"limits": limits}),
            "measured": None if self.measured is None else dict(self.measured),
        }


def point_key(
    point: OperatingPoint,
    *,
    subsampling: str | None = None,
    quantizer: str | None = None,
    hardness: Any = None,
    seed: int = 0,
    progressive: bool | str = False,
    optimize: bool | None = None,
) -> tuple[Any, ...]:
    """What the files of `encode` with a point and these options of its depend on, to be told apart by the
    `repr`. The files must have no signature, which names table and quality: then these have no say.
    """
    if hardness is not None:
        point = replace(point, hardness=hardness)
    kappas: Any = point.hardness
    if quantizer == "nearest" or kappas == (None,) * len(kappas):
        kappas, seed = None, 0
    if subsampling is None:
        subsampling = point.subsampling
    steps = point.luma, point.chroma, point.cells, point.limits
    return "dnnjpeg", subsampling, *steps, kappas, seed, progressive, optimize is not False


def format_steps(steps: Sequence[int]) -> str:
    """64 steps as eight lines of eight."""
    width = len(str(max(steps)))
    return "\n".join(" ".join(f"{step:{width}}" for step in steps[i : i + 8]) for i in range(0, 64, 8))


def to_wizard(point: OperatingPoint) -> str:
    """The point's tables as the text that `cjpeg -qtables FILE` and Pillow's `qtables=` read."""
    (across, down), *_ = SUBSAMPLINGS[point.subsampling]
    slots = ",".join(str(i) for i in range(len(point.tables)))
    lines = [
        f"# quality {point.quality}, {point.subsampling}, natural order",
        f"# cjpeg -qtables FILE -qslots {slots} -sample {across}x{down}",
    ]
    if any(kappa is not None for kappa in point.hardness):
        lines.append("# hardness is not part of this format: whoever reads it rounds to the nearest")
    if any(cell != 1 for cell in point.cells):
        lines.append("# cells are not part of this format: whoever reads it takes them for 1")
    if any(limit is not None for limit in point.limits):
        lines.append("# limits are not part of this format: whoever reads it has none")
    for name, table in zip(point.table_names, point.tables, strict=True):
        lines += [f"# {name}", format_steps(table)]
    return "\n".join(lines) + "\n"


def parse_wizard(text: str) -> list[Steps]:
    """The 1 to 4 tables of 64 steps in wizard text, where `#` starts a comment.

    Raises ValueError that names the line; `OperatingPoint.from_tables` checks the range of the steps.
    """
    steps: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.split("#", 1)[0].split():
            if not (word.isascii() and word.isdigit() and len(word) <= 5):
                raise ValueError(
                    f"line {number}: {brief(word)} is not a quantization step, expected an integer 1..255"
                )
            steps.append(int(word))
    if len(steps) not in (64, 128, 192, 256):
        raise ValueError(f"{len(steps)} quantization steps, expected 64 for each of 1 to 4 tables")
    return [tuple(steps[i : i + 64]) for i in range(0, len(steps), 64)]


def to_csv(point: OperatingPoint) -> str:
    """The point as CSV, a line a coefficient. Hardness and limit are empty for none."""
    lines = ["table,row,column,step,hardness,cell,limit"]
    columns = point.tables, *(map(spread, entries) for entries in (point.hardness, point.cells, point.limits))
    for name, *table in zip(point.table_names, *columns, strict=True):
        for i, (step, kappa, cell, limit) in enumerate(zip(*table, strict=True)):
            rest = f"{'' if kappa is None else kappa},{cell:g},{'' if limit is None else limit}"
            lines.append(f"{name},{i // 8},{i % 8},{step},{rest}")
    return "\n".join(lines) + "\n"


def spread(entry: T | tuple[T, ...]) -> tuple[T, ...]:
    """An entry of hardness, cells or limits by coefficient."""
    return entry if isinstance(entry, tuple) else (entry,) * 64


def _flat(value: Any, levels: int = 2) -> Iterator[Any]:
    """The numbers of a table of 64 or of 8x8; what is nested deeper is left to the checks."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # a matrix has none but rows, without end
    if levels and isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        for item in value:
            yield from _flat(item, levels - 1)
    else:
        yield value
