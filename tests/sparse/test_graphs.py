"""Networks as one graph: what fx adds to them, threads, and what a graph cannot follow."""

import copy
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from small_networks import Pair, in_a_row, planned

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from dnnjpeg.sparse import SparseConv2d, optimize_, restore_  # noqa: E402
from dnnjpeg.sparse.dense import DenseConv2d  # noqa: E402
from dnnjpeg.sparse.fused import Fused  # noqa: E402


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x - torch.tensor(0.5)) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))


def test_constants_are_no_attributes_of_the_network() -> None:
    model, x = Constant().eval(), torch.randn(1, 3, 9, 9)
    fused = Fused(model)
    with torch.no_grad():
        for one in (fused, Fused(copy.deepcopy(model))):
            assert torch.allclose(one(x), model(x), atol=1e-5)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_threads_trace_a_copy_one_after_the_other() -> None:
    model, x = Constant().eval(), torch.randn(1, 3, 9, 9)
    model.forward = Fused(model)
    expected = model(x)
    for _ in range(60):
        other = copy.deepcopy(model)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, other=other: other(x), range(4)))
        assert all(torch.allclose(one, expected, atol=1e-5) for one in found)


class Masked(Pair):
    """Optional arguments change what it does, and what it returns."""

    def __init__(self) -> None:
        super().__init__(in_a_row)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, size: Any = (9, 11), both: bool = False
    ) -> Any:
        x = x if mask is None else x * mask
        y = super().forward(x)[:, :, : size[0], : size[1]]
        return (y, x) if both else y


@torch.no_grad()
def test_optional_arguments() -> None:
    network, x = Masked().eval(), torch.randn(1, 16, 9, 11)
    mask = (x > 0).float()
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((x,), {}), ((), {"x": x}), ((x, None), {}), ((x,), {"both": False}),
        ((x, mask), {}), ((x,), {"mask": mask}), ((x,), {"both": True}), ((x,), {"size": (3, 4)}),
    ]  # fmt: skip
    expected = [network(*inputs, **options) for inputs, options in calls]
    planned(network, "direct", True)
    own: list[Any] = []
    network.way = lambda net, x: own.append(x) or in_a_row(net, x)
    for (inputs, options), wanted in zip(calls, expected, strict=True):
        y = network(*inputs, **options)
        assert type(y) is type(wanted)
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-4)
    assert len(own) == 4
    with pytest.raises(TypeError, match="both"):
        network(x, None, both_=1)


@torch.no_grad()
def test_optional_arguments_in_optimize() -> None:
    network, x = Masked().eval(), torch.randn(1, 16, 9, 11)
    for inputs in ((x,), (x, (x > 0).float())):
        expected = network(*inputs)
        report = optimize_(network, inputs, seconds=0)
        assert torch.allclose(network(*inputs), expected, atol=1e-5) and report.difference < 1e-5


class Storing(Pair):
    """Keeps its last output, and counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = super().forward(x)
        return self.last.mean((2, 3))


@torch.no_grad()
def test_what_forward_sets_stays_right() -> None:
    network, x = Storing(in_a_row).eval(), torch.randn(1, 16, 9, 11)
    with pytest.raises(ValueError, match="its forward sets calls, last"):
        planned(network, "direct", True)
    assert "last" not in network.__dict__ and "calls" not in network.__dict__
    report = optimize_(network, x, seconds=0)
    assert not report.plan.fused
    before = network.calls
    y = network(2 * x)
    assert torch.equal(network.last.mean((2, 3)), y) and network.calls == before + 1


@torch.no_grad()
def test_a_network_that_fails_as_a_graph_runs_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Fused, *inputs: Any) -> None:
        raise KeyError("x")

    network, x = Pair(in_a_row).eval(), torch.randn(1, 16, 9, 11)
    expected = network(x)
    monkeypatch.setattr(Fused, "__call__", fail)
    assert not optimize_(network, x, seconds=0).plan.fused
    assert torch.allclose(network(x), expected, atol=1e-5)
    monkeypatch.setattr(DenseConv2d, "forward", fail)
    restore_(network)
    with pytest.raises(KeyError):
        optimize_(network, x, seconds=0)
    assert torch.equal(network(x), expected)


def test_a_network_that_cannot_be_followed() -> None:
    """Its way depends on numbers: it gets a plan, and keeps its own Python."""
    network = Pair(lambda net, x: net.first(x) if x.mean() > 0 else net.second(x)).eval()
    with pytest.raises(ValueError, match="Pair cannot run as one graph"):
        planned(network, "ring-patterns", True)
    assert type(network.first) is nn.Conv2d
    planned(network, "ring-patterns", False)
    assert isinstance(network.first, SparseConv2d)
    restore_(network)
    report = optimize_(network, torch.rand(1, 16, 9, 11), seconds=0)
    assert not report.plan.fused and len(report.layers) == 1
