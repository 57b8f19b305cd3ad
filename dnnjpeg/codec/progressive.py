"""From planes of coefficients to the tokens of progressive scans (T.81 Annex G). `scan` says what a token is.

A scan codes a band of coefficients (spectral selection), and of each only some bits (successive
approximation).
"""

from dataclasses import dataclass

import numpy as np

from dnnjpeg.codec.entries import put_dc, put_token
from dnnjpeg.codec.huffman import RAW
from dnnjpeg.codec.scan import CODE, COLUMNS, PLANE, ROWS, STRIDE, H, V, begin_interval
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load, load_scalar, mask_bits, store
from dnnjpeg.machine.words import count_ones, count_zeros_low, highest_bit

MAX_BLOCK_TOKENS = 2 * 63 + 3  # every coefficient a symbol and a correction, and what an EOB run leaves
MAX_EOB_RUN = 4095  # T.81 allows 32767; this keeps a token within its 27 bits
MAX_CORRECTIONS = 1000


@dataclass(frozen=True)
class Step:
    """One scan. In T.81, the four numbers are Ss, Se, Ah and Al.

    components: the numbers of all components, or of one.
    start, end: the first and the last coefficient in zigzag order, 0..63.
    high: 0 for the first scan of the band, else the bit position of the scan before.
    low: the lowest bit that is coded.
    """

    components: tuple[int, ...]
    start: int
    end: int
    high: int
    low: int


@inlined
def _at_least(block, threshold):
    """Bit k is set where |coefficient k| >= threshold."""
    first, second = load(block, "i16x32"), load(block + 64, "i16x32")
    low = mask_bits(first >= threshold) | mask_bits(first <= -threshold)
    high = mask_bits(second >= threshold) | mask_bits(second <= -threshold)
    return low | high << np.uint64(32)


@inlined
def _band(start, end):
    """Bits start..end."""
    return (~np.uint64(0) >> np.uint64(63 - end)) & (~np.uint64(0) << np.uint64(start))


@kernel
def count_ac(coefficients, plane, columns, rows, stride):
    """The number of AC coefficients of a component that are not zero. Arguments as in `ac_first_tokens`."""
    count = np.int64(0)
    for y in range(rows):
        for x in range(columns):
            block = address(coefficients) + (plane + y * stride + x) * 128
            count += np.int64(count_ones(_at_least(block, 1) & _band(1, 63)))
    return count


@kernel
def dc_tokens(tokens, coefficients, geometry, mcus, mcu_rows, restart, bounds, state):
    """Make the tokens of a DC scan of all components (G.1.2.1). Returns their number.

    tokens: uint32 array, the output.
    coefficients: int16[blocks, 64], zigzag order.
    geometry: int64[components, 7], see `scan`.
    mcus, mcu_rows: the number of MCUs across and down.
    restart: MCUs from one restart marker to the next; 0 is none.
    bounds, state: int64 arrays, see `scan.mcu_row_tokens`. All of `state` is zero.
    """
    start = address(tokens)
    out = start
    for mcu_row in range(mcu_rows):
        for mcu in range(mcus):
            if restart > 0 and (mcu_row * mcus + mcu) % restart == 0:
                for c in range(geometry.shape[0]):
                    state[c] = 0
                begin_interval(bounds, out - start)
            for c in range(geometry.shape[0]):
                h, v = geometry[c, H], geometry[c, V]
                for y in range(mcu_row * v, mcu_row * v + v):
                    for x in range(mcu * h, mcu * h + h):
                        dc = state[c]
                        if x < geometry[c, COLUMNS] and y < geometry[c, ROWS]:
                            block = geometry[c, PLANE] + y * geometry[c, STRIDE] + x
                            dc = np.int64(load_scalar(address(coefficients) + block * 128, "i16"))
                        out = put_dc(out, geometry[c, CODE], dc - state[c])
                        state[c] = dc
    return (out - start) // 4


@inlined
def _put_eob_run(out, symbols, run):
    if run > 0:
        size = highest_bit(np.uint64(run))
        out = put_token(out, symbols | size << 4, size, run)
    return out


