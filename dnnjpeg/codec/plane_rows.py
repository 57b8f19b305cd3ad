"""Code planes of coefficients as a baseline scan, as they are or requantized. `rows` begins with pixels.

In place of planes, the scan of a file may be given. Then a row of MCUs is decoded, requantized and made to
tokens before the next is decoded. So coefficients stay in the caches of the processor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from dnnjpeg.codec import intervals
from dnnjpeg.codec.bits import count_symbols
from dnnjpeg.codec.decode import decode_row
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import ScanTables
from dnnjpeg.codec.intervals import begin_scan
from dnnjpeg.codec.quantize import random_keys
from dnnjpeg.codec.read_scans import FOLDED_ORDER, ZIGZAG_ORDER, FoundScan, ScanPlan
from dnnjpeg.codec.requantize import LAW, ROOM, Laws, requantize_row
from dnnjpeg.codec.scan import MAX_BLOCK_TOKENS, PLANE, entry_bytes, mcu_row_tokens
from dnnjpeg.codec.stream import BIT_SCRATCH, DESK, SLACK, Scan, code_in_place, coded, interval_bounds
from dnnjpeg.machine.jit import kernel
from dnnjpeg.machine.memory import borrow, empty, give_back
from dnnjpeg.machine.simd import address, store

# what each number of `parts` is the place of, in bytes behind the first multiple of 64 in the memory
_ENTRIES, _BITS, _COEFFICIENTS, _ROWS, _TOKENS = range(5)
_AS_THEY_ARE = Laws(np.zeros(0, LAW), np.zeros(0, bool), True, False, 0)
_NOWHERE = np.empty(0, np.int16)
_NO_PARTS = np.zeros(5, np.int64)
_ORDERS = np.array([ZIGZAG_ORDER, FOLDED_ORDER])


@kernel
def encode_plane_rows(
    scan, laws, planes, places, geometry, mcus, mcu_rows, restart, keys, memory, parts, target, desks, bounds,
    optimize,
):  # fmt: skip
    """Requantize all rows of MCUs into `target`; or if `target` is empty, code them. Returns the number of
    tokens; or -1 if the scan is wrong.

    scan: None, or what is decoded in place of planes: a tuple of notes, data, first, end, memory, parts,
        tables, mcus, mcu_rows, interval and orders, see `decode.sequential_scan`, and of the number of its
        rows of MCUs that become one.

    laws, places, geometry: see `requantize_row`. If `laws` is empty, the planes are coded as they are.
    planes, target: int16 arrays. With a scan, `places` is for planes of the rows that become one.
    mcus, mcu_rows: the number of MCUs across and down.
    restart: MCUs from one restart marker to the next; 0 is none.
    keys: see `quantize.random_keys`. None if all laws are `near`: then what draws is not compiled.
    memory: uint8 array. parts: int64 array, see above.
    desks: an array of one record of `stream.DESK`, which need not be zero.
    bounds: see `stream.interval_bounds`. optimize: see `stream.code_in_place`.
    """
    desk = desks[0]
    for at in range(address(desk.counts), address(desk.choice.lut), 8):
        store(at, np.int64(0))
    room = address(memory) + 63 & ~63
    start = room + parts[_TOKENS]
    out = start
    source = address(planes) if scan is None else room + parts[_ROWS]
    if scan is not None:
        begin_scan(scan[0][0], address(scan[1]) + scan[2])
    for mcu_row in range(mcu_rows):
        base, coefficients = 0, source
        if scan is not None:
            note, data, _, end, copied, fields, tables, across, down, interval, orders, high = scan
            for row in range(mcu_row * high, min(mcu_row * high + high, down)):
                if not decode_row(
                    note[0], address(data) + end, address(copied), source, fields, address(tables),
                    mcu_row * high, row, across, down, interval, address(orders), 0, False,
                ):  # fmt: skip
                    return -1
        if laws.size > 0:
            if target.size > 0:
                coefficients = address(target)
            else:
                base, coefficients = mcu_row, room + parts[_COEFFICIENTS]
            in_rows = scan is not None
            requantize_row(
                laws, source, places, in_rows, coefficients, geometry, base, mcu_row, mcus, keys, room
            )
        if target.size == 0:
            begin = out
            out = mcu_row_tokens(
                out, room + parts[_ENTRIES], coefficients, geometry, base, mcu_row, mcus, restart, desk.state,
                start, bounds,
            )  # fmt: skip
            if optimize:
                count_symbols(begin, out, address(desk.counts))
    if target.size == 0:
        code_in_place(start, out, memory, bounds, desk, optimize, room + parts[_BITS])
    return (out - start) // 4


@dataclass(frozen=True, eq=False)
class Change:
    """How planes are requantized. A component of the result may have fewer blocks, by a whole factor.

    source: the frame of the planes, which are laid out as its `planes(True)` says.
    seed: of the random numbers, if any are drawn.
    """

    source: Frame
    laws: Laws
    seed: int

    @cached_property
    def keys(self) -> np.ndarray | None:
        """See `quantize.random_keys`; None if nothing needs them."""
        laws = self.laws
        return None if laws.near else random_keys(self.seed if laws.sampled else 0, laws.components.size)


def baseline_file(
    frame: Frame,
    planes: np.ndarray,
    restart: int,
    known: ScanTables | None,
    change: Change | None,
    file_of: Callable[[Scan], bytes],
) -> bytes:
    """Code planes as a file of one baseline scan of all components.

    frame: of the file.
    planes: int16[blocks, 64] in zigzag order, laid out as `planes(True)` of `frame` says; with a change, as
        that of `change.source`.
    restart: MCUs from one restart marker to the next; 0 is none.
    known: the Huffman tables. None makes the best ones.
    change: how to requantize the planes first. None leaves them as they are.
    file_of: see `picture.picture_file`.
    """
    mcus, rows = frame.mcus, frame.mcu_rows
    desk, bounds = np.empty(1, DESK), interval_bounds(mcus * rows, restart)
    if known is not None:
        desk["choice"]["lut"][0] = known.lut
    geometry, _ = frame.planes(change is None)
    parts, begin, size = _laid_out(frame, change.laws.candidates if change else None, 0)
    block = borrow(size)
    try:
        memory = block[0]
        count = _encode(
            change, planes, frame, geometry, restart, memory, parts, _NOWHERE, desk, bounds, known
        )
        return file_of(Scan(frame.every, *coded(memory, begin, count, desk, bounds, known), restart))
    finally:
        give_back(block)


def file_of_scan(
    frame: Frame,
    found: FoundScan,
    restart: int,
    known: ScanTables | None,
    change: Change,
    file_of: Callable[[Scan], bytes],
) -> bytes | None:
    """As `baseline_file`, of a scan that is decoded on the way. None if the scan is wrong, or if one row of
    its MCUs becomes several.
    """
    plan, how = found.plan, _decoding(frame, found.plan, change)
    if how is None:
        return None
    high, fields, places, parts, begin, size = how
    desk, bounds = np.empty(1, DESK), interval_bounds(frame.mcus * frame.mcu_rows, restart)
    if known is not None:
        desk["choice"]["lut"][0] = known.lut
    copied = found.end - found.first + intervals.SLACK
    block = borrow(copied + size)
    try:
        note, memory = np.zeros(1, intervals.NOTE), block[0][copied:]
        scan = (
            note, found.memory, found.first, found.end, block[0], fields, found.tables, plan.mcus, plan.rows,
            found.interval, _ORDERS, high,
        )  # fmt: skip
        count = encode_plane_rows(
            scan, change.laws.components, _NOWHERE, places, frame.planes(False)[0], frame.mcus,
            frame.mcu_rows, restart, change.keys, memory, parts, _NOWHERE, desk, bounds, known is None,
        )  # fmt: skip
        if count < 0:
            return None
        return file_of(Scan(frame.every, *coded(memory, begin, count, desk, bounds, known), restart))
    finally:
        give_back(block)


@lru_cache(maxsize=256)
def _decoding(
    frame: Frame, plan: ScanPlan, change: Change
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, int, int] | None:
    """How a scan is decoded and coded at once: rows of its MCUs that become one, the fields of its
    components, their places in these rows, and what `_laid_out` returns. None if it is not possible.
    """
    high, rest = divmod(frame.v, change.source.v)
    if rest:
        return None
    places, blocks = change.source.row_planes(high)
    fields = plan.fields.copy()
    fields[:, intervals.PLANE] = places[:, PLANE]
    fields[:, intervals.ORDER] = change.laws.reduced * _ORDERS.shape[1]
    return high, fields, places, *_laid_out(frame, change.laws.candidates, blocks)


def requantized(frame: Frame, planes: np.ndarray, change: Change) -> np.ndarray:
    """Requantize planes: int16[blocks, 64] in zigzag order, laid out as `planes(True)` of `frame` says."""
    geometry, blocks = frame.planes(True)
    target = empty(blocks * 64, np.int16)
    memory = np.empty(ROOM + 64 * change.laws.candidates + 64, np.uint8)
    desk, bounds = np.empty(1, DESK), interval_bounds(0, 0)
    _encode(change, planes, frame, geometry, 0, memory, _NO_PARTS, target, desk, bounds, None)
    return target.reshape(-1, 64)


@lru_cache(maxsize=256)
def _laid_out(frame: Frame, candidates: int | None, blocks: int) -> tuple[np.ndarray, int, int]:
    """Where the parts of the memory begin, where the tokens begin, and the size of all of it.

    candidates: of `change.laws`, whose scratch comes first; None without a change.
    blocks: of a scan that are decoded at a time.
    """
    mcus = frame.mcus * frame.blocks
    room, coefficients = 0, 0
    if candidates is not None:
        room, coefficients = ROOM + 64 * candidates, 128 * frame.planes(False)[1]
    sizes = entry_bytes(mcus) + 63 & ~63, 4 * BIT_SCRATCH + 63 & ~63, coefficients, 128 * blocks
    parts = [*accumulate(sizes, initial=room)]
    tokens = 4 * (mcus * frame.mcu_rows * MAX_BLOCK_TOKENS + SLACK)
    return np.array(parts), parts[-1], parts[-1] + 64 + tokens


def _encode(
    change: Change | None, planes: np.ndarray, frame: Frame, geometry: np.ndarray, restart: int,
    memory: np.ndarray, parts: np.ndarray, target: np.ndarray, desk: np.ndarray, bounds: np.ndarray,
    known: ScanTables | None,
) -> int:  # fmt: skip
    source, laws, keys = (change.source, change.laws, change.keys) if change else (frame, _AS_THEY_ARE, None)
    return encode_plane_rows(
        None, laws.components, planes.reshape(-1), source.planes(True)[0], geometry, frame.mcus,
        frame.mcu_rows, restart, keys, memory, parts, target, desk, bounds, known is None,
    )  # fmt: skip
