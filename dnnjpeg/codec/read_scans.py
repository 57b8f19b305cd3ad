"""The scans of a frame (T.81 B.2.3): their headers checked, their data decoded into the frame's planes."""

from collections.abc import Mapping

import numpy as np

from dnnjpeg.codec import bands, decode, intervals
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.lookup import (
    AC,
    AC_FIRST,
    AC_REFINE,
    DC,
    NO_TABLE,
    TABLE_BYTES,
    check_codes,
    lookup_tables,
)
from dnnjpeg.codec.scan import PLANE, STRIDE
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.segments import Component
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.memory import borrow, empty, give_back

MAX_SCANS = 200  # real files have a dozen; T.81 alone would allow thousands, each of which costs time
MAX_MCU_BLOCKS = 10  # T.81 B.2.3

NATURAL_ORDER, ZIGZAG_ORDER = (
    np.pad(np.array(order, np.uint8) * 2, (0, decode.BEYOND), "edge") for order in (NATURAL, range(64))
)
"""Where in a block, in bytes, coefficients go, by position in zigzag order, and by those behind the last."""

_WRONG = {
    intervals.BAD_CODE: "has a Huffman code that is none",
    intervals.TOO_MANY: "has coefficients beyond the last one of a block",
    intervals.TOO_SHORT: "has a scan that breaks off",
    intervals.TOO_LARGE: "has a coefficient beyond 1,023",
    intervals.WRONG_MARKER: "has a marker that is not due",
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


class Scans:
    """Those of one frame."""

    def __init__(
        self,
        frame: Frame,
        parts: tuple[Component, ...],
        progressive: bool,
        order: np.ndarray,
        damage: Damage,
    ):
        self.frame, self.parts, self.progressive = frame, parts, progressive
        self.order, self.damage = order, damage
        self.count = 0
        self.tables: dict[int, Steps] = {}  # by component, those at its first scan
        self.known = [[-1] * 64 for _ in parts]  # by component and coefficient: the lowest bit so far, or -1
        self.planes = empty(frame.planes(True)[1] * 64, np.int16)
        if progressive or damage.salvage:
            self.planes.fill(0)

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
        members, band, selectors = self._scan_header(header)
        self._note(members, quantization, *band)
        frame = self.frame
        geometry = frame.planes(True)[0].tolist()
        many = len(members) > 1
        places: dict[tuple[bytes, int], int] = {}
        fields = []
        for c, selector in zip(members, selectors, strict=True):
            h, v, *_ = geometry[c] if many else (1, 1)
            tables = [
                places.setdefault(wanted, TABLE_BYTES * len(places))
                for wanted in self._tables(selector, huffman, *band)
            ]
            fields.append((h, v, geometry[c][STRIDE], geometry[c][PLANE], tables[0], tables[-1]))
        part = frame.components[members[0]]
        mcus, rows = (frame.mcus, frame.mcu_rows) if many else (part.columns, part.rows)
        note, block = np.zeros(1, intervals.NOTE), borrow(end - first + intervals.SLACK)
        where = (
            note, array, first, end, block[0], self.planes, np.array(fields), lookup_tables((*places,)), mcus,
            rows, interval, self.order, self.damage.salvage,
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

    def _scan_header(self, body: bytes) -> tuple[list[int], tuple[int, int, int, int], list[tuple[int, int]]]:
        """Components, the band and the bits, numbers of DC and AC tables (T.81 B.2.3)."""
        count = body[0] if body else 0
        if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
            raise ValueError(f"SOS has {len(body)} bytes of content, for {count} components")
        ids = [part.id for part in self.parts]
        named = list(body[1 : 1 + 2 * count : 2])
        if len({*named}) < count or not {*named} <= {*ids}:
            raise ValueError(f"SOS names the components {named} of {ids}")
        members = [ids.index(one) for one in named]
        blocks = sum(h * v for h, v in (self.frame.sampling[c] for c in members))
        if count > 1 and blocks > MAX_MCU_BLOCKS:
            raise ValueError(f"an MCU has {blocks} blocks, expected at most {MAX_MCU_BLOCKS}")
        selectors = [(one >> 4, one & 15) for one in body[2 : 2 + 2 * count : 2]]
        start, end, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        if not self.progressive:
            if (start, end, high, low) != (0, 63, 0, 0):
                self.damage.note(f"has a sequential scan of the band {start}..{end}, bits {high}, {low}")
            return members, (0, 63, 0, 0), selectors
        wrong_band = end != 0 if start == 0 else not start <= end <= 63 or count > 1
        if wrong_band or low > 10 or (high and low != high - 1):
            raise ValueError(f"SOS has the band {start}..{end}, bits {high}, {low} for {count} components")
        return members, (start, end, high, low), selectors

    def _note(
        self, members: list[int], quantization: Mapping[int, Steps], start: int, end: int, high: int, low: int
    ) -> None:
        """What the scan makes known."""
        for c in members:
            number = self.parts[c].table
            if c not in self.tables:
                if number not in quantization:
                    raise ValueError(f"quantization table {number} is missing")
                self.tables[c] = quantization[number]
                if 0 in self.tables[c]:
                    raise ValueError(f"quantization table {number} has a step of 0")
            known = self.known[c]
            if start and known[0] < 0:
                self.damage.note("has a scan of AC before that of DC")
            count = end + 1 - start
            if known[start : end + 1] != [high or -1] * count:
                self.damage.note("has a scan of what is known already, or not yet")
            known[start : end + 1] = [low] * count

    def _tables(
        self,
        selector: tuple[int, int],
        huffman: Mapping[int, bytes],
        start: int,
        end: int,
        high: int,
        low: int,
    ) -> list[tuple[bytes, int]]:
        """The DC and AC table of a component, and what each codes; where one is not used, the other alone."""
        wanted = []
        if start == 0 and not high:
            wanted.append((selector[0], DC))
        if start or not self.progressive:
            wanted.append((selector[1] | 0x10, (AC_REFINE if high else AC_FIRST) if self.progressive else AC))
        for number, _ in wanted:
            if number not in huffman:
                raise ValueError(f"Huffman table {'AC' if number >> 4 else 'DC'} {number & 15} is missing")
            check_codes(huffman[number])
        # refining DC takes plain bits
        return [(huffman[number], kind) for number, kind in wanted] or [NO_TABLE]

    def finish(self, quantization: Mapping[int, Steps]) -> tuple[Steps, ...]:
        """The tables by component, when all scans are read."""
        for c, part in enumerate(self.parts):
            if self.known[c][0] < 0:
                self.damage.note(f"has no scan of component {c + 1}")
                self.tables.setdefault(c, quantization.get(part.table, (1,) * 64))
        return tuple(self.tables[c] for c in range(len(self.parts)))


def _stuffed(data: bytes, begin: int, count: int) -> int:
    """The byte at which `count` bytes from `begin` end, stuffing not counted."""
    end, before = begin + count, -1
    while end != before:
        before, end = end, begin + count + data.count(b"\xff\0", begin, end)
    return min(end, len(data))
