"""Networks that run as one: the same results whatever their own Python does between convolutions, and who
notices what.
"""

import copy
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from small_networks import Pair, in_a_row, pictures, planned, small

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from dnnjpeg.sparse import Plan, apply_, optimize_, restore_, select  # noqa: E402
from dnnjpeg.sparse.dense import DenseConv2d  # noqa: E402
from dnnjpeg.sparse.fused import Fused  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan  # noqa: E402


class Calls(TorchFunctionMode):
    """What torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func.__name__] += 1
        return func(*args, **(kwargs or {}))


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
