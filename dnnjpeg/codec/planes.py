"""Lay out whole planes of coefficients, and code them as progressive scans."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnnjpeg.checks import check_array
from dnnjpeg.codec.bits import COUNT_ROWS, count_tokens
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import AC, SYMBOLS
from dnnjpeg.codec.progressive import (
    MAX_BLOCK_TOKENS,
    MAX_CORRECTIONS,
    Step,
    ac_first_tokens,
    ac_refine_tokens,
    count_ac,
    dc_tokens,
)
from dnnjpeg.codec.stream import SLACK, Scan, ScanTokens, code_tokens, interval_bounds
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.memory import empty

_DENSITIES = 4, 11, 23
"""From how many AC coefficients a block on one, two and three low bits get scans of their own. Chosen on 50
learning pictures, four qualities of two tables, and as they were stored.
"""


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
    _, blocks = frame.planes(True)
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
        stride, first = frame.places[c]
        target = out[first : first + part.rows * stride].reshape(part.rows, stride, 64)
        target[:, : part.columns] = plane[:, :, NATURAL]
    return out


def progressive_scans(frame: Frame, planes: np.ndarray, restart_blocks: int, restart_rows: int) -> list[Scan]:
    """Code planes as progressive scans: DC, then AC, then the low bits of AC that the scans before left out.

    Scans of bands of AC, and of low bits of DC, would make most files larger.

    planes: int16[blocks, 64] in zigzag order, laid out as `Frame.planes(True)` says.
    restart_blocks, restart_rows: see `restart_interval`.
    """
    every = tuple(range(len(frame.sampling)))
    refined = {c: _refined_bits(frame, planes, c) for c in every}
    steps = [Step(every, 0, 0, 0, 0), *(Step((c,), 1, 63, 0, refined[c]) for c in every)]
    for high in range(max(refined.values()), 0, -1):
        steps += [Step((c,), 1, 63, high, high - 1) for c in every if refined[c] >= high]
    scans = []
    for step in steps:
        across = frame.mcus if step.start == 0 else frame.components[step.components[0]].columns
        restart = restart_interval(across, restart_blocks, restart_rows)
        tokens, bounds = _tokens(frame, planes, step, restart)
        coded = code_tokens(tokens, bounds, None)
        scans.append(Scan(step.components, *coded, restart, (step.start, step.end), (step.high, step.low)))
    return scans


def _refined_bits(frame: Frame, planes: np.ndarray, c: int) -> int:
    """How many low bits of a component's AC get scans of their own. Trying all would save 0.05 % more."""
    _, columns, rows, _ = place = _place(frame, c)
    return bisect_right(_DENSITIES, count_ac(planes, *place) / (columns * rows))


def _place(frame: Frame, c: int) -> tuple[int, int, int, int]:
    """Where a component's blocks are: the first, columns, rows, and blocks from one row to the next."""
    part, (stride, first) = frame.components[c], frame.places[c]
    return first, part.columns, part.rows, stride


def _tokens(frame: Frame, planes: np.ndarray, step: Step, restart: int) -> tuple[ScanTokens, np.ndarray]:
    """The tokens of a scan, and the bounds of its restart intervals.

    restart: MCUs from one restart marker to the next; 0 is none.
    """
    if step.start == 0:
        geometry, _ = frame.planes(True)
        mcus = frame.mcus * frame.mcu_rows
        memory, bounds = empty(mcus * frame.blocks + SLACK, np.uint32), interval_bounds(mcus, restart)
        written = dc_tokens(
            memory, planes, geometry, frame.mcus, frame.mcu_rows, restart, bounds,
            np.zeros(len(geometry), np.int64),
        )  # fmt: skip
    else:
        (c,) = step.components
        _, columns, rows, _ = place = _place(frame, c)
        blocks = columns * rows
        memory = empty(blocks * MAX_BLOCK_TOKENS + MAX_CORRECTIONS + SLACK, np.uint32)
        bounds = interval_bounds(blocks, restart)
        where = (memory, planes, *place, AC + frame.components[c].huffman_table << 8)
        if step.high == 0:
            written = ac_first_tokens(*where, step.start, step.end, step.low, restart, bounds)
        else:
            corrections = np.empty(MAX_CORRECTIONS + 100, np.uint8)
            written = ac_refine_tokens(*where, step.start, step.end, step.low, restart, bounds, corrections)
    counts = np.zeros((COUNT_ROWS, SYMBOLS), np.uint32)
    count_tokens(memory, written, counts)
    return ScanTokens(memory, written, counts), bounds
