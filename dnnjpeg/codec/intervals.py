"""Read the restart intervals of a scan (T.81 F.2.1.3), and decode their MCUs row by row.

The bytes of a restart interval are first copied without their stuffing, and zeros are written behind them. So
eight bytes can be loaded at a time. The end of the data is checked once a block, because no block takes more
than `SLACK` bytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dnnjpeg.codec.marks import next_marker, without_stuffing
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import address, load_scalar, splat, store
from dnnjpeg.machine.words import big_endian

SLACK = 320  # bytes: 64 codes of 16 bits with 10 extra bits, a word that is read ahead, and a vector

FINE, BAD_CODE, TOO_MANY, TOO_SHORT, TOO_LARGE, WRONG_MARKER, TOO_LONG = range(7)
"""The errors of a scan: none, bits that are no code, more coefficients than a block or band holds, too few
data, a coefficient out of range, another marker than the expected restart, too many data.
"""

NOTE = np.dtype(
    [
        # the error, and where it is: address of the interval's data (at the end: their place in the file),
        # and the number of bits before the error
        ("error", np.int64), ("interval", np.int64), ("bits", np.int64),
        # kept from row to row: address of the next bytes of the file; of the copy, the address, the word that
        # is loaded, how many of its bits count, and the end
        ("source", np.int64), ("at", np.int64), ("word", np.uint64), ("count", np.int64), ("end", np.int64),
        ("left", np.int64), ("restarts", np.int64),  # MCUs left in the interval, number of restarts so far
        ("lost", np.int64),  # whether the rest of the interval cannot be read
        ("run", np.int64),  # blocks left in an EOB run
        ("dc", np.int64, 4),  # DC predictions
        ("blocks", np.int64, (10, 7)),  # the blocks of an MCU, see `_lay_out`
    ],
    align=True,
)  # fmt: skip

H, V, STRIDE, PLANE, DC_TABLE, AC_TABLE, ORDER = range(7)
"""The fields of a component in a scan.

H, V: the number of its blocks in an MCU, across and down.
STRIDE: blocks from one row of its plane to the next. PLANE: the first block of that plane.
DC_TABLE, AC_TABLE: where its tables begin, in bytes behind the first table.
ORDER: where its order begins, in bytes behind the first order.
"""


# Only the low six bits of `count` are used below, so a whole entry can be subtracted from it.


@inlined
def refilled(at, word, count):
    """Load more bits, so that the word holds 56 or more. Returns (at, word, count).

    at: address of the next bytes. word: uint64, the next bits at its top. count: how many of its bits count.
    """
    word |= big_endian(load_scalar(at, "u64")) >> np.uint64(count & 63)
    return at + ((~count & 63) >> 3), word, count | 56


@inlined
def used_bits(at, count, room):
    """The number of bits that are taken of an interval whose copy begins at address `room`."""
    return 8 * (at - room) - (count & 63)


@inlined
def _begin_interval(note, end, room, interval, total, salvage):
    """Begin the next interval: find its restart marker, and copy its bytes. Returns an error.

    end: address of the end of the scan. room: address of the copy.
    interval: MCUs from one restart marker to the next; 0 is none. total: the MCUs that are left of the scan.
    salvage: see `decode_scan`. If the scan cannot go on, `note.left` stays 0.

    If another marker is found, the rules are those of jpeg_resync_to_restart in libjpeg. A restart that is
    one or two ahead stays for its own interval, and this interval is lost. A restart that is one or two
    behind is skipped, and so is any other marker. Any other restart is treated as the expected one.
    """
    at, error, lost, searching = note.source, FINE, False, note.restarts >= 0
    while searching:
        at, marker = next_marker(at, end)
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
        at, note.end = without_stuffing(at, end, room)
        for i in range(0, SLACK - 64, 64):
            store(note.end + i, splat(0, "u8x64"))
        note.at, note.word, note.count = room, np.uint64(0), 0
    note.source = at
    return error


@inlined
def _end_interval(note, end, room, last):
    """Check that an interval ends behind its MCUs. Returns an error.

    last: whether it is the last interval of the scan.
    """
    left = 8 * (note.end - room) - used_bits(note.at, note.count, room)
    note.bits = used_bits(note.at, note.count, room)
    if left >= 8:
        return TOO_LONG
    if last and note.source < end:
        note.interval, note.bits = note.source, 0
        return WRONG_MARKER
    return FINE


@inlined
def begin_scan(note, first):
    """Begin a scan whose data begin at address `first`."""
    note.source, note.left, note.restarts, note.error = first, 0, -1, FINE
    note.interval, note.bits = first, 0


@inlined
def _lay_out(note, planes, parts, tables, orders, mcu_row):
    """List the blocks of the first MCU of a row of the planes in `note.blocks`. Returns their number.

    The fields of a block are its address, bytes to the same block of the next MCU, its component, the address
    of its DC table, that of its AC table, its first address again, which does not change, and the address of
    its order.
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
                note.blocks[n, 6] = orders + parts[c, ORDER]
                n += 1
    return n


