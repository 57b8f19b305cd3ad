"""Convolution as one matrix product: im2col and BLAS."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.sparse.geometry import Geometry, Memory


@dataclass(frozen=True, eq=False)
class Im2col:
    """The im2col matrix.

    With channels last, it has a row for each output pixel: the elements of the kernel, then the channels.
    With channels first, it has a column for each output pixel: the channels, then the elements of the kernel.
    """

    geometry: Geometry
    matrix: Tensor  # N x Oh·Ow x Kh·Kw·C, or N x C·Kh·Kw x Oh·Ow
    first: bool  # channels first, as the input was

    def memory(self) -> Memory:
        """Memory of the matrix."""
        return Memory(self.matrix.numel(), 4 * self.matrix.numel())

    @property
    def compression_ratio(self) -> float:
        """1, as other methods are compared with this one."""
        return 1.0


def compress(x: Tensor, geometry: Geometry) -> Im2col:
    """The matrix of an input, float32 N x C x H x W in any layout. Raises ValueError for other inputs."""
    batch = geometry.check(x)
    (rows, columns), (kernel_rows, kernel_columns) = geometry.output, geometry.kernel
    first = not x.is_contiguous(memory_format=torch.channels_last)
    x = padded(x, geometry)
    images, channels, down, right = x.stride()
    steps = (down * geometry.stride[0], right * geometry.stride[1])
    if first:
        windows = x.as_strided(
            (batch, geometry.channels, kernel_rows, kernel_columns, rows, columns),
            (images, channels, down, right, *steps),
        )
        return Im2col(geometry, windows.reshape(batch, geometry.taps, rows * columns), True)
    windows = x.as_strided(
        (batch, rows, columns, kernel_rows, kernel_columns, geometry.channels),
        (images, *steps, down, right, channels),
    )
    return Im2col(geometry, windows.reshape(batch, rows * columns, geometry.taps), False)


def convolve(representation: Im2col, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    geometry, matrix = representation.geometry, representation.matrix
    filters, size = geometry.filters, geometry.output
    if representation.first:
        return (weights.reshape(filters, -1) @ matrix).reshape(-1, filters, *size)
    last = weights.permute(2, 3, 1, 0).reshape(-1, filters)
    return (matrix @ last).reshape(-1, *size, filters).permute(0, 3, 1, 2)


def padded(x: Tensor, geometry: Geometry) -> Tensor:
    """The input with its padding, in its own layout."""
    (above, left), (below, right) = geometry.padding, geometry.ends
    return F.pad(x, (left, right, above, below)) if above or left or below or right else x
