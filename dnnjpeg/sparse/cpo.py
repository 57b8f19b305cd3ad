"""CPO, compressed pattern overlap: every non-zero once, sorted by how many windows its column belongs to.

A column of the padded map of a channel belongs to l + 1 neighbouring windows of Kw columns: the pattern l.
The non-zeros of a pattern are kept as in CSR, a row for each window, under the leftmost window that holds
them. This is the published structure, with a reference execution; `ring` is the fast one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.jit import inlined, kernel
from dnnjpeg.simd import address, fused, load, splat, store
from dnnjpeg.sparse.geometry import Geometry, Memory

LANES = 16


class Structure:
    """Ptr, IN and DA of CPO or CPS; the last row of `starts` has their sizes."""

    geometry: Geometry
    starts: NDArray[np.int64]

    def memory(self) -> Memory:
        """Of Ptr, IN and DA; bytes with what finds the channels in them."""
        elements = int(self.starts[-1].sum())
        return Memory(elements, 4 * elements + self.starts.nbytes)

    @property
    def compression_ratio(self) -> float:
        """Elements of the im2col matrix over those of Ptr, IN and DA; infinite for an input of zeros."""
        batch = (len(self.starts) - 1) // self.geometry.channels
        elements = self.memory().elements
        return batch * self.geometry.im2col_elements / elements if elements else float("inf")


@dataclass(frozen=True, eq=False)
class Cpo(Structure):
    """Ptr, IN and DA of the channels of all pictures, one after the other.

    ptr: int32. For a channel with non-zeros, and for each pattern, where the non-zeros of each window begin
        in the channel's DA, and where the last end; where only the first and the last window have any, three
        numbers. Nothing for a channel of zeros.
    indices: int32, IN. (column in the window) + (padded row)·Kw.
    values: float32, DA.
    starts: int64 N·C + 1 x 3: where each channel begins in the three.
    """

    geometry: Geometry
    ptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    first: bool  # whether the input had its channels first


def patterns(geometry: Geometry) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """By column of the padded map: its pattern (-1 where no window holds it) and the leftmost window; and by
    pattern how many numbers its Ptr has.
    """
    (_, outputs), (_, width), (_, stride) = geometry.output, geometry.kernel, geometry.stride
    columns = np.arange(geometry.padding[1] + geometry.width + geometry.ends[1])
    left = np.maximum(0, -(-(columns - width + 1) // stride))
    right = np.minimum(outputs - 1, columns // stride)
    overlap = np.where(right >= left, right - left, -1)
    kinds = -(-width // stride)
    sizes = np.full(kinds, outputs + 1)
    alone = left[overlap == 0]
    if kinds > 1 and np.isin(alone, (0, outputs - 1)).all():
        sizes[0] = 3
    return overlap, left, sizes


@kernel
def _scan(x, pads, width, stride, overlap, left, sizes, ptr, indices, values, starts):
    """Column by column, as published; fills the arrays, and `starts` with where channels begin in them."""
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
def _add(out, weights, value, bytes_):
    wide = splat(value, "f32x16")
    for at in range(0, bytes_, 4 * LANES):
        store(out + at, fused(wide, load(weights + at, "f32x16"), load(out + at, "f32x16")))


@kernel
def _convolve(ptr, indices, values, starts, sizes, strides, weights, out):
    """Each non-zero times the weights of all filters that it meets, added to the outputs where they lie."""
    batch, rows, columns, filters = out.shape
    channels, kernel_rows, width, _ = weights.shape
    pixel = 4 * filters
    for channel in range(batch * channels):
        p, _, begin = starts[channel]
        if p == starts[channel + 1, 0]:
            continue
        image, c = divmod(channel, channels)
        kernel_at = address(weights) + c * kernel_rows * width * pixel
        out_at = address(out) + image * rows * columns * pixel
        for pattern in range(sizes.size):
            for window in range(sizes[pattern] - 1):
                m = columns - 1 if window == 1 and sizes[pattern] == 3 else window
                for k in range(begin + ptr[p + window], begin + ptr[p + window + 1]):
                    row, x = divmod(indices[k], width)
                    for kernel_row in range(kernel_rows):
                        y, rest = divmod(row - kernel_row, strides[0])
                        if rest or y < 0 or y >= rows:
                            continue
                        for t in range(pattern + 1):
                            at = kernel_at + (kernel_row * width + x - t * strides[1]) * pixel
                            _add(out_at + (y * columns + m + t) * pixel, at, values[k], pixel)
            p += sizes[pattern]


def convolve(representation: Cpo, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    geometry, (rows, columns) = representation.geometry, representation.geometry.output
    filters = -(-geometry.filters // LANES) * LANES
    last = torch.zeros(*weights.shape[1:], filters)
    last[..., : geometry.filters] = weights.detach().permute(1, 2, 3, 0)
    batch = (len(representation.starts) - 1) // geometry.channels
    out = torch.zeros(batch, rows, columns, filters)
    _convolve(
        representation.ptr, representation.indices, representation.values, representation.starts,
        patterns(geometry)[2], np.array(geometry.stride), last.numpy(), out.numpy(),
    )  # fmt: skip
    y = out[..., : geometry.filters].permute(0, 3, 1, 2)
    return y.contiguous(
        memory_format=torch.contiguous_format if representation.first else torch.channels_last
    )
