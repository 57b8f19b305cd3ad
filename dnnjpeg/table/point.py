"""An operating point: the quantization tables of one quality.

Everything a user may hand in is checked where the object is made, with a `ValueError` that names the field.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Any, Self

from dnnjpeg.checks import brief, check_keys, check_quality, check_record
from dnnjpeg.jpeg.standard import STANDARD_LUMA, Steps, nearest_quality
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.fields import (
    BinWidth,
    Hardness,
    MaxIndex,
    check_bin_width,
    check_chroma,
    check_hardness,
    check_max_index,
    check_steps,
    check_tables,
    spread,
)

_OPTIONAL = ("hardness", "bin_width", "max_index", "measured")


@dataclass(frozen=True)
class OperatingPoint:
    """The quantization tables of one quality, checked and brought into one form when made.

    quality: number 1..100: loses as little as a standard JPEG of that quality does.
    subsampling: a name of SUBSAMPLINGS.
    luma: 64 steps 1..255 in natural order.
    chroma: 64 steps for Cb and Cr, or a list of one or two such tables; kept as a tuple of tables.
    hardness: κ >= 0.01 of the probabilistic quantizer (its alpha times the step squared); None rounds to the
        nearest, as inf does. One for all, 64 for all (entries may be None), or a list with one of these a
        table, luma first; kept as the latter.
    measured: what was measured at this point (bpp, bytes, top1, loss, images), or None.
    bin_width: the width, in steps, 0.5..2, of the range of coefficients that become one index: a coefficient
        is divided by step times bin width, and decodes to the index times the step. None is 1. Given and kept
        as hardness is.
    max_index: the largest magnitude of an index, 1..1023: what is beyond is held to it. None is no limit.
        Given and kept as hardness is.

    Raises ValueError that names the field. `dataclasses.replace` checks again.
    """

    quality: float
    subsampling: str
    luma: Steps
    chroma: tuple[Steps, ...]
    hardness: tuple[Hardness, ...] = ()
    measured: Mapping[str, Any] | None = field(default=None, hash=False)
    bin_width: tuple[BinWidth, ...] = ()
    max_index: tuple[MaxIndex, ...] = ()

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
        put("bin_width", check_bin_width(self.bin_width, len(self.tables)))
        put("max_index", check_max_index(self.max_index, len(self.tables)))
        if self.measured is not None:
            put("measured", check_record(self.measured, "measured"))

    @property
    def tables(self) -> tuple[Steps, ...]:
        """Luma, then the one or two chroma tables."""
        return self.luma, *self.chroma

    @property
    def divisors(self) -> tuple[tuple[float, ...], ...]:
        """By table, what coefficients are divided by: steps times bin widths."""
        return tuple(
            tuple(map(mul, *pair)) for pair in zip(self.tables, map(spread, self.bin_width), strict=True)
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
        """The JSON object of the point: lists and numbers only; bin_width only where some are not 1,
        max_index where there are any.
        """
        luma, *chroma = (list(table) for table in self.tables)
        kappas, bin_width, max_index = (
            [list(entry) if isinstance(entry, tuple) else entry for entry in entries]
            for entries in (self.hardness, self.bin_width, self.max_index)
        )
        return {
            "quality": self.quality,
            "subsampling": self.subsampling,
            "luma": luma,
            "chroma": chroma if len(chroma) > 1 else chroma[0],
            "hardness": None if kappas == [None] * len(kappas) else kappas,
            **({} if bin_width == [1] * len(bin_width) else {"bin_width": bin_width}),
            **({} if max_index == [None] * len(max_index) else {"max_index": max_index}),
            "measured": None if self.measured is None else dict(self.measured),
        }


def point_key(point: OperatingPoint, options: EncodeOptions) -> tuple[Any, ...]:
    """What the files of `encode` with a point and options depend on, to be told apart by the `repr`. The
    files must have no signature, which names table and quality: then these have no say.
    """
    if options.hardness is not None:
        point = replace(point, hardness=options.hardness)
    kappas: Any = point.hardness
    seed = options.seed
    if kappas == (None,) * len(kappas):
        kappas, seed = None, 0
    steps = point.luma, point.chroma, point.bin_width, point.max_index
    subsampling = options.subsampling or point.subsampling
    return "dnnjpeg", subsampling, *steps, kappas, seed, options.progressive, options.optimize is not False


def _flat(value: Any, levels: int = 2) -> Iterator[Any]:
    """The numbers of a table of 64 or of 8x8; what is nested deeper is left to the checks."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # a matrix has none but rows, without end
    if levels and isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        for item in value:
            yield from _flat(item, levels - 1)
    else:
        yield value