def scan_decoder(decode_block: Callable[..., Any]) -> Any:
    """Make the functions `decode_scan` and `decode_row`, which kernels call.

    decode_block(note, at, word, count, n, block, band): decodes block `n` of an MCU.
        note: a record of `NOTE`. at, word, count: the next bits, see `refilled`.
        block: its address, int16[64]. band: see `decode_scan`.
        It returns (at, word, count, error).
    """

    @inlined
    def decode_mcus(note, blocks, mcus, room, band):
        """Decode some MCUs of one interval. Returns an error."""
        at, word, count = note.at, note.word, note.count
        most = 8 * (note.end - room)
        error = FINE
        for _ in range(mcus):
            for n in range(blocks):
                block = note.blocks[n, 0]
                note.blocks[n, 0] = block + note.blocks[n, 1]
                at, word, count, error = decode_block(note, at, word, count, n, block, band)
                if used_bits(at, count, room) > most:
                    error = TOO_SHORT
                if error != FINE:
                    note.bits = min(used_bits(at, count, room), most)
                    return error
        note.at, note.word, note.count = at, word, count
        return FINE

    @inlined
    def decode_row(
        note, end, room, planes, parts, tables, base, mcu_row, mcus, mcu_rows, interval, orders, band, salvage
    ):  # fmt: skip
        """Decode one row of MCUs of a scan (T.81 A.2.3), after `begin_scan` and the rows before it. Returns
        whether the scan goes on.

        end: address of the end of the scan. room, planes, tables, orders: the addresses of what `decode_scan`
            is given. base: the row of MCUs at which the planes begin.
        """
        blocks = _lay_out(note, planes, parts, tables, orders, mcu_row - base)
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
                found = decode_mcus(note, blocks, some, room, band)
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
        note, data, first, end, memory, planes, parts, tables, mcus, mcu_rows, interval, orders, salvage, band
    ):  # fmt: skip
        """Decode a scan, bytes first..end-1 of the file. Returns an error. The note says where it is.

        data: uint8 array, the file. memory: uint8 array for the copy of an interval, with `SLACK`.
        planes: int16 array, the output: blocks of 64.
        parts: int64[components, 7], see above. tables: uint8 array, see `lookup.lookup_tables`.
        mcus, mcu_rows: the number of MCUs across and down.
        interval: MCUs from one restart marker to the next; 0 is none.
        orders: uint8[n, 64 + lookup.MOST_BEHIND], for each position the offset of the coefficient in a
            block, in bytes.
        salvage: whether to leave blocks that cannot be read as they are, and to go on at the next restart.
        band: a record of `bands.BAND`. Sequential scans have none.
        """
        source, mcu_row = address(data), 0
        begin_scan(note, source + first)
        while mcu_row < mcu_rows and decode_row(
            note, source + end, address(memory), address(planes), parts, address(tables), 0, mcu_row,
            mcus, mcu_rows, interval, address(orders), band, salvage,
        ):  # fmt: skip
            mcu_row += 1
        note.interval -= source
        return note.error

    return decode_scan, decode_row
