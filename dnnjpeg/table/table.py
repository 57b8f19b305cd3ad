"""Tables: operating points by quality, loaded, saved and interpolated.

A table is one JSON file. All steps are in natural (row-major) order.
"""

import json
import math
import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Self

from dnnjpeg.checks import brief, check_items, check_keys, check_quality, check_record
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.documents import read_json
from dnnjpeg.jpeg.standard import ijg_factor
from dnnjpeg.table.fields import Hardness, check_name, spread
from dnnjpeg.table.point import OperatingPoint

_MOST_KEPT = 200  # operating points of a table, for the next pictures


@dataclass(frozen=True)
class Table:
    """Operating points, sorted by quality.

    name: one line of printable text.
    points: at least one OperatingPoint. Each quality occurs once.
    description: text.
    provenance: how the table was made, as any JSON object.

    Raises ValueError that names the field.
    """

    name: str
    points: tuple[OperatingPoint, ...]
    description: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not isinstance(self.description, str) or re.search("[\ud800-\udfff]", self.description):
            raise ValueError(f"description is {brief(self.description)}, expected text")
        points = check_items(self.points, "points", "a list of OperatingPoint")
        for i, point in enumerate(points):
            if not isinstance(point, OperatingPoint):
                raise ValueError(f"points[{i}] is {brief(point)}, expected an OperatingPoint")
        if not points:
            raise ValueError("points is empty, expected at least one")
        points.sort(key=lambda point: point.quality)
        for one, other in pairwise(points):
            if one.quality == other.quality:
                raise ValueError(f"points has quality {one.quality} twice, expected it once")
        object.__setattr__(self, "points", tuple(points))
        object.__setattr__(self, "provenance", check_record(self.provenance, "provenance"))

    def at(self, quality: float) -> OperatingPoint:
        """The operating point for a quality 1..100.

        Between two points with the same subsampling, the logarithms of steps, κ, bin_width and max_index are
        interpolated, linearly in quality. Steps are then rounded. If only one of the two has a κ or a limit,
        the nearer point decides.

        Outside the points, and between points with different subsampling, the nearer point's steps are scaled
        by libjpeg's law: the ratio of `ijg_factor` at the two qualities.

        Raises ValueError if quality is not 1..100.
        """
        quality = check_quality(quality)
        point = self._at.get(quality)
        if point is None:
            point = self._made(quality)
            if len(self._at) < _MOST_KEPT:
                self._at[quality] = point
        return point

    def _made(self, quality: float) -> OperatingPoint:
        index = bisect_left(self.points, quality, key=lambda point: point.quality)
        low, high = self.points[max(index - 1, 0)], self.points[min(index, len(self.points) - 1)]
        if low is not high and low.subsampling == high.subsampling:
            return _between(low, high, quality)
        return _scaled(low if quality - low.quality < high.quality - quality else high, quality)

    @cached_property
    def _at(self) -> dict[float, OperatingPoint]:
        """Points that were asked for before, for all pictures of a folder ask for the same."""
        return {point.quality: point for point in self.points}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Make a table from a JSON object. Raises ValueError that names the field, as points[2].luma[5]."""
        check_keys(document, "table", ("format", "version", "name", "points"), ("description", "provenance"))
        for key, expected in (("format", "dnnjpeg-table"), ("version", 1)):
            if document[key] != expected or type(document[key]) is not type(expected):  # True is 1
                raise ValueError(f"{key} is {brief(document[key])}, expected {expected!r}")
        points = []
        for i, point in enumerate(check_items(document["points"], "points", "a list")):
            try:
                points.append(OperatingPoint.from_json(point))
            except ValueError as error:
                raise ValueError(f"points[{i}].{error}") from None
        rest = {key: document[key] for key in ("description", "provenance") if key in document}
        return cls(name=document["name"], points=tuple(points), **rest)

    def to_json(self) -> dict[str, Any]:
        """The table as a JSON object."""
        return {
            "format": "dnnjpeg-table",
            "version": 1,
            "name": self.name,
            "description": self.description,
            "points": [point.to_json() for point in self.points],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a table from a JSON file. Raises OSError, or ValueError that names the file and the field."""
        try:
            return cls.from_json(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path} is not a table: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a JSON file, one line for each point. The file is replaced in one step."""
        document = {key: json.dumps(value, ensure_ascii=False) for key, value in self.to_json().items()}
        points = ",\n".join(json.dumps(point.to_json()) for point in self.points)
        document["points"] = f"[\n{points}\n]"
        text = ",\n".join(f'"{key}": {value}' for key, value in document.items())
        write_atomic(path, f"{{\n{text}\n}}\n".encode())


@lru_cache(maxsize=256)
def _between(low: OperatingPoint, high: OperatingPoint, quality: float) -> OperatingPoint:
    share = (quality - low.quality) / (high.quality - low.quality)
    nearer = high if share >= 0.5 else low
    count = max(len(low.tables), len(high.tables))

    def pairs(a: tuple[Any, ...], b: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
        """The entries of both points for each table. One entry for Cb and Cr pairs with each of two."""
        return zip(a + a[-1:] * (count - len(a)), b + b[-1:] * (count - len(b)), strict=True)

    def mix(a: float, b: float) -> float:
        mixed = math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
        return min(max(mixed, min(a, b)), max(a, b))  # rounding must not lead outside a..b

    def mix_known(a: float | None, b: float | None) -> float | None:
        return (b if nearer is high else a) if a is None or b is None else mix(a, b)

    def mix_hardness(a: Hardness, b: Hardness) -> Hardness:
        if isinstance(a, tuple) or isinstance(b, tuple):
            return tuple(map(mix_known, spread(a), spread(b)))
        return mix_known(a, b)

    def mix_limit(a: int | None, b: int | None) -> int | None:
        mixed = mix_known(a, b)
        return None if mixed is None else round(mixed)

    luma, *chroma = (
        tuple(round(mix(*ab)) for ab in zip(a, b, strict=True)) for a, b in pairs(low.tables, high.tables)
    )
    hardness = tuple(mix_hardness(a, b) for a, b in pairs(low.hardness, high.hardness))
    bin_width = tuple(tuple(map(mix, spread(a), spread(b))) for a, b in pairs(low.bin_width, high.bin_width))
    max_index = tuple(
        tuple(map(mix_limit, spread(a), spread(b))) for a, b in pairs(low.max_index, high.max_index)
    )
    return OperatingPoint(
        quality, low.subsampling, luma, tuple(chroma), hardness, bin_width=bin_width, max_index=max_index
    )


@lru_cache(maxsize=256)
def _scaled(point: OperatingPoint, quality: float) -> OperatingPoint:
    # At quality 100 the factor is 0; 1 gives the standard tables the same steps, all 1, and a ratio exists.
    ratio = max(ijg_factor(quality), 1) / max(ijg_factor(point.quality), 1)
    luma, *chroma = (tuple(min(max(round(step * ratio), 1), 255) for step in table) for table in point.tables)
    return replace(point, quality=quality, luma=luma, chroma=tuple(chroma), measured=None)
