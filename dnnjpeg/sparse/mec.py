"""Memory-efficient convolution (Cho and Brand, ICML 2017): lowered along the width only.

The lowered matrix has Ow rows; the product of an output row is that of Ow overlapping windows into them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dnnjpeg.sparse.geometry import Geometry, Memory
from dnnjpeg.sparse.im2col import padded


@dataclass(frozen=True, eq=False)
class Mec:
    """The lowered matrix L[Ow][padded height][Kw·C] of each picture."""

    geometry: Geometry
    matrix: Tensor  # N x Ow x H' x Kw x C
    first: bool  # whether the input had its channels first

    def memory(self) -> Memory:
        """Memory of the matrix."""
        return Memory(self.matrix.numel(), 4 * self.matrix.numel())

    @property
    def compression_ratio(self) -> float:
        """Elements of the im2col matrix, divided by those of L."""
        return len(self.matrix) * self.geometry.im2col_elements / self.matrix.numel()


def compress(x: Tensor, geometry: Geometry) -> Mec:
    """L of an input, float32 N x C x H x W in any layout. Raises ValueError for other inputs."""
    batch = geometry.check(x)
    first = not x.is_contiguous(memory_format=torch.channels_last)
    x = padded(x, geometry)
    images, channels, down, right = x.stride()
    windows = x.as_strided(
        (batch, geometry.output[1], x.shape[2], geometry.kernel[1], geometry.channels),
        (images, right * geometry.stride[1], down, right, channels),
    )
    return Mec(geometry, windows.contiguous(), first)


def convolve(representation: Mec, weights: Tensor) -> Tensor:
    """The output, N x filters x Oh x Ow in the input's layout. weights: float32 filters x C x Kh x Kw."""
    geometry, lowered = representation.geometry, representation.matrix
    rows, columns = geometry.output
    kernel = weights.permute(2, 3, 1, 0).reshape(-1, geometry.filters)
    step = geometry.kernel[1] * geometry.channels  # from one padded row to the next
    out = torch.empty(len(lowered), rows, columns, geometry.filters)
    for image, result in zip(lowered, out, strict=True):
        for row in range(rows):
            start = image.storage_offset() + row * geometry.stride[0] * step
            window = image.as_strided((columns, len(kernel)), (image.stride(0), 1), start)
            torch.mm(window, kernel, out=result[row])
    y = out.permute(0, 3, 1, 2)
    return y.contiguous() if representation.first else y
