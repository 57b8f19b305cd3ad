"""Convolutions that pad in their own way: found out by trying, used where nothing else is done."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse import Plan, apply_, optimize_  # noqa: E402
from dnnjpeg.sparse.fast import FastConv2d  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry, padding_of  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling  # noqa: E402


class Same(nn.Conv2d):
    """As many outputs as strides fit: the odd zero goes to the end."""

    def forward(self, x: Tensor) -> Tensor:
        extents = (d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))
        both = [
            max(0, (-(-n // s) - 1) * s + e - n)
            for n, s, e in zip(x.shape[2:], self.stride, extents, strict=True)
        ]
        (above, below), (left, right) = ((n // 2, n - n // 2) for n in both)
        return super().forward(F.pad(x, (left, right, above, below)))


class Scaled(Same):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.001


class Adapted(Same):
    """What it adds is nothing yet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.more = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.more


@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)), groups=st.sampled_from([1, 2, 4]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_it_is_found(
    kernel: tuple[int, int], stride: int, dilation: int, size: tuple[int, int], groups: int
) -> None:
    module = Same(4, 8, kernel, stride, dilation=dilation, groups=groups)
    padding = padding_of(module, (2, 4, *size))
    assert padding is not None
    above, left, below, right = padding
    x = torch.randn(2, 4, *size)
    padded = F.pad(x, (left, right, above, below))
    y = F.conv2d(padded, module.weight, module.bias, stride, 0, dilation, groups)
    assert torch.allclose(y, module(x), atol=1e-5)


def test_it_is_told_by_name() -> None:
    assert padding_of(nn.Conv2d(3, 4, (3, 5), padding="same"), (1, 3, 9, 9)) == (1, 2, 1, 2)
    assert padding_of(nn.Conv2d(3, 4, 3, padding="valid"), (1, 3, 9, 9)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "module",
    [
        Scaled(3, 4, 3),
        Adapted(3, 4, 3),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.utils.parametrizations.weight_norm(Same(3, 4, 3)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_does_more_is_left_alone(module: nn.Conv2d) -> None:
    assert padding_of(module, (1, 3, 9, 9)) is None
    network = nn.Sequential(module).eval()
    assert not optimize_(network, torch.randn(1, 3, 9, 9), seconds=0).layers
    assert network[0] is module


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        Same(3, 24, 3, 2), nn.BatchNorm2d(24), nn.ReLU6(), Same(24, 24, 3, 2, groups=24), nn.ReLU(),
        Same(24, 8, 4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("method", ["torch", "channels_last", "prepacked", "im2col", "mec", "ring-patterns"])
def test_every_method(method: str, network: nn.Sequential) -> None:
    """At the size that the plan is for, and at another, which is left to the modules; and a plan on disk."""
    sizes = [(2, 3, 12, 17), (1, 3, 13, 12)]
    pictures = [torch.randn(size).contiguous(memory_format=torch.channels_last) for size in sizes]
    with torch.inference_mode():
        expected = [network(x) for x in pictures]
        first = LayerPlan("0", Geometry(3, 12, 17, 24, (3, 3), (2, 2), (0, 1), (1, 1)), "torch")
        last = LayerPlan("5", Geometry(24, 3, 5, 8, (4, 4), (1, 1), (1, 1), (2, 2)), "torch")
        tiling = Tiling(True, 32, 1, 1) if method == "ring-patterns" else None
        layers = [replace(layer, method=method, tiling=tiling) for layer in (first, last)]
        layers[0] = replace(layers[0], norm="1", relu="2")
        depthwise = Geometry(24, 6, 9, 24, (3, 3), (2, 2), (0, 1), (1, 1), groups=24)
        layers.append(
            LayerPlan("3", depthwise, "depthwise" if method == "ring-patterns" else "prepacked", relu="4")
        )
        apply_(network, Plan(tuple(layers)), check=False)
        assert isinstance(network[0], FastConv2d) and isinstance(network[3], FastConv2d)
        for x, y in zip(pictures, expected, strict=True):
            assert torch.allclose(network(x), y, atol=1e-5 * float(y.abs().max()))


def test_a_plan_with_another_padding_is_refused(network: nn.Sequential) -> None:
    wrong = LayerPlan("0", Geometry(3, 12, 17, 24, (3, 3), (2, 2), (1, 1)), "torch")
    with pytest.raises(ValueError, match="made for another network"):
        apply_(network, Plan((wrong,)), check=False)


def test_it_is_measured(network: nn.Sequential) -> None:
    x = torch.randn(1, 3, 12, 17)
    with torch.inference_mode():
        before = network(x)
    report = optimize_(network, x, seconds=0)
    found = {layer.name: layer for layer in report.layers}
    assert list(found) == ["0", "3", "5"] and "depthwise" in found["3"].times
    assert str(found["3"].geometry) == "24x6x9->24 3x3 stride 2x2 pad 0x1+1x1 groups 24"
    assert all(layer.difference < 1e-5 for layer in report.layers)
    with torch.inference_mode():
        assert torch.allclose(network(x), before, atol=1e-5)
