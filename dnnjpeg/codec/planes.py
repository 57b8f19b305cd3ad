"""Lay out whole planes of coefficients, and code them as the progressive scans of `progressive.script`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnjpeg.checks import check_array
from dnnjpeg.codec.bits import COUNT_ROWS, count_tokens
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import AC, SYMBOLS, ScanTables
from dnnjpeg.codec.progressive import (
    MAX_BLOCK_TOKENS,
    MAX_CORRECTIONS,
    Step,
    ac_first_tokens,
    ac_refine_tokens,
    dc_tokens,
    script,
)
from dnnjpeg.codec.scan import PLANE, STRIDE
from dnnjpeg.codec.stream import SLACK, Scan, ScanTokens, code_tokens, interval_bounds
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.memory import empty


def restart_interval(mcus: int, blocks: int, rows: int) -> int:
    """MCUs from one restart marker to the next; 0 is none. DRI has 16 bits for it.

    mcus: the number of MCUs in a row of the scan.
    blocks, rows: the user's options restart_blocks and restart_rows.
    """
    return min(rows * mcus, 65535) if rows else blocks


def zigzag_planes(frame: Frame, planes: Sequence[Any]) -> np.ndarray:
    """Lay out a user's coefficients as `Frame.planes(True)` says: int16[blocks, 64] in zigzag order.

    planes: one array of integers for each component, [rows, columns, 8, 8] or [rows, columns, 64] in natural
        order.

    Raises TypeError for arrays that are not integers. Raises ValueError for another number of blocks, and for
    coefficients outside DC -1024..1023 and AC -1023..1023.
    """
    geometry, blocks = frame.planes(True)
    out = np.zeros((blocks, 64), np.int16)
    for c, (part, given) in enumerate(zip(frame.components, planes, strict=True)):
        plane = check_array(given, f"planes[{c}]", "an array of integers")
        if not np.issubdtype(plane.dtype, np.integer):
            raise TypeError(f"planes[{c}] is an array of {plane.dtype}, expected integers")
        if plane.shape not in ((part.rows, part.columns, 8, 8), (part.rows, part.columns, 64)):
            raise ValueError(
                f"planes[{c}] has shape {plane.shape}, expected ({part.rows}, {part.columns}, 8, 8) here"
            )
        plane = plane.reshape(part.rows, part.columns, 64)
        low, high = plane.min(axis=(0, 1)), plane.max(axis=(0, 1))
        if low[0] < -1024 or low[1:].min() < -1023 or high.max() > 1023:
            raise ValueError(
                f"planes[{c}] holds {low.min()}..{high.max()}, expected DC -1024..1023 and AC -1023..1023"
            )
        stride, first = int(geometry[c, STRIDE]), int(geometry[c, PLANE])
        target = out[first : first + part.rows * stride].reshape(part.rows, stride, 64)
        target[:, : part.columns] = plane[:, :, NATURAL]
    return out


def progressive_scans(frame: Frame, planes: np.ndarray, restart_blocks: int, restart_rows: int) -> list[Scan]:
    """Code planes as progressive scans.

    planes: int16[blocks, 64] in zigzag order, laid out as `Frame.planes(True)` says.
    restart_blocks, restart_rows: see `restart_interval`.
    """
    return [
        _progressive_scan(frame, planes, step, restart_blocks, restart_rows)
        for step in script(len(frame.sampling))
    ]


def _progressive_scan(
    frame: Frame, planes: np.ndarray, step: Step, restart_blocks: int, restart_rows: int
) -> Scan:
    geometry, _ = frame.planes(True)
    if step.start == 0:
        restart = restart_interval(frame.mcus, restart_blocks, restart_rows)
        mcus = frame.mcus * frame.mcu_rows
        memory, bounds = _room(mcus * frame.blocks, mcus, restart)
        written = dc_tokens(
            memory, planes, geometry, frame.mcus, frame.mcu_rows, step.high, step.low, restart, bounds,
            np.zeros(len(geometry), np.int64),
        )  # fmt: skip
    else:
        (c,) = step.components
        part = frame.components[c]
        restart = restart_interval(part.columns, restart_blocks, restart_rows)
        blocks = part.columns * part.rows
        memory, bounds = _room(blocks * MAX_BLOCK_TOKENS + MAX_CORRECTIONS, blocks, restart)
        place = (int(geometry[c, PLANE]), part.columns, part.rows, int(geometry[c, STRIDE]))
        where = (memory, planes, *place, AC + part.huffman_table << 8)
        if step.high == 0:
            written = ac_first_tokens(*where, step.start, step.end, step.low, restart, bounds)
        else:
            corrections = np.empty(MAX_CORRECTIONS + 100, np.uint8)
            written = ac_refine_tokens(*where, step.start, step.end, step.low, restart, bounds, corrections)
    coded = _code(memory, written, bounds, None)
    return Scan(step.components, *coded, restart, (step.start, step.end), (step.high, step.low))


def _room(tokens: int, mcus: int, restart: int) -> tuple[np.ndarray, np.ndarray]:
    """Make memory for tokens, and for the bounds of restart intervals."""
    return empty(tokens + SLACK, np.uint32), interval_bounds(mcus, restart)


def _code(
    memory: np.ndarray, written: int, bounds: np.ndarray, known: ScanTables | None
) -> tuple[ScanTables, bytes]:
    """Code the first `written` tokens of the memory. Returns the Huffman tables, and the bytes."""
    counts = np.zeros((COUNT_ROWS, SYMBOLS), np.uint32)
    count_tokens(memory, written, counts)
    return code_tokens(ScanTokens(memory, written, counts), bounds, known)
