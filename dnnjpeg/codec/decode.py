"""Decode sequential scans to quantized coefficients (T.81 F.2.2). `bands` decodes progressive scans."""

import numpy as np

from dnnjpeg.codec.intervals import BAD_CODE, FINE, TOO_LARGE, TOO_MANY, refilled, scan_decoder
from dnnjpeg.codec.lookup import (
    DC_LOOKUP,
    END,
    LONG,
    LOOKUP,
    PART,
    behind,
    code_of,
    extra_value,
    field,
    looked_up,
    part_value,
)
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import load_scalar, splat, store


@inlined
def decoded_dc(at, word, count, table):
    """Read a DC difference (T.81 F.2.2.1).

    at, word, count: the next bits, see `intervals.refilled`. table: address of the DC table.

    Returns (at, word, count, difference, error). `word` holds 29 or more bits.
    """
    at, word, count = refilled(at, word, count)
    entry = looked_up(table, word, DC_LOOKUP)
    if entry == LONG:
        entry = code_of(table, word)
        if entry == LONG:
            return at, word, count, 0, BAD_CODE
    difference = extra_value(behind(word, entry), field(entry, 8, 8))
    taken = entry >> np.uint64(24)
    return at, word << taken, count - np.int64(taken), difference, FINE


@inlined
def _store_at(block, order, k, value):
    """Store the coefficient at position k of the zigzag order."""
    store(block + np.int64(load_scalar(order + k, "u8")), np.int16(value))


@inlined
def _decode_ac(at, word, count, table, block, order):
    """Read the AC coefficients of a block that holds zeros (T.81 F.2.2.2).

    table: address of the AC table. Returns (at, word, count, error).
    """
    k = 1
    entry = looked_up(table, word, LOOKUP)
    while True:
        at, word, count = refilled(at, word, count)
        for _ in range(2):  # the 56 bits are enough for two entries and the look-up of one more
            on = k + field(entry, 10, 6)
            # both coefficients are stored whatever the entry holds, so there is no branch to predict
            _store_at(block, order, k + field(entry, 7, 3), np.int16(np.int8(entry >> np.uint64(16))))
            _store_at(block, order, on - 1, np.int16(np.int8(entry >> np.uint64(24))))
            if entry & np.uint64(PART):
                if entry == LONG:
                    break
                _store_at(block, order, on - 1, part_value(entry, word))
            if on > 63:
                # the last coefficient ends the block, so the rest of the entry is not part of it
                if (on == 64) | ((on == k + 63) & (k + field(entry, 7, 3) < 63)):
                    return at, behind(word, entry), count - field(entry, 0, 6), FINE
                break
            k = on
            word = behind(word, entry)
            count -= np.int64(entry)  # of which the low six bits count
            entry = looked_up(table, word, LOOKUP)
        else:
            continue
        # one code by itself
        at, word, count = refilled(at, word, count)
        entry = code_of(table, word)
        word, count, size = behind(word, entry), count - field(entry, 0, 6), field(entry, 8, 8)
        if entry == LONG:
            return at, word, count, BAD_CODE
        if entry & np.uint64(END):
            return at, word, count, FINE
        k += field(entry, 16, 8)
        if k > 63:
            _store_at(block, order, 63, 0)  # where an entry may have left what is beyond the block
            return at, word, count, TOO_MANY
        _store_at(block, order, k, extra_value(word, size))
        word <<= np.uint64(size)
        count -= size
        k += 1
        if k == 64:
            return at, word, count, FINE
        entry = looked_up(table, word, LOOKUP)


@inlined
def _decode_block(note, at, word, count, n, block, band):
    """Decode the DC and the AC coefficients of a block. See `intervals.scan_decoder`."""
    store(block, splat(0, "u8x64"))
    store(block + 64, splat(0, "u8x64"))
    at, word, count, difference, error = decoded_dc(at, word, count, note.blocks[n, 3])
    dc = note.dc[note.blocks[n, 2]] + difference
    note.dc[note.blocks[n, 2]] = dc
    store(block, np.int16(dc))
    if error == FINE:
        table, order = note.blocks[n, 4], note.blocks[n, 6]
        at, word, count, error = _decode_ac(at, word, count, table, block, order)
    if dc < -1024 or dc > 1023:
        error = TOO_LARGE
    return at, word, count, error


_decode_scan, decode_row = scan_decoder(_decode_block)


@kernel
def sequential_scan(
    notes, data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, orders, salvage
):  # fmt: skip
    """Decode a sequential scan into planes.

    notes: an array of one record of `intervals.NOTE`.
    Other arguments, and what it returns: see `decode_scan` in `intervals.scan_decoder`.
    """
    return _decode_scan(
        notes[0], data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, orders, salvage,
        0,
    )  # fmt: skip
