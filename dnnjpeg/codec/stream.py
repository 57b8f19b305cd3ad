"""Scans of tokens to the entropy-coded part of a file: Huffman tables chosen, bits packed, scan headers in front."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dnnjpeg.codec import markers
from dnnjpeg.codec.bits import CHUNK, emit, pack, pack_joined
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import ScanTables, optimal_tables, standard_tables

SLACK = 128  # bytes that whole vectors may be read or written past the end of a buffer


@dataclass(frozen=True)
class Tokens:
    """uint32 tokens in `memory` up to address `end`; `counts`: int64[4, 1024], four rows that add up to the count of each symbol."""

    memory: np.ndarray
    end: int
    counts: np.ndarray

    @property
    def begin(self) -> int:
        return self.memory.ctypes.data

    @property
    def most_bytes(self) -> int:
        """What they can come to: 27 bits each."""
        return self.end - self.begin + SLACK


@dataclass(frozen=True)
class Scan:
    """A scan ready for coding.

    `pieces` follow one another; there is one where `restart` (MCUs between restarts) is not 0. `intervals`: addresses at which restart
    intervals begin. `band`, `bits`: Ss, Se and Ah, Al.
    """

    components: tuple[int, ...]
    pieces: tuple[Tokens, ...]
    restart: int = 0
    intervals: Sequence[int] = ()
    band: tuple[int, int] = (0, 63)
    bits: tuple[int, int] = (0, 0)


def code_scans(frame: Frame, scans: Sequence[Scan], optimize: bool, tables: bool) -> bytes:
    """The scans with their headers: DHT (where `tables`), DRI where it changes, SOS, data."""
    parts = []
    interval = 0
    for scan in scans:
        codes = {frame.components[c].code for c in scan.components}
        counts = np.concatenate([tokens.counts for tokens in scan.pieces])
        chosen = optimal_tables(counts) if optimize else standard_tables(len(codes))
        if tables:
            parts.append(markers.dht(chosen.tables))
        if scan.restart != interval:
            parts.append(markers.dri(scan.restart))
            interval = scan.restart
        selectors = [(c, *chosen.destinations[frame.components[c].code]) for c in scan.components]
        parts += [markers.sos(selectors, scan.band, scan.bits), _data(scan, chosen)]
    return b"".join(parts)


def _data(scan: Scan, tables: ScanTables) -> bytes:
    if len(scan.pieces) > 1:
        return _data_in_threads(scan.pieces, tables.lut)
    (tokens,) = scan.pieces
    bounds = np.array([*(scan.intervals or (tokens.begin,)), tokens.end], np.int64)
    size = tokens.most_bytes
    raw, out = np.empty(size, np.uint8), np.empty(2 * size + 3 * bounds.size, np.uint8)
    end = pack(bounds, tables.lut, raw.ctypes.data, out.ctypes.data, _scratch())
    return out[: end - out.ctypes.data].tobytes()


def _data_in_threads(pieces: Sequence[Tokens], lut: np.ndarray) -> bytes:
    """The bits of each piece in a thread of its own; where they fall in a byte is known from the pieces before."""
    buffers = [np.empty(tokens.most_bytes, np.uint8) for tokens in pieces]
    pieces_bits = np.zeros(len(pieces), np.int64)

    def code(i: int, phase: int) -> None:
        pieces_bits[i] = emit(pieces[i].begin, pieces[i].end, lut, phase, buffers[i].ctypes.data, _scratch())

    sizes = (lut & 31).astype(np.int64)
    phase = 0
    with ThreadPoolExecutor(len(pieces)) as pool:
        jobs = []
        for i, tokens in enumerate(pieces):
            jobs.append(pool.submit(code, i, phase))
            phase = (phase + int(tokens.counts.sum(axis=0) @ sizes)) & 7
        for job in jobs:
            job.result()
    addresses = np.array([buffer.ctypes.data for buffer in buffers], np.int64)
    out = np.empty(2 * int(pieces_bits.sum() // 8 + SLACK), np.uint8)
    return out[: pack_joined(addresses, pieces_bits, out.ctypes.data) - out.ctypes.data].tobytes()


def _scratch() -> np.ndarray:
    return np.empty(4 * CHUNK + SLACK, np.uint32)
