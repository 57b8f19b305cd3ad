"""Entropy-coded data to quantized coefficients (T.81 F.2.2), a row of MCUs at a time; see `bands` for the
scans of progressive files.

The bytes of a restart interval are first copied without their stuffing, and zeros behind them. So bits are
taken eight bytes at a time, and no more than one look a block is needed for the end of the data: no block
takes more than `SLACK` bytes.
"""

import numpy as np

from dnnjpeg.codec.lookup import END, LONG, PART, behind, entry_of, extra_value, field, looked_up
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

BEYOND = 31  # positions behind the last that an entry may lead to
SLACK = 320  # bytes: 64 codes of 16 bits with 10 more, a word that is read ahead, and a vector that is stored

FINE, BAD_CODE, TOO_MANY, TOO_SHORT, TOO_LARGE, WRONG_MARKER, TOO_LONG = range(7)
"""What a scan may suffer from: a code that is none, coefficients behind the 64th or the band, data that end
early, a coefficient out of range, a marker that is not the restart expected, bytes left over.
"""

NOTE = np.dtype(
    [
        # where an error is: address of the interval's data, in the end its place in the file; bits into them
        ("interval", np.int64), ("bits", np.int64),
        # between rows: the bytes to come, the word at hand and how many bits of it count, where the copy ends
        ("source", np.int64), ("at", np.int64), ("word", np.uint64), ("count", np.int64), ("end", np.int64),
        ("left", np.int64), ("restarts", np.int64),  # MCUs of the interval, restarts so far
        ("run", np.int64),  # blocks that an EOB run has left
        ("dc", np.int64, 4),  # predictions
        ("blocks", np.int64, (10, 5)),  # of an MCU, see `lay_out`
    ],
    align=True,
)  # fmt: skip

H, V, STRIDE, PLANE, DC_TABLE, AC_TABLE = range(6)
"""Fields of a component in a scan: blocks of an MCU, across and down; blocks between rows of its plane, the
first block of that; addresses of its tables."""


# --- bits ---


@inlined
def refilled(at, word, count):
    """The address, the word and its bits that count, 56 or more."""
    word |= big_endian(load_scalar(at, "u64")) >> np.uint64(count)
    return at + ((63 - count) >> 3), word, count | 56


# --- intervals ---


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
def begin_interval(note, end, room, interval, total):
    """Take in the next interval; returns an error. `total`: MCUs that are left of the scan."""
    at = note.source
    if note.restarts >= 0:
        while at + 1 < end and load_scalar(at, "u8") == 255 and load_scalar(at + 1, "u8") == 255:
            at += 1  # fill bytes
        if at + 2 > end:
            return TOO_SHORT
        if load_scalar(at, "u8") != 255 or load_scalar(at + 1, "u8") != (0xD0 | note.restarts & 7):
            note.interval, note.bits = at, 0
            return WRONG_MARKER
        at += 2
    note.interval = at
    note.source, copied = _without_stuffing(at, end, room)
    for i in range(0, SLACK - 64, 64):
        store(copied + i, splat(0, "u8x64"))
    note.end, note.restarts = copied, note.restarts + 1
    note.at, note.word, note.count = room, np.uint64(0), 0
    note.left = min(interval, total) if interval > 0 else total
    note.run = 0
    for c in range(4):
        note.dc[c] = 0
    return FINE


@inlined
def begin_scan(note, source):
    note.source, note.left, note.restarts = source, 0, -1
    note.interval, note.bits = source, 0


@inlined
def used_bits(at, count, room):
    return 8 * (at - room) - count


@inlined
def end_interval(note, end, room, last):
    """What is wrong behind the MCUs of an interval, the `last` or not."""
    left = 8 * (note.end - room) - used_bits(note.at, note.count, room)
    note.bits = used_bits(note.at, note.count, room)
    if left >= 8:
        return TOO_LONG
    if last and note.source < end:
        note.interval, note.bits = note.source, 0
        return WRONG_MARKER
    return FINE


# --- baseline and extended sequential scans ---


@inlined
def decoded_dc(at, word, count, table):
    """The DC difference; the error, and the bits after it."""
    at, word, count = refilled(at, word, count)
    entry = looked_up(table, word)
    difference = np.int64(np.int16(entry >> np.uint64(48)))
    if entry & np.uint64(PART):
        entry, size = coded(table, word, entry)
        if entry == LONG:
            return at, word, count, 0, BAD_CODE
        word, count = behind(word, entry), count - field(entry, 0, 6)
        return at, word << np.uint64(size), count - size, extra_value(word, size), FINE
    return at, behind(word, entry), count - field(entry, 0, 6), difference, FINE


@inlined
def coded(table, word, entry):
    """The part at the top of the word, and the number of its extra bits; `entry` is what is looked up."""
    if entry & np.uint64(PART) == 0 or entry == LONG:
        entry = entry_of(table, word)
    return entry, field(entry, 32, 8)


@inlined
def _store_at(block, order, k, value):
    store(block + np.int64(load_scalar(order + k, "u8")), np.int16(value))


