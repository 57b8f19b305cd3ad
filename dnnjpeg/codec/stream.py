"""Code the tokens of scans as bytes: choose Huffman tables, pack bits, and write the headers of scans."""

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

MOST_BITS = 27  # of a token: 16 of a code, 11 extra bits of a DC difference
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
"""The notes of a kernel that makes a scan. All are zero at first.

counts: how often each symbol occurs, see `bits.count_symbols`. state: the DC predictions.
coded: the number of bytes of the coded scan, where they are in the memory, and what `huffman.choose`
returned.
choice: the Huffman tables.
"""


@dataclass(frozen=True)
class ScanTokens:
    """The tokens of a scan, or of a part of it: the first `count` of `memory`, uint32.

    counts: uint32[COUNT_ROWS, 1024]. The sum of its rows is how often each symbol occurs.
    """

    memory: np.ndarray
    count: int
    counts: np.ndarray

    @property
    def most_bytes(self) -> int:
        """More bytes than the tokens take when they are coded: a token takes `MOST_BITS` at most."""
        return 4 * self.count + SLACK


class Scan(NamedTuple):
    """A coded scan.

    components: the numbers of its components.
    data: the bytes behind its header. They may be in memory that is lent.
    restart: MCUs from one restart marker to the next; 0 is none.
    band: Ss and Se. bits: Ah and Al (T.81 B.2.3).
    """

    components: tuple[int, ...]
    huffman: ScanTables
    data: bytes | memoryview
    restart: int = 0
    band: tuple[int, int] = (0, 63)
    bits: tuple[int, int] = (0, 0)


def interval_bounds(mcus: int, restart: int) -> np.ndarray:
    """An int64 array of zeros in which kernels note the restart intervals of a scan, see `bits.pack_at`.

    If no interval is noted, all tokens are one interval.
    """
    return np.zeros(3 + (mcus // restart if restart else 0), np.int64)


@inlined
def code_in_place(tokens, end, memory, bounds, desk, optimize, scratch):
    """Choose Huffman tables and code the tokens, if there is enough memory behind them.

    tokens, end: the addresses at which the tokens begin and end. memory: the array that holds them.
    bounds: see `bits.pack_at`.
    desk: a record of `DESK`. `coded` is filled. If there is too little memory, its first number stays 0.
    optimize: whether to choose the tables. Otherwise the caller has filled `lut`, and counts are not used.
    scratch: see `bits.emit_at`.
    """
    count = (end - tokens) // 4
    bits = MOST_BITS * count
    if optimize:
        add_up(desk.counts, desk.choice.total)
        desk.coded[2] = choose(desk.choice)
        bits = coded_bits(desk.choice)
    close_bounds(bounds, count)
    raw, room_end = end + SLACK, address(memory) + memory.size
    target = raw + (bits >> 3) + SLACK
    if target <= room_end:
        desk.coded[0] = pack_at(tokens, bounds, address(desk.choice.lut), raw, target, room_end, scratch)
        desk.coded[1] = target - address(memory)


def tokens_of(memory: np.ndarray, place: int, count: int, desk: np.ndarray) -> ScanTokens:
    """The tokens that a kernel has left in its memory.

    place: where they begin, in bytes behind the first multiple of 64. desk: an array of one record of `DESK`.
    """
    begin = -memory.ctypes.data % 64 + int(place)
    return ScanTokens(
        memory[begin : begin + (memory.size - begin & ~3)].view(np.uint32), count, desk["counts"][0]
    )


def coded(
    memory: np.ndarray,
    place: int,
    count: int,
    desk: np.ndarray,
    bounds: np.ndarray,
    known: ScanTables | None,
) -> tuple[ScanTables, bytes | memoryview]:
    """The Huffman tables, and the bytes of a scan, where they are in the memory. If `code_in_place` had too
    little memory, the tokens are coded here.

    Arguments as in `tokens_of` and `code_tokens`.
    """
    written, begin, chosen = desk["coded"][0].tolist()
    if written == 0:
        return code_tokens(tokens_of(memory, place, count, desk), bounds, known)
    return known or chosen_tables(chosen, desk["choice"]), memory[begin : begin + written].data


def with_headers(frame: Frame, scans: Sequence[Scan], tables: bool) -> list[bytes | memoryview]:
    """The scans of a file, as parts to be joined: for each DHT, DRI, SOS and data.

    tables: whether to write DHT. DRI is written if the interval has changed.
    """
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


def code_tokens(tokens: ScanTokens, bounds: np.ndarray, known: ScanTables | None) -> tuple[ScanTables, bytes]:
    """Code the tokens of a scan. Returns the Huffman tables, and the bytes.

    bounds: the restart intervals, see `bits.pack_at`.
    known: the Huffman tables. None makes the best ones.
    """
    tables = known or optimal_huffman(tokens.counts)
    size = tokens.most_bytes
    # stuffing doubles the bytes at most; each interval may end with a part of a byte, and a marker follows
    memory = empty(3 * size + 3 * bounds.size, np.uint8)
    raw, out, scratch = memory[:size], memory[size:], np.empty(BIT_SCRATCH, np.uint32)
    return tables, out[: pack(tokens.memory, tokens.count, bounds, tables.lut, raw, out, scratch)].tobytes()


def code_pieces(
    pieces: Sequence[ScanTokens], known: ScanTables | None, run: Callable[..., list[int]]
) -> tuple[ScanTables, memoryview]:
    """Code a scan whose tokens are in pieces, without restarts. Returns the Huffman tables, and the bytes.

    known: the Huffman tables. None makes the best ones.
    run: a function like `map`, which may use several threads.

    Pieces can be coded at the same time, because the counts of symbols say at which bit each piece begins.
    """
    tables = known or optimal_huffman(np.concatenate([tokens.counts for tokens in pieces]))
    sizes = (tables.lut & 31).astype(np.int64)
    lengths = [int(tokens.counts.sum(axis=0) @ sizes) for tokens in pieces]
    phases = [0, *(total & 7 for total in accumulate(lengths[:-1]))]
    offsets = [0, *accumulate(length // 8 + SLACK for length in lengths)]
    raw = empty(offsets[-1], np.uint8)

    def code(tokens: ScanTokens, phase: int, offset: int) -> int:
        scratch = np.empty(BIT_SCRATCH, np.uint32)
        return emit(tokens.memory, tokens.count, tables.lut, phase, raw[offset:], scratch)

    bits = run(code, pieces, phases, offsets[:-1])
    out = empty(2 * raw.size, np.uint8)
    return tables, out[: join(raw, np.array(offsets[:-1]), np.array(bits), out)].data
