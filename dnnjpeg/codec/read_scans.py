"""The scans of a frame (T.81 B.2.3): their headers checked, their data decoded into the frame's planes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from dnnjpeg.codec import bands, decode, intervals
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.halve import FOLDED
from dnnjpeg.codec.lookup import (
    AC,
    AC_FIRST,
    AC_REFINE,
    DC,
    MOST_BEHIND,
    TABLE_BYTES,
    lookup_tables,
)
from dnnjpeg.codec.scan import PLANE, STRIDE
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.segments import Component
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.memory import borrow, empty, give_back

MAX_SCANS = 200  # real files have a dozen; T.81 alone would allow thousands, each of which costs time
MAX_MCU_BLOCKS = 10  # T.81 B.2.3
_UNKNOWN = b"\xff"


def _order(positions: Iterable[int]) -> np.ndarray:
    return np.pad(np.array(positions, np.uint8) * 2, (0, MOST_BEHIND), "edge")


NATURAL_ORDER, ZIGZAG_ORDER, FOLDED_ORDER = map(_order, (NATURAL, range(64), np.argsort(FOLDED)))
"""Where in a block, in bytes, coefficients go, by position in zigzag order, and by those behind the last.
`FOLDED_ORDER` is for `halve`.
"""

_WRONG = {
    intervals.BAD_CODE: "has bits that are no Huffman code of its table",
    intervals.TOO_MANY: "has coefficients beyond the last one of a block",
    intervals.TOO_SHORT: "has a scan that breaks off",
    intervals.TOO_LARGE: "has a coefficient beyond 1,023",
    intervals.WRONG_MARKER: "has a marker in the wrong place",
    intervals.TOO_LONG: "has a scan with bytes left over",
}


class Damage:
    """Refused; with `salvage`, noted. found: whether there is any."""

    def __init__(self, salvage: bool):
        self.salvage, self.found = salvage, False

    def note(self, what: str) -> None:
        if not self.salvage:
            raise ValueError(f"the file {what}")
        self.found = True


@dataclass(frozen=True, eq=False)
class Heading:
    """What a frame header says, of which only the geometry counts for the frame."""

    frame: Frame
    parts: tuple[Component, ...]
    subsampling: str


@dataclass(frozen=True, eq=False)
class ScanPlan:
    """What a scan header says.

    members: numbers of the components. band: first and last coefficient, high and low bit.
    whole: False for a sequential scan of another band than all coefficients.
    huffman: the tables as DHT numbers them, class << 4 | number. kinds: what each codes, see `lookup`.
    fields: of the components, see `intervals`.
    """

    members: tuple[int, ...]
    band: tuple[int, int, int, int]
    whole: bool
    huffman: tuple[int, ...]
    kinds: tuple[int, ...]
    fields: np.ndarray
    mcus: int
    rows: int


class FoundScan(NamedTuple):
    """A sequential scan of all components that is not decoded yet. `memory`: the file."""

    memory: np.ndarray
    first: int
    end: int
    plan: ScanPlan
    tables: np.ndarray
    interval: int


class Scans:
    """Those of one frame.

    later: leave a sequential scan of all components as it is. Nothing is salvaged then.
    """

    def __init__(self, heading: Heading, progressive: bool, order: np.ndarray, damage: Damage, later: bool):
        self.heading, self.progressive, self.order, self.damage = heading, progressive, order, damage
        self.later = later and not progressive
        self.found: FoundScan | None = None
        self.count = 0
        self.tables: dict[int, Steps] = {}  # by component, those at its first scan
        # by component and coefficient: the lowest bit so far, or `_UNKNOWN`
        self.known = [_UNKNOWN * 64] * len(heading.parts)

    @cached_property
    def planes(self) -> np.ndarray:
        planes = empty(self.heading.frame.planes(True)[1] * 64, np.int16)
        if self.progressive or self.damage.salvage:
            planes.fill(0)
        return planes

    def read(
        self,
        header: bytes,
        data: bytes,
        array: np.ndarray,
        first: int,
        end: int,
        quantization: Mapping[int, Steps],
        huffman: Mapping[int, bytes],
        interval: int,
    ) -> str:
        """Decode a scan, bytes `first`..`end`-1 of the data; returns what is wrong there. `array`: the data.
        `quantization`, `huffman`, `interval`: what is in force, as in the reader.
        """
        self.count += 1
        if self.count > MAX_SCANS:
            raise ValueError(f"the file has more than {MAX_SCANS} scans")
        plan = _planned(self.heading, self.progressive, header)
        if not plan.whole:
            start, stop, high, low = plan.band
            self.damage.note(f"has a sequential scan of the band {start}..{stop}, bits {high}, {low}")
        band = (0, 63, 0, 0) if not self.progressive else plan.band
        self._note(plan.members, quantization, *band)
        codes = tuple([huffman[number] for number in plan.huffman if number in huffman])
        tables = lookup_tables(codes, plan.kinds[: len(codes)])
        for number in plan.huffman:
            if number not in huffman:
                raise ValueError(f"Huffman table {'AC' if number >> 4 else 'DC'} {number & 15} is missing")
        if self.later and plan.members == self.heading.frame.every:
            self.found = FoundScan(array, first, end, plan, tables, interval)
            return ""
        note, block = np.zeros(1, intervals.NOTE), borrow(end - first + intervals.SLACK)
        where = (
            note, array, first, end, block[0], self.planes, plan.fields, tables, plan.mcus, plan.rows,
            interval, self.order, self.damage.salvage,
        )  # fmt: skip
        try:
            if self.progressive:
                error = bands.progressive_scan(*where, np.array([band], bands.BAND))
            else:
                error = decode.sequential_scan(*where)
        finally:
            give_back(block)
        if not error:
            return ""
        begin, bits = (int(note[name][0]) for name in ("interval", "bits"))
        return f"{_WRONG[error]} at byte {_stuffed(data, begin, bits // 8)}"

    def _note(
        self,
        members: tuple[int, ...],
        quantization: Mapping[int, Steps],
        start: int,
        end: int,
        high: int,
        low: int,
    ) -> None:
        """What the scan makes known."""
        count = end + 1 - start
        before, after = (bytes([high]) if high else _UNKNOWN) * count, bytes([low]) * count
        for c in members:
            if c not in self.tables:
                number = self.heading.parts[c].table
                if number not in quantization:
                    raise ValueError(f"quantization table {number} is missing")
                self.tables[c] = quantization[number]
                if 0 in self.tables[c]:
                    raise ValueError(f"quantization table {number} has a step of 0")
            known = self.known[c]
            if start and known.startswith(_UNKNOWN):
                self.damage.note("has a scan of AC before that of DC")
            if known[start : end + 1] != before:
                self.damage.note("has a scan of what is known already, or not yet")
            self.known[c] = known[:start] + after + known[end + 1 :]

    def finish(self, quantization: Mapping[int, Steps]) -> tuple[Steps, ...]:
        """The tables by component, when all scans are read."""
        parts = self.heading.parts
        for c, part in enumerate(parts):
            if self.known[c].startswith(_UNKNOWN):
                self.damage.note(f"has no scan of component {c + 1}")
                self.tables.setdefault(c, quantization.get(part.table, (1,) * 64))
        return tuple([self.tables[c] for c in range(len(parts))])


@lru_cache(maxsize=256)
def _planned(heading: Heading, progressive: bool, body: bytes) -> ScanPlan:
    """Of a scan header (T.81 B.2.3)."""
    frame, parts = heading.frame, heading.parts
    count = body[0] if body else 0
    if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
        raise ValueError(f"SOS has {len(body)} bytes of content, for {count} components")
    ids = [part.id for part in parts]
    named = list(body[1 : 1 + 2 * count : 2])
    if len({*named}) < count or not {*named} <= {*ids}:
        raise ValueError(f"SOS names the components {named} of {ids}")
    members = tuple(ids.index(one) for one in named)
    blocks = sum(h * v for h, v in (frame.sampling[c] for c in members))
    if count > 1 and blocks > MAX_MCU_BLOCKS:
        raise ValueError(f"an MCU has {blocks} blocks, expected at most {MAX_MCU_BLOCKS}")
    start, end, high, low = band = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
    wrong_band = end != 0 if start == 0 else not start <= end <= 63 or count > 1
    if progressive and (wrong_band or low > 10 or (high and low != high - 1)):
        raise ValueError(f"SOS has the band {start}..{end}, bits {high}, {low} for {count} components")
    geometry = frame.planes(True)[0].tolist()
    places: dict[tuple[int, int], int] = {}
    fields = []
    for c, selector in zip(members, body[2 : 2 + 2 * count : 2], strict=True):
        h, v, *_ = geometry[c] if count > 1 else (1, 1)
        # refining DC takes plain bits
        tables = [
            places.setdefault(wanted, TABLE_BYTES * len(places))
            for wanted in _tables(selector, progressive, start, high)
        ] or [0]
        fields.append((h, v, geometry[c][STRIDE], geometry[c][PLANE], tables[0], tables[-1], 0))
    part = frame.components[members[0]]
    mcus, rows = (frame.mcus, frame.mcu_rows) if count > 1 else (part.columns, part.rows)
    numbers, kinds = tuple(number for number, _ in places), tuple(kind for _, kind in places)
    whole = progressive or band == (0, 63, 0, 0)
    return ScanPlan(members, band, whole, numbers, kinds, np.array(fields), mcus, rows)


def _tables(selector: int, progressive: bool, start: int, high: int) -> list[tuple[int, int]]:
    """The DC and AC table of a component, and what each codes; where one is not used, the other alone."""
    dc, ac = (selector >> 4, DC), selector & 15 | 0x10
    if not progressive:
        return [dc, (ac, AC)]
    if start:
        return [(ac, AC_REFINE if high else AC_FIRST)]
    return [] if high else [dc]


def _stuffed(data: bytes, begin: int, count: int) -> int:
    """The byte at which `count` bytes from `begin` end, stuffing not counted."""
    end, before = begin + count, -1
    while end != before:
        before, end = end, begin + count + data.count(b"\xff\0", begin, end)
    return min(end, len(data))
