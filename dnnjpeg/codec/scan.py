"""Baseline scans (T.81 F.1.2): quantized blocks become tokens.

A token is a uint32: a symbol in the high 16 bits, the value of its extra bits in the low 16. A symbol is
table << 8 | byte. The tables are 0: DC 0, 1: DC 1, 2: AC 0, 3: AC 1. The byte says how many extra bits
follow. A code and its extra bits have at most 27 bits.
"""

import numpy as np

from dnnjpeg.codec.entries import CHROMA, append_block, append_nothing, put_entries
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, load_scalar, store

H, V, COLUMNS, ROWS, STRIDE, PLANE, CODE = range(7)
"""The fields of a component in `geometry`.

H, V: sampling factors.
COLUMNS, ROWS: the number of blocks across and down that hold picture.
STRIDE: blocks from one row of its plane of coefficients to the next.
PLANE: the first block of that plane.
CODE: the number of its pair of Huffman tables, 0 or 1.
"""

MAX_BLOCK_TOKENS = 64 + 2  # DC, 63 AC or fewer with ZRL and EOB

_MOST_BLOCKS = 10  # of an MCU (T.81 B.2.3)


@inlined
def begin_interval(bounds, offset):
    """Note that a restart interval begins `offset` bytes into the tokens."""
    bounds[0] += 1
    bounds[bounds[0]] = offset // 4


@inlined
def mcu_row_tokens(
    out, entries, coefficients, geometry, first_row, mcu_row, mcus, restart, state, start, bounds
):
    """Write the tokens of one row of MCUs (T.81 A.2.3) at address `out`. Returns the address behind them.

    entries: address of scratch, `entry_bytes` of the row's blocks.
    coefficients: address of the planes, int16 blocks of 64 in zigzag order.
    geometry: int64[components, 7], fields as above.
    first_row: the row of MCUs at which the planes begin. mcu_row: the row to write.
    mcus: the number of MCUs in a row. restart: MCUs from one restart marker to the next; 0 is none.
    state: int64[components], the DC predictions. They are kept from call to call.
    start: address of the first token of the scan.
    bounds: int64 array. Element 0 is the number of restart intervals that have begun. The following elements
        are the number of the token at which each begins, counted from `start`.
    """
    order = entries
    positions = order + 40 * _MOST_BLOCKS + 64
    end = order
    blocks = 0
    # 40 bytes for each block of an MCU: its address, the end of its row of blocks, bytes to the same block of
    # the next MCU, what is added to positions, address of the DC prediction
    for c in range(geometry.shape[0]):
        h, v = geometry[c, H], geometry[c, V]
        blocks += h * v * mcus
        for y in range(mcu_row * v, mcu_row * v + v):
            row = coefficients + (geometry[c, PLANE] + (y - first_row * v) * geometry[c, STRIDE]) * 128
            for x in range(h):
                store(end, row + x * 128)
                store(end + 8, row + geometry[c, COLUMNS] * 128 * (y < geometry[c, ROWS]))
                store(end + 16, h * 128)
                store(end + 24, geometry[c, CODE] * CHROMA)
                store(end + 32, address(state) + 8 * c)
                end += 40
    values = positions + 65 * blocks + 64
    n = np.int64(0)
    for mcu in range(mcus + 1):
        begins = restart > 0 and mcu < mcus and (mcu_row * mcus + mcu) % restart == 0
        if begins or mcu == mcus:
            out = put_entries(out, values, positions, n)
            n = 0
        if begins:
            for c in range(geometry.shape[0]):
                state[c] = 0
            begin_interval(bounds, out - start)
        if mcu == mcus:
            break
        for at in range(order, end, 40):
            block, chroma = load_scalar(at, "i64"), load_scalar(at + 24, "i64")
            store(at, block + load_scalar(at + 16, "i64"))
            if block < load_scalar(at + 8, "i64"):
                prediction = load_scalar(at + 32, "i64")
                dc = np.int64(load_scalar(block, "i16"))
                n += append_block(
                    values + 2 * n, positions + n, block, chroma, dc - load_scalar(prediction, "i64")
                )
                store(prediction, dc)
            else:
                n += append_nothing(values + 2 * n, positions + n, chroma)
    return out


def entry_bytes(blocks: int) -> int:
    """Bytes of scratch that `mcu_row_tokens` needs for this number of blocks in a row of MCUs."""
    return 65 * 3 * blocks + 40 * _MOST_BLOCKS + 512
