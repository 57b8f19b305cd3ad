"""CPS, compressed pattern sets, as published: CPO with a shorter IN if non-zeros of a column are neighbours.

A column is divided into sets of four rows. Three or four non-zeros of a set take two numbers: the place of
the set's first row, and a pattern of four bits. One or two non-zeros are stored by their places, as in CPO.
The lowest bit of a number says whether a pattern follows. The order of execution is that of CPO.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.machine.jit import kernel
from dnnjpeg.machine.simd import address
from dnnjpeg.sparse import cpo
from dnnjpeg.sparse.cpo import add, place_of
from dnnjpeg.sparse.geometry import Geometry

SET = 4  # rows


@dataclass(frozen=True, eq=False)
class Cps(cpo.Structure):
    """Ptr and DA of CPO, and the shorter IN.

    sets: int32, IN: place·2 for one non-zero; or place·2 + 1 and then the pattern, whose bit 0 is the first
        row.
    starts: int64 N·C + 1 x 3: the beginning of each channel in Ptr, IN and DA.
    """

    geometry: Geometry
    ptr: NDArray[np.int32]
    sets: NDArray[np.int32]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    first: bool  # whether the input had its channels first


@kernel
def _encode(ptr, indices, starts, ptr_size, width, sets, sets_starts):
    """IN as sets. A set ends with its window, its column or its rows."""
    n = 0
    for channel in range(starts.shape[0] - 1):
        p, _, begin = starts[channel]
        sets_starts[channel] = n
        if p == starts[channel + 1, 0]:
            continue
        for window in range(ptr_size - 1):
            k, end = begin + ptr[p + window], begin + ptr[p + window + 1]
            while k < end:
                row, x = divmod(indices[k], width)
                first = row // SET * SET
                pattern = count = 0
                while k + count < end and count < SET:
                    next_row, next_x = divmod(indices[k + count], width)
                    if next_x != x or next_row < row or next_row >= first + SET:
                        break
                    row = next_row
                    pattern |= 1 << (row - first)
                    count += 1
                if count > 2:
                    sets[n] = 2 * (first * width + x) + 1
                    sets[n + 1] = pattern
                    n += 2
                else:
                    for i in range(count):
                        sets[n] = 2 * indices[k + i]
                        n += 1
                k += count
    sets_starts[starts.shape[0] - 1] = n
    return n


@kernel
def _convolve(ptr, sets, values, starts, counts, tops, bottoms, strides, weights, out):
    """The convolution of CPO, reading sets."""
    (batch, filters, rows, columns), (_, channels, kernel_rows, width) = out.shape, weights.shape
    shape = tops, bottoms, columns, width, strides[0], strides[1]
    out_at = address(out)
    for image in range(batch):
        for f in range(filters):
            for c in range(channels):
                p, n, begin = starts[image * channels + c]
                if p == starts[image * channels + c + 1, 0]:
                    continue
                weights_at = address(weights) + 4 * (f * channels + c) * kernel_rows * width
                for pattern in range(counts.size):
                    for i in range(counts[pattern] - 1):
                        window = columns - 1 if i == 1 and counts[pattern] == 3 else i
                        k, end = begin + ptr[p + i], begin + ptr[p + i + 1]
                        while k < end:
                            row, column = place_of(sets[n] >> 1, width)
                            bits = 1
                            if sets[n] & 1:
                                n += 1
                                bits = sets[n]
                            n += 1
                            while bits:
                                if bits & 1:
                                    add(out_at, weights_at, values[k], row, column, pattern, window, shape)
                                    k += 1
                                bits >>= 1
                                row += 1
                    p += counts[pattern]
            out_at += 4 * rows * columns


def compress(x: Tensor, geometry: Geometry) -> Cps:
    """The structure of an input, float32 N x C x H x W, channels last or not. Raises ValueError."""
    plain = cpo.compress(x, geometry)
    sets, starts = np.empty_like(plain.indices), plain.starts.copy()
    size = int(cpo.patterns(geometry)[2].sum())
    n = _encode(plain.ptr, plain.indices, plain.starts, size, geometry.kernel[1], sets, starts[:, 1])
    return Cps(geometry, plain.ptr, sets[:n].copy(), plain.values, starts, plain.first)


def convolve(representation: Cps, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    return cpo.executed(_convolve, representation, representation.sets, weights)