@inlined
def _decode_ac(at, word, count, table, block, order):
    """The AC coefficients of a block of zeros; an error, and the bits after them."""
    k = 1
    at, word, count = refilled(at, word, count)
    entry = looked_up(table, word)
    while True:
        for _ in range(4):  # as many as 56 bits have, all of them whole
            if entry & np.uint64(PART):
                break
            # whatever the entry, both are stored: no branch to guess
            _store_at(block, order, k + field(entry, 24, 8), np.int16(entry >> np.uint64(48)))
            _store_at(block, order, k + field(entry, 16, 8), np.int16(entry >> np.uint64(32)))
            on = k + field(entry, 10, 6)
            if on > 63:
                if on == 64 or k + field(entry, 24, 8) < 63:
                    return at, behind(word, entry), count - field(entry, 0, 6), FINE
                break  # a coefficient ends the block, and what follows is not of it
            k = on
            word = behind(word, entry)
            count -= field(entry, 0, 6)
            entry = looked_up(table, word)
        else:
            at, word, count = refilled(at, word, count)
            continue
        # one code by itself
        at, word, count = refilled(at, word, count)
        entry, size = coded(table, word, entry)
        word, count = behind(word, entry), count - field(entry, 0, 6)
        if entry & np.uint64(END):
            return at, word, count, FINE
        k += field(entry, 16, 8)
        if k > 63:
            return at, word, count, BAD_CODE if entry == LONG else TOO_MANY
        _store_at(block, order, k, extra_value(word, size))
        word <<= np.uint64(size)
        count -= size
        k += 1
        if k == 64:
            return at, word, count, FINE
        at, word, count = refilled(at, word, count)
        entry = looked_up(table, word)


@inlined
def lay_out(note, planes, parts, first_row, mcu_row):
    """The blocks of the first MCU of a row: address, bytes to that of the next MCU, component, tables."""
    n = 0
    for c in range(parts.shape[0]):
        h, v = parts[c, H], parts[c, V]
        for y in range(v):
            row = planes + (parts[c, PLANE] + ((mcu_row - first_row) * v + y) * parts[c, STRIDE]) * 128
            for x in range(h):
                note.blocks[n, 0] = row + x * 128
                note.blocks[n, 1] = h * 128
                note.blocks[n, 2] = c
                note.blocks[n, 3] = parts[c, DC_TABLE]
                note.blocks[n, 4] = parts[c, AC_TABLE]
                n += 1
    return n


@inlined
def _decode_mcus(note, blocks, mcus, order, room):
    """So many MCUs of one interval; returns an error."""
    at, word, count = note.at, note.word, note.count
    most = 8 * (note.end - room)
    error = FINE
    for _ in range(mcus):
        for n in range(blocks):
            block = note.blocks[n, 0]
            note.blocks[n, 0] = block + note.blocks[n, 1]
            store(block, splat(0, "u8x64"))
            store(block + 64, splat(0, "u8x64"))
            at, word, count, difference, error = decoded_dc(at, word, count, note.blocks[n, 3])
            dc = note.dc[note.blocks[n, 2]] + difference
            note.dc[note.blocks[n, 2]] = dc
            store(block, np.int16(dc))
            if error == FINE:
                at, word, count, error = _decode_ac(at, word, count, note.blocks[n, 4], block, order)
            if dc < -1024 or dc > 1023:
                error = TOO_LARGE
            if used_bits(at, count, room) > most:
                error = TOO_SHORT
            if error != FINE:
                note.bits = min(used_bits(at, count, room), most)
                return error
    note.at, note.word, note.count = at, word, count
    return FINE


@inlined
def _decode_row(note, end, room, planes, parts, first_row, mcu_row, mcus, mcu_rows, interval, order):
    """One row of MCUs of a sequential scan (T.81 A.2.3); returns an error. All are addresses, but `parts`,
    int64[components, 6].

    `order`: uint8[64 + BEYOND], bytes into a block by position in zigzag order. Row y of a component is found
    at row y - first_row · v of its plane.
    """
    blocks = lay_out(note, planes, parts, first_row, mcu_row)
    mcu = 0
    while mcu < mcus:
        if note.left == 0:
            left = (mcu_rows - mcu_row) * mcus - mcu
            error = begin_interval(note, end, room, interval, left)
            if error != FINE:
                return error
        some = min(mcus - mcu, note.left)
        error = _decode_mcus(note, blocks, some, order, room)
        if error != FINE:
            return error
        mcu += some
        note.left -= some
        if note.left == 0:
            error = end_interval(note, end, room, mcu == mcus and mcu_row + 1 == mcu_rows)
            if error != FINE:
                return error
    return FINE


@kernel
def sequential_scan(notes, data, first, end, memory, planes, parts, mcus, mcu_rows, interval, order):
    """All rows of MCUs of a scan, bytes `first`..`end`-1 of the file; returns an error, and the note where.

    `notes`: an array of one. `data`, `memory`: uint8. `planes`: int16. `parts`, `order`: see `_decode_row`.
    """
    note, source, room = notes[0], address(data), address(memory)
    begin_scan(note, source + first)
    error = FINE
    for mcu_row in range(mcu_rows):
        error = _decode_row(
            note, source + end, room, address(planes), parts, 0, mcu_row, mcus, mcu_rows, interval,
            address(order),
        )  # fmt: skip
        if error != FINE:
            break
    note.interval -= source
    return error
