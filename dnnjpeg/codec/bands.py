"""Decode progressive scans to quantized coefficients (T.81 G.2).

A scan holds the DC coefficients of several components, or one band of AC coefficients of one component. The
first scan of a band holds the high bits. Each scan that refines it adds one bit.
"""

import numpy as np

from dnnjpeg.codec.decode import decoded_dc
from dnnjpeg.codec.intervals import BAD_CODE, FINE, TOO_LARGE, TOO_MANY, refilled, scan_decoder
from dnnjpeg.codec.lookup import END, LONG, LOOKUP, behind, code_of, extra_value, field, looked_up
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import load_scalar, store

BAND = np.dtype([(name, np.int64) for name in ("start", "end", "high", "low")])
"""What the header of a scan says in Ss, Se, Ah and Al (T.81 B.2.3)."""


@inlined
def _dc_block(note, at, word, count, n, block, band):
    """Decode the DC coefficient of a block, or its next bit (G.1.2.1). Arguments as in `_decode_block`."""
    if band.high:
        at, word, count = refilled(at, word, count)
        bit = np.int64(word >> np.uint64(63)) << band.low
        store(block, np.int16(np.int64(load_scalar(block, "i16")) | bit))
        return at, word << np.uint64(1), count - 1, FINE
    at, word, count, difference, error = decoded_dc(at, word, count, note.blocks[n, 3])
    dc = note.dc[note.blocks[n, 2]] + difference
    note.dc[note.blocks[n, 2]] = dc
    if error == FINE and (dc << band.low < -1024 or dc << band.low > 1023):
        error = TOO_LARGE
    store(block, np.int16(dc << band.low))
    return at, word, count, error


@inlined
def _next(at, word, count, table):
    """Read a code without its extra bits.

    Returns (at, word, count, code, size): the bits after the code, the code (see `lookup`), and the number of
    its extra bits.
    """
    at, word, count = refilled(at, word, count)
    entry = looked_up(table, word, LOOKUP)
    if entry == LONG:
        entry = code_of(table, word)
    return at, behind(word, entry), count - field(entry, 0, 6), entry, field(entry, 8, 8)


@inlined
def _end_run(word, size):
    """The length of an EOB run: the number of blocks that end, this one included (G.1.2.2).

    word: the bits after the code. size: the number of extra bits.
    """
    return (1 << size) + np.int64((word >> np.uint64(1)) >> np.uint64(63 - size))


@inlined
def _ac_first(note, at, word, count, block, table, order, band):
    """Decode a block in the first scan of a band (G.1.2.2).

    table: address of the AC table. Other arguments, and what it returns, as in `_decode_block`.
    """
    if note.run > 0:
        note.run -= 1
        return at, word, count, FINE
    k = band.start
    while k <= band.end:
        at, word, count, entry, size = _next(at, word, count, table)
        if entry == LONG:
            return at, word, count, BAD_CODE
        k += field(entry, 16, 8)
        if entry & np.uint64(END):
            note.run = _end_run(word, size) - 1
            return at, word << np.uint64(size), count - size, FINE
        if k > band.end:
            return at, word, count, TOO_MANY
        value = extra_value(word, size) << band.low
        if abs(value) > 1023:
            return at, word, count, TOO_LARGE
        store(block + np.int64(load_scalar(order + k, "u8")), np.int16(value))
        word <<= np.uint64(size)
        count -= size
        k += 1
    return at, word, count, FINE


@inlined
def _ac_refine(note, at, word, count, block, table, order, band):
    """Decode a block in a scan that refines a band by one bit (G.1.2.3). Arguments as in `_ac_first`."""
    bit = 1 << band.low
    k = band.start
    while k <= band.end:
        zeros, fresh = 64, 0  # if no new coefficient follows, all known ones are refined
        if note.run == 0:
            at, word, count, entry, size = _next(at, word, count, table)
            if entry == LONG:
                return at, word, count, BAD_CODE
            if entry & np.uint64(END):
                note.run = _end_run(word, size)
            else:
                zeros, fresh = field(entry, 16, 8), extra_value(word, size) * bit
            word <<= np.uint64(size)
            count -= size
        while k <= band.end:
            place = block + np.int64(load_scalar(order + k, "u8"))
            value = np.int64(load_scalar(place, "i16"))
            if value != 0:
                if count < 8:
                    at, word, count = refilled(at, word, count)
                if word >> np.uint64(63) != 0 and abs(value) & bit == 0:
                    store(place, np.int16(value + (bit if value > 0 else -bit)))
                word <<= np.uint64(1)
                count -= 1
            else:
                if zeros == 0:
                    store(place, np.int16(fresh))
                    break
                zeros -= 1
            k += 1
        if k > band.end and zeros < 16 and fresh != 0:
            return at, word, count, TOO_MANY
        k += 1
    if note.run > 0:
        note.run -= 1
    return at, word, count, FINE


@inlined
def _decode_block(note, at, word, count, n, block, band):
    """Decode what the scan holds of one block. See `intervals.scan_decoder`."""
    if band.start == 0:
        return _dc_block(note, at, word, count, n, block, band)
    table, order = note.blocks[n, 4], note.blocks[n, 6]
    if band.high == 0:
        return _ac_first(note, at, word, count, block, table, order, band)
    return _ac_refine(note, at, word, count, block, table, order, band)


_decode_scan, _ = scan_decoder(_decode_block)


@kernel
def progressive_scan(
    notes, data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, orders, salvage, bands
):  # fmt: skip
    """Decode a progressive scan into planes that hold the result of the scans before it.

    notes: an array of one record of `intervals.NOTE`. bands: an array of one record of `BAND`.
    Other arguments, and what it returns: see `decode_scan` in `intervals.scan_decoder`.
    """
    return _decode_scan(
        notes[0], data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, orders, salvage,
        bands[0],
    )  # fmt: skip
