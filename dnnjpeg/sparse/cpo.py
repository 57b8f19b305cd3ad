"""CPO, compressed pattern overlap, as published. It is the reference; `ring` is the fast method.

Every non-zero is stored once. A column of a channel's padded map belongs to l + 1 neighbouring windows of Kw
columns; l is its pattern. The non-zeros of a pattern are stored as in CSR, with a row for each window. A
non-zero belongs to the leftmost window that holds it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load_scalar, store
from dnnjpeg.sparse.geometry import Geometry, Memory


class Structure:
    """Ptr, IN and DA of CPO or CPS. The last row of `starts` has their sizes."""

    geometry: Geometry
    ptr: NDArray[np.int32]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    first: bool  # whether the input had its channels first

    def memory(self) -> Memory:
        """Memory of Ptr, IN and DA. The bytes include `starts`."""
        elements = int(self.starts[-1].sum())
        return Memory(elements, 4 * elements + self.starts.nbytes)

    @property
    def compression_ratio(self) -> float:
        """Elements of the im2col matrix, divided by those of Ptr, IN and DA. Infinite if all are zero."""
        batch = (len(self.starts) - 1) // self.geometry.channels
        elements = self.memory().elements
        return batch * self.geometry.im2col_elements / elements if elements else float("inf")


@dataclass(frozen=True, eq=False)
class Cpo(Structure):
    """Ptr, IN and DA of the channels of all pictures, one after the other.

    ptr: int32. For each channel with non-zeros, and each pattern: the beginning of each window's non-zeros in
        the channel's DA, and the end of the last one. If only the first and the last window have non-zeros,
        these are three numbers. A channel of zeros has no numbers.
    indices: int32, IN: (column in the window) + (padded row)·Kw.
    values: float32, DA.
    starts: int64 N·C + 1 x 3: the beginning of each channel in Ptr, IN and DA.
    """

    geometry: Geometry
    ptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    first: bool  # whether the input had its channels first


def patterns(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Patterns of the columns of the padded map.

    Returns the pattern of each column (-1 if no window holds it), its leftmost window, and the length of Ptr
    for each pattern.
    """
    left, right = _holders(geometry, 1)
    outputs = geometry.output[1]
    overlap = np.where(right >= left, right - left, -1)
    kinds = -(-geometry.kernel[1] // geometry.stride[1])
    sizes = np.full(kinds, outputs + 1)
    alone = left[overlap == 0]
    if kinds > 1 and np.isin(alone, (0, outputs - 1)).all():
        sizes[0] = 3
    return overlap, left, sizes


def _holders(geometry: Geometry, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last window that hold each row (axis 0) or column (axis 1) of the padded map."""
    size, stride = (geometry.height, geometry.width)[axis], geometry.stride[axis]
    places = np.arange(geometry.padding[axis] + size + geometry.ends[axis])
    first = np.maximum(0, -(-(places - geometry.kernel[axis] + 1) // stride))
    return first, np.minimum(geometry.output[axis] - 1, places // stride)


@kernel
def _scan(x, pads, width, stride, overlap, left, sizes, ptr, indices, values, starts):
    """Fill the arrays column by column, as published, and `starts` with the beginnings of channels."""
    batch, channels, rows, columns = x.shape
    p = k = 0
    for channel in range(batch * channels):
        image, c = divmod(channel, channels)
        starts[channel] = p, k, k
        begin, before = k, p
        for pattern in range(sizes.size):
            window = 0
            ptr[p] = k - begin
            for j in range(pads[1], pads[1] + columns):
                if overlap[j] != pattern:
                    continue
                place = min(left[j], sizes[pattern] - 2)  # of three numbers, the second is the last window's
                while window < place:
                    window += 1
                    ptr[p + window] = k - begin
                for i in range(rows):
                    value = x[image, c, i, j - pads[1]]
                    if value != 0:  # NaN is one
                        values[k] = value
                        indices[k] = j - left[j] * stride + (i + pads[0]) * width
                        k += 1
            while window < sizes[pattern] - 1:
                window += 1
                ptr[p + window] = k - begin
            p += sizes[pattern]
        if k == begin:
            p = before
    starts[batch * channels] = p, k, k
    return p, k


def compress(x: Tensor, geometry: Geometry) -> Cpo:
    """The structure of an input, float32 N x C x H x W, channels last or not. Raises ValueError."""
    batch = geometry.check(x)
    overlap, left, sizes = patterns(geometry)
    channels = batch * geometry.channels
    ptr = np.empty(channels * sizes.sum() + sizes.sum(), np.int32)
    values, indices = np.empty(x.numel(), np.float32), np.empty(x.numel(), np.int32)
    starts = np.empty((channels + 1, 3), np.int64)
    p, k = _scan(
        x.detach().numpy(), np.array(geometry.padding), geometry.kernel[1], geometry.stride[1], overlap, left,
        sizes, ptr, indices, values, starts,
    )  # fmt: skip
    first = not x.is_contiguous(memory_format=torch.channels_last)
    return Cpo(geometry, ptr[:p].copy(), indices[:k].copy(), values[:k].copy(), starts, first)


@inlined
def place_of(index, width):
    """Row and column in the window from a number of IN. Unsigned division is faster."""
    index, width = np.uint32(index), np.uint32(width)
    row = index // width
    return np.int64(row), np.int64(index - row * width)


@inlined
def add(out, weights, value, row, column, pattern, window, shape):
    """Add a non-zero times the weights that it meets to the outputs of a filter.

    out, weights: addresses, of one filter and one channel, as an index of an array costs more than a
        multiplication.
    shape: first and last output by row, columns of the output and of the kernel, strides.
    """
    tops, bottoms, columns, width, down, right = shape
    top, bottom = tops[row], bottoms[row]
    for t in range(pattern + 1):
        at = out + 4 * (top * columns + window + t)
        weight = weights + 4 * ((row - top * down) * width + column - t * right)
        for _ in range(top, bottom + 1):
            store(at, load_scalar(at, "f32") + value * load_scalar(weight, "f32"))
            at += 4 * columns
            weight -= 4 * down * width


@kernel
def _convolve(ptr, indices, values, starts, counts, tops, bottoms, strides, weights, out):
    (batch, filters, rows, columns), (_, channels, kernel_rows, width) = out.shape, weights.shape
    shape = tops, bottoms, columns, width, strides[0], strides[1]
    out_at = address(out)
    for image in range(batch):
        for f in range(filters):
            for c in range(channels):
                p, _, begin = starts[image * channels + c]
                if p == starts[image * channels + c + 1, 0]:
                    continue
                weights_at = address(weights) + 4 * (f * channels + c) * kernel_rows * width
                for pattern in range(counts.size):
                    for i in range(counts[pattern] - 1):
                        window = columns - 1 if i == 1 and counts[pattern] == 3 else i
                        for k in range(begin + ptr[p + i], begin + ptr[p + i + 1]):
                            row, column = place_of(indices[k], width)
                            add(out_at, weights_at, values[k], row, column, pattern, window, shape)
                    p += counts[pattern]
            out_at += 4 * rows * columns


def convolve(representation: Cpo, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    return executed(_convolve, representation, representation.indices, weights)


def executed(code: Any, representation: Structure, indices: NDArray[np.int32], weights: Tensor) -> Tensor:
    """The output, by a kernel for one of the forms of IN."""
    geometry = representation.geometry
    geometry.check_weights(weights)
    batch = (len(representation.starts) - 1) // geometry.channels
    out = torch.zeros(batch, geometry.filters, *geometry.output)
    code(
        representation.ptr, indices, representation.values, representation.starts, patterns(geometry)[2],
        *_holders(geometry, 0), np.array(geometry.stride), weights.detach().contiguous().numpy(), out.numpy(),
    )  # fmt: skip
    return out if representation.first else out.contiguous(memory_format=torch.channels_last)
