"""Restart intervals of a scan (T.81 F.2.1.3): their bytes are taken in, and their MCUs are decoded by row.

The bytes of a restart interval are first copied without their stuffing, and zeros are put behind them. So
bits are taken eight bytes at a time. The end of the data is checked once a block, because no block takes more
than `SLACK` bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import (
    address,
    big_endian,
    count_zeros_low,
    load,
    load_scalar,
    mask_bits,
    splat,
    store,
)

SLACK = 320  # bytes: 64 codes of 16 bits with 10 more, a word that is read ahead, and a vector that is stored

FINE, BAD_CODE, TOO_MANY, TOO_SHORT, TOO_LARGE, WRONG_MARKER, TOO_LONG = range(7)
"""What a scan may suffer from: a code that is none, coefficients behind the 64th or the band, data that end
early, a coefficient out of range, a marker that is not the restart expected, bytes left over.
"""

NOTE = np.dtype(
    [
        # an error, and where: address of the interval's data, in the end its place in the file; bits in them
        ("error", np.int64), ("interval", np.int64), ("bits", np.int64),
        # between rows: the bytes to come, the word at hand and how many bits of it count, where the copy ends
        ("source", np.int64), ("at", np.int64), ("word", np.uint64), ("count", np.int64), ("end", np.int64),
        ("left", np.int64), ("restarts", np.int64),  # MCUs of the interval, restarts so far
        ("lost", np.int64),  # whether what is left of the interval cannot be read
        ("run", np.int64),  # blocks that an EOB run has left
        ("dc", np.int64, 4),  # predictions
        ("blocks", np.int64, (10, 6)),  # of an MCU, see `_lay_out`
    ],
    align=True,
)  # fmt: skip

H, V, STRIDE, PLANE, DC_TABLE, AC_TABLE = range(6)
"""Fields of a component in a scan: blocks of an MCU, across and down; blocks between rows of its plane, the
first block of that; where its tables are, in bytes."""


# Of the number of bits at hand only the low six bits count: an entry is subtracted as it is.


@inlined
def refilled(at, word, count):
    """The address, the word and its bits that count, 56 or more."""
    word |= big_endian(load_scalar(at, "u64")) >> np.uint64(count & 63)
    return at + ((~count & 63) >> 3), word, count | 56


@inlined
def used_bits(at, count, room):
    return 8 * (at - room) - (count & 63)


@kernel
def find_mark(data, at):
    """The next 0xFF that neither stuffing nor a restart follows; -1 if there is none. `data`: uint8."""
    begin = address(data)
    at, end = begin + at, begin + data.size
    while at + 1 < end:
        if at + 64 <= end:
            marks = mask_bits(load(at, "u8x64") == 255)
            if marks == 0:
                at += 64
                continue
            at += np.int64(count_zeros_low(marks))
            if at + 1 == end:
                break
        if load_scalar(at, "u8") == 255:
            following = load_scalar(at + 1, "u8")
            if following != 0 and following >> 3 != 0xD0 >> 3:
                return at - begin
        at += 1
    return -1


@inlined
def _without_stuffing(at, end, out):
    """Copy up to a marker or the end (T.81 F.1.2.3); the address there, and the one behind the copy, which
    up to 64 bytes are written past.
    """
    while at < end:
        step = 0
        if at + 64 <= end:
            chunk = load(at, "u8x64")
            store(out, chunk)
            marks = mask_bits(chunk == 255)
            step = np.int64(count_zeros_low(marks)) if marks != 0 else 64
        elif load_scalar(at, "u8") != 255:
            store(out, load_scalar(at, "u8"))
            step = 1
        at += step
        out += step
        if at < end and load_scalar(at, "u8") == 255:
            if at + 1 == end or load_scalar(at + 1, "u8") != 0:
                break
            store(out, np.uint8(255))
            at += 2
            out += 1
    return at, out


@inlined
def _next_marker(at, end):
    """The place of the next marker after fill bytes, and its second byte. 0: there is none."""
    while at + 1 < end:
        marker = np.int64(load_scalar(at + 1, "u8"))
        if load_scalar(at, "u8") == 255 and marker != 0 and marker != 255:
            return at, marker
        at += 1
    return at, 0


@inlined
def _begin_interval(note, end, room, interval, total, salvage):
    """Take in the next interval; returns an error. `total`: MCUs that are left of the scan. Where the scan
    cannot go on, no MCUs are left of the interval.

    A marker that is not the restart due is taken as in libjpeg's jpeg_resync_to_restart: a restart one or two
    ahead stays for its own interval, and this one is lost; one or two behind are passed over, as is what is
    no restart; any other is taken for the one due.
    """
    at, error, lost, searching = note.source, FINE, False, note.restarts >= 0
    while searching:
        at, marker = _next_marker(at, end)
        is_restart, ahead = marker >> 3 == 0xD0 >> 3, (marker - note.restarts) & 7
        if error == FINE and not (is_restart and ahead == 0):
            note.interval, note.bits = at, 0
            error = WRONG_MARKER if marker else TOO_SHORT
        if error != FINE and not (salvage and marker):
            return error
        lost = is_restart and 1 <= ahead <= 2
        searching = not is_restart or ahead >= 6
        at += 0 if lost else 2
    note.restarts, note.lost, note.run = note.restarts + 1, lost, 0
    note.left = min(interval, total) if interval > 0 else total
    for c in range(4):
        note.dc[c] = 0
    if not lost:
        note.interval = at
        at, note.end = _without_stuffing(at, end, room)
        for i in range(0, SLACK - 64, 64):
            store(note.end + i, splat(0, "u8x64"))
        note.at, note.word, note.count = room, np.uint64(0), 0
    note.source = at
    return error


@inlined
def _end_interval(note, end, room, last):
    """The error behind the MCUs of an interval; `last`: whether it is the last one."""
    left = 8 * (note.end - room) - used_bits(note.at, note.count, room)
    note.bits = used_bits(note.at, note.count, room)
    if left >= 8:
        return TOO_LONG
    if last and note.source < end:
        note.interval, note.bits = note.source, 0
        return WRONG_MARKER
    return FINE


@inlined
def _lay_out(note, planes, parts, tables, mcu_row):
    """The blocks of a row's first MCU: address, bytes to that of the next MCU, component, tables, and the
    address again; returns how many.
    """
    n = 0
    for c in range(parts.shape[0]):
        h, v = parts[c, H], parts[c, V]
        for y in range(v):
            row = planes + (parts[c, PLANE] + (mcu_row * v + y) * parts[c, STRIDE]) * 128
            for x in range(h):
                note.blocks[n, 0] = row + x * 128
                note.blocks[n, 1] = h * 128
                note.blocks[n, 2] = c
                note.blocks[n, 3] = tables + parts[c, DC_TABLE]
                note.blocks[n, 4] = tables + parts[c, AC_TABLE]
                note.blocks[n, 5] = row + x * 128
                n += 1
    return n


def scan_decoder(decode_block: Callable[..., Any]) -> Any:
    """Make a part of kernels that decodes a scan.

    decode_block(note, at, word, count, n, block, order, band): decodes block `n` of an MCU, at the address
        `block`. It returns the bits after the block, and an error.
    """

    @inlined
    def decode_mcus(note, blocks, mcus, order, room, band):
        """Decode some MCUs of one interval. Returns an error."""
        at, word, count = note.at, note.word, note.count
        most = 8 * (note.end - room)
        error = FINE
        for _ in range(mcus):
            for n in range(blocks):
                block = note.blocks[n, 0]
                note.blocks[n, 0] = block + note.blocks[n, 1]
                at, word, count, error = decode_block(note, at, word, count, n, block, order, band)
                if used_bits(at, count, room) > most:
                    error = TOO_SHORT
                if error != FINE:
                    note.bits = min(used_bits(at, count, room), most)
                    return error
        note.at, note.word, note.count = at, word, count
        return FINE

    @inlined
    def decode_row(
        note, end, room, planes, parts, tables, mcu_row, mcus, mcu_rows, interval, order, band, salvage
    ):  # fmt: skip
        """One row of MCUs of a scan (T.81 A.2.3); returns whether the scan goes on."""
        blocks = _lay_out(note, planes, parts, tables, mcu_row)
        mcu = 0
        while mcu < mcus:
            error = FINE
            if note.left == 0:
                left = (mcu_rows - mcu_row) * mcus - mcu
                error = _begin_interval(note, end, room, interval, left, salvage)
            some = min(mcus - mcu, note.left)
            mcu += some
            note.left -= some
            if some > 0 and not note.lost:
                found = decode_mcus(note, blocks, some, order, room, band)
                if found == FINE and note.left == 0:
                    found = _end_interval(note, end, room, mcu == mcus and mcu_row + 1 == mcu_rows)
                note.lost = found != FINE
                error = found if error == FINE else error
            if error != FINE:
                note.error = error if note.error == FINE else note.error
                if some == 0 or not salvage:
                    return False
            if note.lost:
                for n in range(blocks):
                    note.blocks[n, 0] = note.blocks[n, 5] + mcu * note.blocks[n, 1]
        return True

    @inlined
    def decode_scan(
        note, data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, order, salvage, band
    ):  # fmt: skip
        """Decode all rows of MCUs of a scan, bytes `first`..`end`-1 of the file. Returns an error; the note
        says where.

        `data`, `memory`, `tables`: uint8. `planes`: int16. `parts`: int64[components, 6], see above. `order`:
        uint8[64 + lookup.MOST_BEHIND], bytes into a block by position in zigzag order. `salvage`: to leave
        what cannot be read as it is, and go on at the next restart.
        """
        source, mcu_row = address(data), 0
        note.source, note.left, note.restarts, note.error = source + first, 0, -1, FINE
        note.interval, note.bits = source + first, 0
        while mcu_row < mcu_rows and decode_row(
            note, source + end, address(memory), address(planes), parts, address(tables), mcu_row, mcus,
            mcu_rows, interval, address(order), band, salvage,
        ):  # fmt: skip
            mcu_row += 1
        note.interval -= source
        return note.error

    return decode_scan
