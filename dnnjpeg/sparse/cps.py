"""CPS, compressed pattern sets: CPO with a shorter IN, where non-zeros of a column are neighbours.

A column is cut into sets of four rows. Three or four non-zeros of a set are told by two numbers, the place of
the set's first row and a pattern of four bits; one or two by their places, as in CPO. Every number carries,
in its lowest bit, whether it is the first of such two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.jit import kernel
from dnnjpeg.sparse import cpo
from dnnjpeg.sparse.geometry import Geometry

SET = 4  # rows


@dataclass(frozen=True, eq=False)
class Cps(cpo.Structure):
    """Ptr and DA as CPO has them, and the shorter IN.

    sets: int32. place·2, of one non-zero; or place·2 + 1 and then the pattern, bit 0 being the first row.
    starts: int64 N·C + 1 x 3: where each channel begins in Ptr, IN and DA.
    """

    geometry: Geometry
    ptr: NDArray[np.int32]
    sets: NDArray[np.int32]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    first: bool  # whether the input had its channels first


@kernel
def _encode(ptr, indices, starts, ptr_size, width, sets, sets_starts):
    """IN in sets. A window's non-zeros of one column follow each other, so that a set ends with its window,
    its column or its rows.
    """
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
def _decode(sets, width, indices):
    n = k = 0
    while n < sets.size:
        place = sets[n] >> 1
        if sets[n] & 1:
            for bit in range(SET):
                if sets[n + 1] >> bit & 1:
                    indices[k] = place + bit * width
                    k += 1
            n += 2
        else:
            indices[k] = place
            k += 1
            n += 1


def compress(x: Tensor, geometry: Geometry) -> Cps:
    """The structure of an input, float32 N x C x H x W, channels last or not. Raises ValueError."""
    plain = cpo.compress(x, geometry)
    sets, starts = np.empty_like(plain.indices), plain.starts.copy()
    size = int(cpo.patterns(geometry)[2].sum())
    n = _encode(plain.ptr, plain.indices, plain.starts, size, geometry.kernel[1], sets, starts[:, 1])
    return Cps(geometry, plain.ptr, sets[:n].copy(), plain.values, starts, plain.first)


def decode(representation: Cps) -> cpo.Cpo:
    """The same with CPO's IN."""
    indices = np.empty(representation.values.size, np.int32)
    _decode(representation.sets, representation.geometry.kernel[1], indices)
    starts = representation.starts.copy()
    starts[:, 1] = starts[:, 2]
    return cpo.Cpo(
        representation.geometry,
        representation.ptr,
        indices,
        representation.values,
        starts,
        representation.first,
    )


def convolve(representation: Cps, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    return cpo.convolve(decode(representation), weights)
