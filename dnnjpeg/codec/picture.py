"""Encode whole pictures with `encode_rows`: lay out its memory, and divide rows of MCUs among threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self, TypeVar

import numpy as np

from dnnjpeg.codec.colour import channel_map
from dnnjpeg.codec.dct import LANES
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import ScanTables
from dnnjpeg.codec.pixels import Pixels
from dnnjpeg.codec.quantize import NEAREST, Quantizer, random_keys
from dnnjpeg.codec.rows import JOB, LATER, OPTIMAL, WITH_TABLES, encode_rows
from dnnjpeg.codec.scan import MAX_BLOCK_TOKENS, entry_bytes
from dnnjpeg.codec.stream import (
    BIT_SCRATCH,
    DESK,
    SLACK,
    Scan,
    ScanTokens,
    code_pieces,
    coded,
    interval_bounds,
    tokens_of,
)
from dnnjpeg.machine.memory import borrow, empty, give_back

MIN_BLOCKS = 1 << 14  # the fewest blocks for which another thread is worth its start
Result = TypeVar("Result")
_NOWHERE = np.empty((0, 64), np.int16)


@dataclass(frozen=True, eq=False)
class Work:
    """The arguments of `encode_rows` that all pictures of one size and mode share.

    restart: MCUs from one restart marker to the next; 0 is none.
    job: an array of one record of `rows.JOB`.
    fixed: the arguments `mix` to `keys` of `encode_rows`.
    size: the bytes of memory that the job lays out, without the tokens.
    """

    frame: Frame
    restart: int
    job: np.ndarray
    fixed: tuple[np.ndarray | None, ...]
    size: int

    @classmethod
    def of(
        cls, frame: Frame, mode: str, quantizer: Quantizer, seed: int, whole_picture: bool, restart: int
    ) -> Self:
        """Lay out the work for pictures of a frame.

        mode: see `pixels.Pixels`. seed: of the random numbers, if the quantizer draws any.
        whole_picture: True for `picture_planes`, False for `picture_file`.
        """
        layout, pixel_bytes, mix = channel_map(mode, frame.h * frame.v)
        geometry, blocks = frame.planes(whole_picture)
        padded = frame.mcus * 8 * frame.h
        # 64 bytes of slack a row: for vectors that go beyond it, and so that rows are no power of two apart
        y_stride, c_stride = -(-padded // 128) * 128 + 64, -(-padded // frame.h // 128) * 128 + 64
        batch = 64 * LANES
        sizes = (
            8 * (frame.v * y_stride + (len(frame.sampling) - 1) * c_stride), 1088,
            4 * batch, 4 * batch, 4 * batch, 4 * LANES * quantizer.candidates,
            entry_bytes(frame.mcus * frame.blocks), 4 * BIT_SCRATCH, 0 if whole_picture else 128 * blocks,
        )  # fmt: skip
        ends = list(accumulate((size + 63 & ~63 for size in sizes), initial=0))
        fields = (
            layout, pixel_bytes, frame.width, frame.height, frame.h, frame.v, frame.mcus, restart, y_stride,
            c_stride, whole_picture,
        )  # fmt: skip
        job = np.array([(*fields, *ends)], JOB)
        keys = None
        if np.any(quantizer.kinds != NEAREST):
            keys = random_keys(seed if quantizer.sampled else 0, len(frame.sampling))
        fixed = (
            mix, geometry, quantizer.kinds, quantizer.scale, quantizer.law, quantizer.reach, quantizer.limit,
            keys,
        )  # fmt: skip
        return cls(frame, restart, job, fixed, ends[-1] + 64)

    def encode(
        self, window: tuple[int, int, int, int], kept: int, memory: np.ndarray, planes: np.ndarray,
        count: int, desk: np.ndarray, bounds: np.ndarray, finish: int,
    ) -> int:  # fmt: skip
        """Call `encode_rows` for a window that `Pixels.bands` yields. Returns the number of all tokens."""
        picture, stride, begin, end = window
        return encode_rows(
            self.job, picture, stride, *self.fixed, begin, end, kept, memory, planes, count, desk, bounds,
            finish,
        )  # fmt: skip


def _room(frame: Frame, rows: int) -> int:
    """The most bytes that the tokens of this number of rows of MCUs take."""
    return 4 * (rows * frame.mcus * frame.blocks * MAX_BLOCK_TOKENS + SLACK)


def picture_file(
    pixels: Pixels, work: Work, threads: int, known: ScanTables | None, file_of: Callable[[Scan], bytes]
) -> bytes:
    """Encode a picture as a file of one baseline scan.

    work: made by `Work.of` with whole_picture=False.
    threads: the most threads to use. A scan with restarts uses one.
    known: the Huffman tables. None makes the best ones for the picture.
    file_of: makes the file of the scan. The data of the scan are lent for the time of this call.
    """
    edges = _edges(work.frame, 1 if work.restart else threads)
    if len(edges) > 2:
        return file_of(_in_parts(pixels, work, edges, known))
    return _in_one_call(pixels, work, known, file_of)


def _in_one_call(
    pixels: Pixels, work: Work, known: ScanTables | None, file_of: Callable[[Scan], bytes]
) -> bytes:
    """Do what `picture_file` does, in one thread.

    The kernel also codes the tokens, unless the memory behind them is too small.
    """
    rows, bounds = work.frame.mcu_rows, interval_bounds(work.frame.mcus * work.frame.mcu_rows, work.restart)
    block, desk = borrow(work.size + _room(work.frame, rows)), np.zeros(1, DESK)
    memory = block[0]
    try:
        if known is not None:
            desk["choice"]["lut"][0] = known.lut
        count, finish = 0, OPTIMAL if known is None else WITH_TABLES
        for window in pixels.bands(0, rows, 8 * work.frame.v):
            count = work.encode(window, 0, memory, _NOWHERE, count, desk, bounds, finish)
        tables, data = coded(memory, work.job["tokens"][0], count, desk, bounds, known)
        return file_of(Scan(work.frame.every, tables, data, work.restart))
    finally:
        give_back(block)


def _in_parts(pixels: Pixels, work: Work, edges: list[int], known: ScanTables | None) -> Scan:
    """Encode a picture in parts, each in its own thread.

    edges: the rows of MCUs at which parts begin, and the number of all rows.
    """
    no_bounds = interval_bounds(0, 0)

    def code(first: int, last: int) -> ScanTokens:
        memory = empty(work.size + _room(work.frame, last - first + 1), np.uint8)
        count, desk = 0, np.zeros(1, DESK)
        # the row before the first is coded too, for the DC predictions that it leaves
        for window in pixels.bands(max(first - 1, 0), last, 8 * work.frame.v):
            count = work.encode(window, first, memory, _NOWHERE, count, desk, no_bounds, LATER)
        return tokens_of(memory, work.job["tokens"][0], count, desk)

    with ThreadPoolExecutor(len(edges) - 2) as pool:
        pieces = _share(pool, code, edges[:-1], edges[1:])
        tables, data = code_pieces(pieces, known, lambda *work: _share(pool, *work))
        return Scan(work.frame.every, tables, data)


def picture_planes(pixels: Pixels, work: Work, threads: int) -> np.ndarray:
    """Encode a picture as quantized coefficients: int16[blocks, 64] in zigzag order.

    `Frame.planes(True)` says where the blocks of a component are.

    work: made by `Work.of` with whole_picture=True. threads: the most threads to use.
    """
    frame = work.frame
    planes = empty(frame.planes(True)[1] * 64, np.int16).reshape(-1, 64)
    desk, no_bounds = np.zeros(1, DESK), interval_bounds(0, 0)

    def code(first: int, last: int) -> None:
        memory = empty(work.size, np.uint8)
        for window in pixels.bands(first, last, 8 * frame.v):
            work.encode(window, 0, memory, planes, 0, desk, no_bounds, LATER)

    edges = _edges(frame, threads)
    if len(edges) > 2:
        with ThreadPoolExecutor(len(edges) - 2) as pool:
            _share(pool, code, edges[:-1], edges[1:])
    else:
        code(0, frame.mcu_rows)
    return planes


def _edges(frame: Frame, threads: int) -> list[int]:
    """The rows of MCUs at which parts begin, and the number of all rows.

    There is one part for a thread, because each further part codes one row twice.
    """
    if threads == 1:
        return [0, frame.mcu_rows]
    worth = frame.mcu_rows * frame.mcus * frame.blocks // MIN_BLOCKS
    parts = max(1, min(threads, worth, frame.mcu_rows))
    return [frame.mcu_rows * i // parts for i in range(parts + 1)]


def _share(
    pool: ThreadPoolExecutor, function: Callable[..., Result], *arguments: Sequence[Any]
) -> list[Result]:
    """Do what `map` does. The caller's thread makes the first call, and the pool makes the others."""
    mine, *others = zip(*arguments, strict=True)
    futures = [pool.submit(function, *each) for each in others]
    return [function(*mine), *(future.result() for future in futures)]