@kernel
def ac_first_tokens(
    tokens, coefficients, plane, columns, rows, stride, symbols, start, end, low, restart, bounds
):
    """Make the tokens of the first AC scan of a band of one component (G.1.2.2). Returns their number.

    tokens, coefficients, bounds: see `dc_tokens`.
    plane: number of the component's first block. stride: blocks from one row to the next.
    columns, rows: blocks that hold picture, across and down.
    symbols: number of the Huffman table among all four, times 256; it is added to each symbol.
    start, end, low: see `Step`. The `low` last bits are left out.
    restart: blocks from one restart marker to the next; 0 is none.
    """
    origin = address(tokens)
    band = _band(start, end)
    out = origin
    eob_run = 0
    for y in range(rows):
        for x in range(columns):
            if restart > 0 and (y * columns + x) % restart == 0:
                out = _put_eob_run(out, symbols, eob_run)
                eob_run = 0
                begin_interval(bounds, out - origin)
            block = address(coefficients) + (plane + y * stride + x) * 128
            left = _at_least(block, 1 << low) & band
            previous = start - 1
            if left != 0:
                out = _put_eob_run(out, symbols, eob_run)
                eob_run = 0
            while left != 0:
                k = np.int64(count_zeros_low(left))
                left &= left - np.uint64(1)
                run = k - previous - 1
                previous = k
                while run > 15:
                    out = put_token(out, symbols | 0xF0, 0, 0)
                    run -= 16
                value = np.int64(load_scalar(block + 2 * k, "i16"))
                magnitude = abs(value) >> low
                size = highest_bit(np.uint64(magnitude)) + 1
                out = put_token(out, symbols | run << 4 | size, size, ~magnitude if value < 0 else magnitude)
            if previous != end:
                eob_run += 1
                if eob_run == MAX_EOB_RUN:
                    out = _put_eob_run(out, symbols, eob_run)
                    eob_run = 0
    return (_put_eob_run(out, symbols, eob_run) - origin) // 4


@inlined
def _put_bits(out, corrections, first, count):
    """Correction bits first..first+count-1 of the uint8 array at `corrections`."""
    for i in range(first, first + count, 15):
        n = min(15, first + count - i)
        value = 0
        for j in range(i, i + n):
            value = value << 1 | np.int64(load_scalar(corrections + j, "u8"))
        out = put_token(out, RAW + n, n, value)
    return out


@kernel
def ac_refine_tokens(
    tokens, coefficients, plane, columns, rows, stride, symbols, start, end, low, restart, bounds, corrections
):
    """Make the tokens of an AC scan that refines a band of one component (G.1.2.3): bit `low` of each of its
    coefficients. Returns their number.

    corrections: uint8[1100], scratch. All others: see `ac_first_tokens`.
    """
    origin = address(tokens)
    band = _band(start, end)
    held = address(corrections)
    out = origin
    eob_run = 0
    pending = 0  # correction bits that belong to the EOB run
    for y in range(rows):
        for x in range(columns):
            if restart > 0 and (y * columns + x) % restart == 0:
                out = _put_eob_run(out, symbols, eob_run)
                out = _put_bits(out, held, 0, pending)
                eob_run, pending = 0, 0
                begin_interval(bounds, out - origin)
            block = address(coefficients) + (plane + y * stride + x) * 128
            left = _at_least(block, 1 << low) & band
            known = _at_least(block, 2 << low)
            fresh = left & ~known
            last_fresh = highest_bit(fresh) if fresh != 0 else -1
            previous = start - 1
            run = 0
            own = 0  # correction bits since the last symbol of this block
            while left != 0:
                k = np.int64(count_zeros_low(left))
                left &= left - np.uint64(1)
                run += k - previous - 1
                previous = k
                while run > 15 and k <= last_fresh:
                    out = _put_eob_run(out, symbols, eob_run)
                    out = _put_bits(out, held, 0, pending)
                    out = put_token(out, symbols | 0xF0, 0, 0)
                    out = _put_bits(out, held, pending, own)
                    run -= 16
                    eob_run, pending, own = 0, 0, 0
                value = np.int64(load_scalar(block + 2 * k, "i16"))
                if known >> np.uint64(k) & np.uint64(1):
                    store(held + pending + own, np.uint8(abs(value) >> low & 1))
                    own += 1
                    continue
                out = _put_eob_run(out, symbols, eob_run)
                out = _put_bits(out, held, 0, pending)
                out = put_token(out, symbols | run << 4 | 1, 1, 0 if value < 0 else 1)
                out = _put_bits(out, held, pending, own)
                eob_run, pending, own, run = 0, 0, 0, 0
            if previous != end or own > 0:
                eob_run += 1
                pending += own
                if eob_run == MAX_EOB_RUN or pending > MAX_CORRECTIONS - 63:
                    out = _put_eob_run(out, symbols, eob_run)
                    out = _put_bits(out, held, 0, pending)
                    eob_run, pending = 0, 0
    out = _put_eob_run(out, symbols, eob_run)
    return (_put_bits(out, held, 0, pending) - origin) // 4
