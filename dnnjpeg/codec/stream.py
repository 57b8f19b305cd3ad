"""Scans of tokens to the entropy-coded part of a file: Huffman tables chosen, bits packed, scan headers in
front.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dnnjpeg.codec import markers
from dnnjpeg.codec.bits import CHUNK, emit, join, pack
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import optimal_tables, standard_tables
from dnnjpeg.codec.memory import empty

SLACK = 128  # bytes that whole vectors may be read or written past the end of a buffer


@dataclass(frozen=True)
class Tokens:
    """The first `count` of the uint32 `memory`; `counts`: int64[4, 1024], four rows that add up to the count
    of each symbol.
    """

    memory: np.ndarray
    count: int
    counts: np.ndarray

    @property
    def most_bytes(self) -> int:
        """What they can come to: 27 bits each."""
        return 4 * self.count + SLACK


@dataclass(frozen=True)
class Scan:
    """A scan ready for coding.

    `pieces` follow one another; there is one where `restart` (MCUs between restarts) is not 0. `intervals`:
    numbers of the tokens at which restart intervals begin. `band`, `bits`: Ss, Se and Ah, Al.
    """

    components: tuple[int, ...]
    pieces: tuple[Tokens, ...]
    threads: int = 1
    restart: int = 0
    intervals: Sequence[int] = ()
    band: tuple[int, int] = (0, 63)
    bits: tuple[int, int] = (0, 0)


def interval_bounds(mcus: int, restart: int) -> np.ndarray:
    """Room for what kernels note of restart intervals: int64, how many, and the token each begins at."""
    return np.zeros(2 + (mcus // restart if restart else 0), np.int64)


def intervals_in(bounds: np.ndarray) -> list[int]:
    """The tokens at which restart intervals begin."""
    return bounds[1 : bounds[0] + 1].tolist()


def code_scans(frame: Frame, scans: Sequence[Scan], optimize: bool, tables: bool) -> bytes:
    """The scans with their headers: DHT (where `tables`), DRI where it changes, SOS, data."""
    parts = []
    interval = 0
    for scan in scans:
        if optimize:
            rows = [tokens.counts for tokens in scan.pieces]
            chosen = optimal_tables(rows[0] if len(rows) == 1 else np.concatenate(rows))
        else:
            chosen = standard_tables(frame.codes)
        if tables:
            parts.append(markers.dht(chosen.dht))
        if scan.restart != interval:
            parts.append(markers.dri(scan.restart))
            interval = scan.restart
        selectors = tuple((c, *chosen.destinations[frame.components[c].code]) for c in scan.components)
        parts += (markers.sos(selectors, scan.band, scan.bits), _data(scan, chosen.lut))
    return b"".join(parts)


def _data(scan: Scan, lut: np.ndarray) -> bytes:
    if len(scan.pieces) > 1:
        return _data_in_threads(scan.pieces, lut, scan.threads)
    (tokens,) = scan.pieces
    bounds = np.array((*(scan.intervals or (0,)), tokens.count), np.int64)
    size = tokens.most_bytes
    # stuffing doubles a byte at the most
    memory = empty(3 * size + 3 * bounds.size, np.uint8)
    return memory[
        size : size + pack(tokens.memory, bounds, lut, memory[:size], memory[size:], _scratch())
    ].tobytes()


def _data_in_threads(pieces: Sequence[Tokens], lut: np.ndarray, threads: int) -> bytes:
    """The bits of the pieces in several threads; where a piece falls in a byte is known from those before."""
    sizes = (lut & 31).astype(np.int64)
    lengths = [int(tokens.counts.sum(axis=0) @ sizes) for tokens in pieces]
    phases = [0, *(total & 7 for total in accumulate(lengths[:-1]))]
    offsets = [0, *accumulate(length // 8 + SLACK for length in lengths)]
    raw = empty(offsets[-1], np.uint8)

    def code(tokens: Tokens, phase: int, offset: int) -> int:
        return emit(tokens.memory, 0, tokens.count, lut, phase, raw[offset:], _scratch())

    with ThreadPoolExecutor(threads) as pool:
        bits = list(pool.map(code, pieces, phases, offsets[:-1]))
    out = empty(2 * raw.size, np.uint8)
    return out[: join(raw, np.array(offsets[:-1]), np.array(bits), out)].tobytes()


def _scratch() -> np.ndarray:
    return np.empty(4 * CHUNK + SLACK, np.uint32)
