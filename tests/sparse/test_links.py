"""Pooling, means and linear layers as links of a chain: kernels and networks against torch."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse.chain import Chain  # noqa: E402
from dnnjpeg.sparse.dense import DenseConv2d  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.links import Pooling  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan, Plan, apply_  # noqa: E402
from dnnjpeg.sparse.pool import Pool  # noqa: E402

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    channels=st.integers(1, 40), batch=st.integers(1, 3), kernel=SIZES, stride=SIZES, more=SIZES,
    padded=st.booleans(), threads=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_pooling_is_that_of_torch(
    channels: int,
    batch: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    more: tuple[int, int],
    padded: bool,
    threads: int,
) -> None:
    height, width = (size + extra for size, extra in zip(kernel, more, strict=True))
    padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
    x = torch.randn(batch, channels, height, width)
    x[0, 0, 0, 0] = torch.nan
    geometry = Geometry(channels, height, width, channels, kernel, stride, padding, groups=channels)
    expected = F.max_pool2d(x, kernel, stride, padding)
    assert torch.equal(Pool(geometry, True)(x, threads).nan_to_num(9), expected.nan_to_num(9))
    whole = Geometry(channels, height, width, channels, (height, width), groups=channels)
    x[0, 0, 0, 0] = torch.inf
    means = x.mean((2, 3), keepdim=True)
    assert torch.allclose(Pool(whole, False)(x, threads), means, rtol=1e-5, atol=1e-6)


class Network(nn.Module):
    """Convolutions, and a head that is called in one of many ways."""

    def __init__(self, head: Any, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3)
        self.pool = pool or nn.MaxPool2d(3, 2, 1)
        self.last = nn.Conv2d(20, 24, 1)
        self.norm = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(24, 7)
        self.wide = nn.Linear(1, 3)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, self.last(self.pool(self.stem(x))))


def planned(network: Network) -> Network:
    geometries = {"stem": Geometry(3, 17, 18, 20, (3, 3)), "last": Geometry(20, 8, 8, 24, (1, 1))}
    plan = Plan(tuple(LayerPlan(name, one, "direct") for name, one in geometries.items()), fused=True)
    apply_(network, plan, check=False)
    return network


def chains(network: Network) -> list[Chain]:
    nodes = network.__dict__["forward"]._run.__self__.graph.nodes
    return [
        node.target.__self__ for node in nodes if isinstance(getattr(node.target, "__self__", None), Chain)
    ]


HEADS = {
    "mean": (lambda m, x: m.fc(x.mean((2, 3))), 5),
    "mean of last axes": (lambda m, x: m.fc(torch.mean(x, [-1, -2])), 5),
    "kept": (lambda m, x: m.fc(x.mean(dim=(2, 3), keepdim=True).flatten(1)), 5),
    "module": (lambda m, x: m.fc(torch.flatten(m.norm(x), 1)), 5),
    "function": (lambda m, x: m.fc(m.flat(F.adaptive_avg_pool2d(x, 1))), 5),
    "no linear layer": (lambda m, x: x.mean((2, 3)).softmax(1), 4),
    "read by two": (lambda m, x: (lambda y: m.fc(y) + y[:, :7])(x.mean((2, 3))), 4),
    "other axes": (lambda m, x: x.mean((1, 3)), 3),
    "one axis": (lambda m, x: x.mean((2,)), 3),
    "all": (lambda m, x: x.mean(), 3),
    "not flat": (lambda m, x: m.wide(x.mean((2, 3), keepdim=True)), 4),
    "flat otherwise": (lambda m, x: m.wide(torch.flatten(x.mean((2, 3), keepdim=True), 2)), 4),
    "other size": (lambda m, x: F.adaptive_avg_pool2d(x, 2), 3),
    "type": (lambda m, x: x.mean((2, 3), dtype=torch.float64), 3),
}


@pytest.mark.parametrize(("head", "links"), HEADS.values(), ids=HEADS)
def test_heads(head: Any, links: int) -> None:
    network, x = Network(head).eval(), torch.randn(2, 3, 17, 18)
    with torch.inference_mode():
        expected = network(x)
        planned(network)
        y = network(x)
        assert y.shape == expected.shape and y.dtype is expected.dtype
        assert torch.allclose(y, expected, atol=1e-5)
        assert [len(chain._links) for chain in chains(network)] == [links]


@pytest.mark.parametrize(
    ("pool", "ours"),
    [
        (nn.MaxPool2d(3, 2, ceil_mode=True), 0),
        (nn.MaxPool2d(2, dilation=2), 0),
        (nn.AvgPool2d(2), 0),
        (nn.AdaptiveMaxPool2d(8), 0),
        (nn.MaxPool2d((2, 3), (1, 2), (1, 1)), 1),
    ],
)
def test_other_pooling_is_left_to_torch(pool: nn.Module, ours: int) -> None:
    network, x = Network(HEADS["mean"][0], pool).eval(), torch.randn(1, 3, 17, 18)
    with torch.inference_mode():
        expected = network(x)
        planned(network)
        assert torch.allclose(network(x), expected, atol=1e-5)
    links = [link.module for chain in chains(network) for link in chain._links]
    assert len([link for link in links if isinstance(link, Pooling) and not link.whole]) == ours


def test_new_parameters_of_a_linear_layer_are_noticed() -> None:
    network, x = Network(HEADS["mean"][0]).eval(), torch.randn(1, 3, 17, 18)
    planned(network)
    with torch.no_grad():
        before = network(x)
        network.fc.bias.add_(1)
        assert torch.allclose(network(x), before + 1, atol=1e-5)
        network.fc.weight.mul_(2)
        network.fc.bias.sub_(1).mul_(2)
        assert torch.allclose(network(x), 2 * before, atol=1e-5)
        network.fc.weight = nn.Parameter(torch.zeros(7, 24))
        network.fc.bias.zero_()
        assert not network(x).any()
        network.fc = nn.Linear(24, 5)
        assert network(x).shape == (1, 5)


def test_what_is_not_float32_is_left_to_torch() -> None:
    network, x = Network(HEADS["mean"][0]).eval(), torch.randn(1, 3, 17, 18)
    planned(network)
    network.double()
    with torch.inference_mode():
        y = network(x.double())
    assert y.dtype is torch.float64 and not isinstance(network.fc, DenseConv2d)
