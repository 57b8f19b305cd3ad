"""Layers of all shapes, their inputs, and what torch makes of these in float64."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.sparse.geometry import Geometry


@st.composite
def geometries(draw: Any, channels: int = 6, filters: int = 5, size: int = 9, stride: int = 4) -> Geometry:
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    ends = draw(st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)))
    steps = draw(st.tuples(st.integers(1, 3), st.integers(1, stride)))
    smallest = [max(1, k - p - e) for k, p, e in zip(kernel, padding, ends or padding, strict=True)]
    height, width = (draw(st.integers(low, size + low)) for low in smallest)
    return Geometry(
        draw(st.integers(1, channels)), height, width, draw(st.integers(1, filters)), kernel, steps, padding,
        ends,
    )  # fmt: skip


def sparse_input(geometry: Geometry, zeros: float, batch: int, last: bool, seed: int) -> Tensor:
    """Values in both directions, about `zeros` of them zero; one channel all zero where there are several."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, geometry.channels, geometry.height, geometry.width, generator=random)
    x[torch.rand(x.shape, generator=random) < zeros] = 0
    if geometry.channels > 2 and zeros:
        x[:, 1] = 0
    return x.contiguous(memory_format=torch.channels_last) if last else x


def weights_for(geometry: Geometry, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed + 1)
    return torch.randn(geometry.filters, geometry.channels, *geometry.kernel, generator=random)


def truth(x: Tensor, geometry: Geometry, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    bias = None if bias is None else bias.double()
    (above, left), (below, right) = geometry.padding, geometry.ends
    x = F.pad(x.double(), (left, right, above, below))
    return F.conv2d(x, weights.double(), bias, geometry.stride, groups=geometry.groups)
