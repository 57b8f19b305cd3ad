"""Networks that run as one: the same results whatever their own Python does between convolutions, and who
notices what.
"""

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from small_networks import pictures, small

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from dnnjpeg.sparse import Plan, SparseConv2d, apply_, optimize_, restore_, select  # noqa: E402
from dnnjpeg.sparse.dense import DenseConv2d  # noqa: E402
from dnnjpeg.sparse.fused import Fused  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling  # noqa: E402

TILING = Tiling(True, 16, 1, 3)


class Calls(TorchFunctionMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class Pair(nn.Module):
    """Two convolutions, the first with a ReLU, and what `way` makes of x and their outputs."""

    def __init__(self, way: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.relu, self.relu6 = nn.ReLU(), nn.ReLU6(inplace=True)
        self.shift = nn.Parameter(torch.randn(1, 16, 1, 1))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def add_in_place(net: Any, x: Tensor) -> Tensor:
    y = net.second(net.relu(net.first(x)))
    y += x
    return net.relu(y)


def changed_between(net: Any, x: Tensor) -> Tensor:
    """The residual is another tensor once the convolution has read it: the sum must not be moved."""
    x = x * 1
    y = net.first(x)
    x.mul_(2)
    return y + x


def changed_after(net: Any, x: Tensor) -> Tensor:
    """Lists made of the first output are no longer those of what the second reads."""
    y = net.relu(net.first(x))
    y.mul_(2)
    return net.second(y)


def changed_by_addition(net: Any, x: Tensor) -> Tensor:
    """The sum is written over x, which is read again."""
    x = x * 1
    y = net.relu(net.first(x))
    x += net.second(y)
    return x + y


def read_twice(net: Any, x: Tensor) -> Tensor:
    y = net.second(x)
    return y + x + y


def two_relus(net: Any, x: Tensor) -> Tensor:
    y = net.second(x) + x
    return net.relu(y) - F.relu(-y)


def doubled(net: Any, x: Tensor) -> Tensor:
    y = net.second(x)
    return y + y


def map_and_lists(net: Any, x: Tensor) -> Tensor:
    y = net.relu(net.first(x))
    return net.second(y) + y


def in_a_row(net: Any, x: Tensor) -> Tensor:
    return net.second(net.relu(net.first(x)))


def several_outputs(net: Any, x: Tensor) -> Tensor:
    y = net.relu(net.first(x))
    return torch.cat([y, net.second(y)])


# what is called by name, and what is no longer
WAYS: dict[str, tuple[Callable[..., Tensor], dict[str, bool]]] = {
    "residual": (
        lambda net, x: net.relu(net.second(net.relu(net.first(x))) + x),
        {"add": False, "relu": False},
    ),
    "other order": (lambda net, x: net.relu6(x + net.second(x)), {"add": False, "hardtanh": False}),
    "in place": (add_in_place, {"iadd": False, "relu": False}),
    "functions": (lambda net, x: F.relu(torch.add(net.second(x), x)), {"add": False, "relu": False}),
    "methods": (lambda net, x: net.second(x).add_(x).relu_(), {"add_": False, "relu_": False}),
    "no relu": (lambda net, x: net.second(x) + x, {"add": False}),
    "relu alone": (lambda net, x: F.relu6(net.second(x)), {"hardtanh": False}),
    "two relus": (two_relus, {"add": False, "relu": True}),
    "both": (lambda net, x: net.first(x) + net.second(x), {"add": False}),
    "doubled": (doubled, {"add": True}),
    "read twice": (read_twice, {"add": True}),
    "scaled": (lambda net, x: torch.add(net.second(x), x, alpha=2), {"add": True}),
    "a number": (lambda net, x: net.second(x) + 1, {"add": True}),
    "broadcast": (lambda net, x: net.relu(net.second(x) + net.shift), {}),
    "broadcast up": (lambda net, x: net.relu(net.second(x[:1]) + x), {}),
    "layout": (lambda net, x: net.second(x) + x.contiguous(), {"add": False}),
    "changed between": (changed_between, {"add": True}),
    "changed after": (changed_after, {}),
    "changed by addition": (changed_by_addition, {}),
    "map and lists": (map_and_lists, {"add": False, "relu": False}),
    "several outputs": (several_outputs, {"relu": False}),
}


def planned(network: nn.Module, method: str, fused: bool) -> nn.Module:
    geometry = Geometry(16, 9, 11, 16, (3, 3), (1, 1), (1, 1))
    tiling = TILING if method == "ring-patterns" else None
    layers = [LayerPlan(name, geometry, method, tiling) for name in ("first", "second")]
    apply_(network, Plan(tuple(layers), fused=fused), check=False)
    return network


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("method", ["ring-patterns", "channels_last", "direct", "winograd", "winograd4"])
def test_results_are_the_networks_own(name: str, method: str) -> None:
    way, calls = WAYS[name]
    network = Pair(way).eval()
    x = torch.randn(2, 16, 9, 11).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(x)
        planned(network, method, True)
        assert isinstance(network.__dict__["forward"], Fused)
        for _ in range(2):
            with Calls() as called:
                y = network(x)
            assert torch.allclose(y, expected, atol=1e-5 * float(expected.abs().max()))
            if method == "ring-patterns":
                assert {function: called.count[function] > 0 for function in calls} == calls


@pytest.mark.parametrize(
    ("part", "border", "pads"),
    [
        ((slice(None), slice(None), slice(None, None, 2), slice(None, None, 3)), (0, 0, 0, 0, 3, 5), 0),
        ((slice(None), slice(None), slice(None), slice(None, None, 2)), [0, 0, 0, 0, 0, 0], 0),
        ((slice(None), slice(None), slice(1, None, 2), slice(None, None, 2)), (0, 0, 0, 0, 3, 5), 1),
        ((slice(1), slice(None), slice(None, None, 2), slice(None, None, 2)), (0, 0, 0, 0, 3, 5), 1),
        ((slice(None), slice(None), slice(None, None, 2)), (0, 0, 0, 0, 3, 5), 1),
        ((slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)), (0, 0, 1, 0, 3, 5), 1),
        ((slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)), (0, 0, 0, 0, 3, -5), 1),
        ((slice(None), slice(None), slice(None, None, 2), slice(None, None, 2)), (1, 1), 1),
    ],
)
@pytest.mark.parametrize("value", [None, 1.5])
def test_shortcuts_that_skip_pixels_and_add_channels(
    part: tuple[slice, ...], border: Any, pads: int, value: float | None
) -> None:
    def way(net: Any, x: Tensor) -> Tensor:
        y = net.relu(net.first(x))
        z = F.pad(y[part], border, value=value)
        return torch.cat([z.flatten(), net.second(y).flatten()])

    network = Pair(way).eval()
    x = torch.randn(2, 16, 9, 11)
    with torch.inference_mode():
        expected = network(x)
        planned(network, "direct", True)
        with Calls() as called:
            y = network(x)
        assert torch.allclose(y, expected, atol=1e-5 * float(expected.abs().max()))
        assert called.count["pad"] == (pads if value is None else 1)


