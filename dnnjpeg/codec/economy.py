"""The rate-aware quantizer: of an AC coefficient's neighbouring indices, the one that is worth its bits.

Index i of the coefficient c with the step q is what makes (c/q - i)² + μ bits(i) least, bits(i) being what
it adds to the scan behind the indices chosen in its block so far, those after it taken as rounded. It is the
limit κ -> ∞ of the probabilistic quantizer with the exponent -κ ((c/q - i)² + μ bits(i)). Code lengths are
those of the picture's own Huffman tables, with every coefficient rounded to the nearest.
"""

import numpy as np

from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import AC
from dnnjpeg.codec.planes import baseline_scan
from dnnjpeg.codec.scan import PLANE, STRIDE, category
from dnnjpeg.jit import inlined, kernel

PARTS = 16
"""Of a step: coefficients come in sixteenths."""

MU = 0.06  # squared steps that a bit is worth
_UNSEEN = 16 + 8  # bits of a symbol that no coefficient had: its code, and its byte in the table
_ZRL, _EOB = 0xF0, 0x00


@inlined
def _bits(lut, table, symbol):
    bits = np.int64(lut[table | symbol] & 31)
    return bits if bits > 0 else _UNSEEN + (symbol & 15)


@inlined
def _cost(lut, table, run, size):
    """Bits of `run` zeros and an index of so many bits; of an end of block where size is 0."""
    if size == 0:
        return _bits(lut, table, _EOB)
    return (run >> 4) * _bits(lut, table, _ZRL) + _bits(lut, table, (run & 15) << 4 | size)


@inlined
def _rounded(part, limit):
    """The nearest index of a coefficient in sixteenths of a step, halves away from 0."""
    size = min((abs(part) + PARTS // 2) // PARTS, limit)
    return size if part >= 0 else -size


@kernel
def _choose(planes, first, blocks, lut, table, price, nearest, chosen):
    """Indices `chosen` of the blocks planes[first : first + blocks], int16 [.., 64] in zigzag order, that are
    sixteenths of a step.

    lut: `huffman.ScanTables`. table: the first symbol of their AC table. price: of a bit, in squared parts.
    nearest: int64[64], scratch.
    """
    for block in range(first, first + blocks):
        last = 0
        for k in range(1, 64):
            nearest[k] = _rounded(np.int64(planes[block, k]), 1023)
            if nearest[k] != 0:
                last = k
            chosen[block, k] = 0
        chosen[block, 0] = max(_rounded(np.int64(planes[block, 0]), 1024), -1024)
        run = 0
        k = 1
        while k <= last:
            index = nearest[k]
            if index == 0:
                run += 1
                k += 1
                continue
            following = k + 1
            while following <= last and nearest[following] == 0:
                following += 1
            after = following - k - 1
            size_after = category(nearest[following]) if following <= last else 0
            # without this one, the zeros before and behind it are one run
            none = _cost(lut, table, run + after + 1, size_after) - _cost(lut, table, after, size_after)
            if k == 63:
                none = _bits(lut, table, _EOB)
            part = np.int64(planes[block, k])
            best, least = np.int64(0), part * part + price * none
            for candidate in (index, index - 1 if index > 0 else index + 1):
                if candidate != 0:
                    error = part - PARTS * candidate
                    total = error * error + price * _cost(lut, table, run, category(candidate))
                    if total <= least:
                        best, least = candidate, total
            chosen[block, k] = best
            run = 0 if best != 0 else run + 1
            k += 1


def economical(planes: np.ndarray, frame: Frame) -> np.ndarray:
    """Indices of a picture, int16[blocks, 64] as `Frame.planes(True)` lays them out, from its coefficients in
    sixteenths of a step in the same form.
    """
    geometry, _ = frame.planes(True)
    rounded = np.sign(planes) * ((np.abs(planes) + PARTS // 2) // PARTS)
    rounded[:, 1:].clip(-1023, 1023, out=rounded[:, 1:])
    lut = baseline_scan(frame, rounded.clip(-1024, 1023), 0, None).tables.lut
    chosen, nearest = np.empty_like(planes), np.empty(64, np.int64)
    for c, component in enumerate(frame.components):
        first = int(geometry[c, PLANE])
        blocks = int(geometry[c, STRIDE]) * frame.mcu_rows * component.v
        _choose(planes, first, blocks, lut, AC + component.code << 8, MU * PARTS * PARTS, nearest, chosen)
    return chosen
