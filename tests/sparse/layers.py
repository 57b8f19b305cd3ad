"""Layers of all shapes, their inputs, and what torch makes of these in float64."""

from dataclasses import dataclass
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


AFTER = {"none": lambda y: y, "relu": F.relu, "relu6": F.relu6}


@dataclass(frozen=True)
class Call:
    """How a dense kernel of ours is called. last: whether the input is channels last."""

    batch: int
    threads: int
    last: bool
    bias: bool
    residual: bool
    activation: str
    seed: int

    def check(self, kind: Any, geometry: Geometry) -> None:
        """The outputs of a kernel, `kind(geometry, weights, bias)`, are those of torch."""
        random = torch.Generator().manual_seed(self.seed)
        layout = torch.channels_last if self.last else torch.contiguous_format
        x = torch.randn(self.batch, geometry.channels, geometry.height, geometry.width, generator=random)
        x = x.contiguous(memory_format=layout)
        inputs = geometry.channels // geometry.groups
        weights = 3 * torch.randn(geometry.filters, inputs, *geometry.kernel, generator=random)
        bias = torch.randn(geometry.filters, generator=random) if self.bias else None
        expected = truth(x, geometry, weights, bias)
        residual = torch.randn(expected.shape, generator=random) if self.residual else None
        y = kind(geometry, weights, bias)(x, self.threads, residual=residual, activation=self.activation)
        sums = expected if residual is None else expected + residual
        expected = AFTER[self.activation](sums)
        assert y.shape == expected.shape and y.is_contiguous(memory_format=torch.channels_last)
        # the rounding of sums does not shrink when they are clipped
        assert float((y - expected).abs().max()) <= 1e-5 * max(1e-30, float(sums.abs().max()))


CALLS = st.builds(
    Call, batch=st.integers(1, 3), threads=st.integers(1, 2), last=st.booleans(), bias=st.booleans(),
    residual=st.booleans(), activation=st.sampled_from(sorted(AFTER)), seed=st.integers(0, 99),
)  # fmt: skip