def test_a_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    own = select.clock
    favoured = lambda functions, *rest: {  # noqa: E731
        key: 1.0 + (key in (*select.DENSE, "original", "dense", "cautious")) for key in own(functions, 0.0)
    }
    monkeypatch.setattr(select, "clock", favoured)
    network = small()
    before = [network(pictures(count)).detach() for count in (2, 3)]
    report = optimize_(network, pictures(), seconds=0)
    assert report.choice == "plan" and report.plan.fused and report.difference < 1e-5
    with torch.inference_mode():
        for count, expected in zip((2, 3), before, strict=True):
            assert torch.allclose(network(pictures(count)), expected, atol=1e-4)
        copied, unpickled = copy.deepcopy(network), pickle.loads(pickle.dumps(network))
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.allclose(copied(pictures()), before[0], atol=1e-4)
        assert torch.allclose(unpickled(pictures()), before[0], atol=1e-4)
        assert not torch.allclose(network(pictures()), before[0], atol=1e-4)
        restore_(copied)
        assert "forward" not in copied.__dict__ and torch.equal(copied(pictures()), before[0])


@pytest.fixture
def pair() -> nn.Module:
    return planned(Pair(WAYS["residual"][0]).eval(), "ring-patterns", True)


@pytest.mark.parametrize(
    ("way", "fused", "calls"), [(map_and_lists, False, 1), (map_and_lists, True, 0), (in_a_row, True, 0)]
)
@torch.inference_mode()
def test_inputs_with_few_zeros_are_left_to_torch(
    way: Any, fused: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of chains. These compute everything themselves, later by a dense kernel."""
    x, network = torch.randn(1, 16, 9, 11), Pair(way).eval()
    expected = network(x)
    planned(network, "ring-patterns", fused)
    network.second.min_zeros = 0.99
    dense: list[Tensor] = []
    own = DenseConv2d.compute
    monkeypatch.setattr(DenseConv2d, "compute", lambda self, *args: dense.append(args) or own(self, *args))
    for turn in range(1, 6):
        assert torch.allclose(network(x), expected, atol=1e-5) and len(dense) == calls * turn


@torch.inference_mode()
def test_hooks_are_called(pair: Any) -> None:
    x, seen = torch.randn(1, 16, 9, 11), []
    expected = pair(x)
    handles = [
        pair.relu.register_forward_hook(lambda module, given, y: seen.append(y)),
        pair.second.register_forward_pre_hook(lambda module, given: seen.append(given[0])),
    ]
    assert torch.allclose(pair(x), expected, atol=1e-5) and len(seen) == 3
    for handle in handles:
        handle.remove()
    pair(x)
    assert len(seen) == 3


@torch.inference_mode()
def test_another_module_in_a_place_is_noticed(pair: Any) -> None:
    x = torch.randn(1, 16, 9, 11)
    before = pair(x)
    pair.relu = nn.Identity()
    assert float(pair(x).min()) < 0 <= float(before.min())


def test_training_is_refused_as_before(pair: Any) -> None:
    with pytest.raises(RuntimeError, match="no gradient"):
        pair(torch.randn(1, 16, 9, 11))
    with pytest.raises(RuntimeError, match="no gradient"):
        pair.train()(torch.randn(1, 16, 9, 11))


class Normed(Pair):
    """A pair with a batch norm."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: net.second(net.relu(net.norm(net.first(x)))))
        self.norm = nn.BatchNorm2d(16)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("part", ["", "norm"])
@torch.no_grad()
def test_training_of_batch_norms_is_refused(fused: bool, part: str) -> None:
    network, x = Normed().eval(), torch.randn(2, 16, 9, 11)
    expected = network(x)
    layer = LayerPlan("first", Geometry(16, 9, 11, 16, (3, 3), (1, 1), (1, 1)), "direct", norm="norm")
    apply_(network, Plan((layer,), fused=fused), check=False)
    assert torch.allclose(network(x), expected, atol=1e-5)
    network.get_submodule(part).train()
    with pytest.raises(RuntimeError, match="restore_ the network before training"):
        network(x)
    restore_(network)
    assert network.norm.training and not torch.allclose(network(x), expected, atol=1e-5)
    apply_(network.eval(), Plan((layer,), fused=fused), check=False)
    network(x)


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
