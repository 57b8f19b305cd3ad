"""Scans of tokens become the entropy-coded part of a file: choose Huffman tables, pack bits, put scan headers
in front.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from dnnjpeg.codec.bits import CHUNK, COUNT_ROWS, close_bounds, emit, join, pack, pack_at
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import (
    CHOICE,
    SYMBOLS,
    ScanTables,
    add_up,
    choose,
    chosen_tables,
    coded_bits,
    optimal_huffman,
)
from dnnjpeg.jpeg import markers
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.memory import empty
from dnnjpeg.machine.simd import address

SLACK = 128  # bytes that whole vectors may be read or written past the end of a buffer
BIT_SCRATCH = 4 * CHUNK + SLACK  # uint32 that `bits.emit_at` works in


DESK = np.dtype(
    [
        ("counts", np.uint32, (COUNT_ROWS, SYMBOLS)),
        ("state", np.int64, 4),
        ("coded", np.int64, 3),
        ("choice", CHOICE),
    ],
    align=True,
)
"""What the hot loop notes, zero at first: counts of the symbols; DC predictions; of a coded scan how many
bytes it came to, their address, and what `huffman.choose` returned; its tables.
"""


@dataclass(frozen=True)
class Tokens:
    """The first `count` of the uint32 `memory`; `counts`: uint32[4, 1024], rows that add up to the count of
    each symbol.
    """

    memory: np.ndarray
    count: int
    counts: np.ndarray

    @property
    def most_bytes(self) -> int:
        """The largest size of their codes: 27 bits each."""
        return 4 * self.count + SLACK


class Scan(NamedTuple):
    """A coded scan: its Huffman tables, and the bytes behind its header.

    `restart`: MCUs between restarts, or 0. `band`, `bits`: Ss, Se and Ah, Al.
    """

    components: tuple[int, ...]
    huffman: ScanTables
    data: bytes | memoryview
    restart: int = 0
    band: tuple[int, int] = (0, 63)
    bits: tuple[int, int] = (0, 0)


def interval_bounds(mcus: int, restart: int) -> np.ndarray:
    """Room for what kernels note of restart intervals: int64, how many, the token each begins at, the end.

    Where no interval is noted, all tokens are one.
    """
    return np.zeros(3 + (mcus // restart if restart else 0), np.int64)


@inlined
def code_in_place(tokens, end, room_end, bounds, desk, optimize, scratch):
    """Choose Huffman tables and pack the tokens from `tokens` to `end`, where they leave enough of their own
    room.

    `desk`: a record of `DESK`, whose `lut` is filled already unless `optimize`. `scratch`: see
    `bits.emit_at`.
    """
    add_up(desk.counts, desk.choice.total)
    if optimize:
        desk.coded[2] = choose(desk.choice)
    close_bounds(bounds, (end - tokens) // 4)
    bits = coded_bits(desk.choice)
    # each interval ends in a byte begun; stuffing doubles bytes at the most
    raw, raw_bytes = end + SLACK, (bits >> 3) + bounds[0] + SLACK
    target = raw + raw_bytes
    if target + 2 * (raw_bytes + bounds[0]) + SLACK <= room_end:
        desk.coded[0] = pack_at(tokens, bounds, address(desk.choice.lut), raw, target, scratch)
        desk.coded[1] = target


def tokens_of(memory: np.ndarray, place: int, count: int, desk: np.ndarray) -> Tokens:
    """Those that a kernel has left `place` bytes behind the first multiple of 64 in its memory."""
    begin = -memory.ctypes.data % 64 + int(place)
    return Tokens(
        memory[begin : begin + (memory.size - begin & ~3)].view(np.uint32), count, desk["counts"][0]
    )


def coded(
    memory: np.ndarray,
    place: int,
    count: int,
    desk: np.ndarray,
    bounds: np.ndarray,
    known: ScanTables | None,
) -> tuple[ScanTables, bytes]:
    """Tables and data of a scan, as `code_in_place` has left them; or where its room was too small, of the
    tokens.
    """
    written, data, chosen = desk["coded"][0].tolist()
    if written == 0:
        return code_tokens(tokens_of(memory, place, count, desk), bounds, known)
    return known or chosen_tables(chosen, desk["choice"]), ctypes.string_at(data, written)


def with_headers(frame: Frame, scans: Sequence[Scan], tables: bool) -> list[bytes | memoryview]:
    """The scans with their headers, in parts: DHT (where `tables`), DRI where it changes, SOS, data."""
    parts: list[bytes | memoryview] = []
    interval = 0
    for scan in scans:
        if tables:
            parts.append(markers.dht(scan.huffman.dht))
        if scan.restart != interval:
            parts.append(markers.dri(scan.restart))
            interval = scan.restart
        parts += (_sos(frame, scan.components, scan.huffman.destinations, scan.band, scan.bits), scan.data)
    return parts


@lru_cache(maxsize=256)
def _sos(
    frame: Frame,
    components: tuple[int, ...],
    destinations: tuple[tuple[int, int], tuple[int, int]],
    band: tuple[int, int],
    bits: tuple[int, int],
) -> bytes:
    selectors = tuple((c, *destinations[frame.components[c].huffman_table]) for c in components)
    return markers.sos(selectors, band, bits)


def code_tokens(tokens: Tokens, bounds: np.ndarray, known: ScanTables | None) -> tuple[ScanTables, bytes]:
    """The tables and the data of a scan. The tables are `known`, or the best ones."""
    tables = known or optimal_huffman(tokens.counts)
    size = tokens.most_bytes
    # stuffing doubles a byte at the most
    memory = empty(3 * size + 3 * bounds.size, np.uint8)
    raw, out, scratch = memory[:size], memory[size:], np.empty(BIT_SCRATCH, np.uint32)
    return tables, out[: pack(tokens.memory, tokens.count, bounds, tables.lut, raw, out, scratch)].tobytes()


def code_pieces(
    pieces: Sequence[Tokens], known: ScanTables | None, run: Callable[..., list[int]]
) -> tuple[ScanTables, memoryview]:
    """Tables and data of a scan whose tokens are in pieces; `run` is a `map` that may use several threads.

    Where in a byte a piece begins is known from those before it.
    """
    tables = known or optimal_huffman(np.concatenate([tokens.counts for tokens in pieces]))
    sizes = (tables.lut & 31).astype(np.int64)
    lengths = [int(tokens.counts.sum(axis=0) @ sizes) for tokens in pieces]
    phases = [0, *(total & 7 for total in accumulate(lengths[:-1]))]
    offsets = [0, *accumulate(length // 8 + SLACK for length in lengths)]
    raw = empty(offsets[-1], np.uint8)

    def code(tokens: Tokens, phase: int, offset: int) -> int:
        scratch = np.empty(BIT_SCRATCH, np.uint32)
        return emit(tokens.memory, tokens.count, tables.lut, phase, raw[offset:], scratch)

    bits = run(code, pieces, phases, offsets[:-1])
    out = empty(2 * raw.size, np.uint8)
    return tables, out[: join(raw, np.array(offsets[:-1]), np.array(bits), out)].data
