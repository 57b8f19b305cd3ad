"""Convolutions that are run by one compiled call: the results are those of one after the other."""

import ctypes
import threading
from collections.abc import Callable, Sequence

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse import program, strips  # noqa: E402
from dnnjpeg.sparse.chain import Chain  # noqa: E402
from dnnjpeg.sparse.dense import DenseConv2d  # noqa: E402
from dnnjpeg.sparse.module import SparseConv2d  # noqa: E402
from dnnjpeg.sparse.program import Link  # noqa: E402
from dnnjpeg.sparse.ring import RingConvolution  # noqa: E402
from dnnjpeg.sparse.threads import Team, team  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling  # noqa: E402

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda y: y, "relu": F.relu, "relu6": F.relu6}


@pytest.fixture(autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with maps that are larger than the cache."""
    monkeypatch.setattr(strips, "WORTH", 0)
    monkeypatch.setattr(strips, "ROWS", 20_000)


def planned(module: nn.Conv2d, method: str, activation: str = "none") -> DenseConv2d:
    made = DenseConv2d.of(module, activation=activation, channels_last=True)
    made.method = method
    return made


def pointwise(channels: int, filters: int, activation: str = "relu") -> DenseConv2d:
    return planned(nn.Conv2d(channels, filters, 1), "direct", activation)


def depthwise(channels: int, size: int = 3, stride: int = 1, padding: int = 1) -> DenseConv2d:
    module = nn.Conv2d(channels, channels, size, stride, padding, groups=channels)
    return planned(module, "depthwise", "relu6")


def expected(links: Sequence[Link], inputs: Sequence[Tensor]) -> list[Tensor]:
    tensors = [x.double() for x in inputs]
    for link in links:
        module = link.module
        y = F.conv2d(
            tensors[link.source], module.weight.double(), module.bias.double(), module.stride, module.padding,
            groups=module.groups,
        )  # fmt: skip
        y = y if link.residual is None else y + tensors[link.residual]
        tensors.append(ACTIVATIONS[link.activation](y))
    return tensors


def check(links: Sequence[Link], outputs: Sequence[int], *inputs: Tensor) -> None:
    made = Chain(links, outputs)
    with torch.inference_mode():
        tensors = expected(links, inputs)
        for _ in range(2):  # the second time, the arena has been used before
            results = made(*inputs)
            results = results if isinstance(results, tuple) else (results,)
            assert len(results) == len(outputs)
            for number, y in zip(outputs, results, strict=True):
                assert y.is_contiguous(memory_format=torch.channels_last)
                assert float((y - tensors[number]).abs().max()) <= 1e-5 * float(tensors[number].abs().max())


def linked(*modules: DenseConv2d) -> list[Link]:
    return [Link(module, module.activation, i) for i, module in enumerate(modules)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_branches_residuals_and_several_outputs(batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    winograd = planned(nn.Conv2d(16, 16, 3, padding=1), "winograd")
    links = [
        Link(pointwise(8, 16), "relu", 0),  # 2, after the inputs 0 and 1
        Link(winograd, "relu", 2, 1),  # 3
        Link(pointwise(16, 16), "none", 3, 2),  # 4
        Link(depthwise(16), "relu6", 2),  # 5
        Link(pointwise(16, 24), "none", 4),  # 6
        Link(pointwise(16, 24), "relu", 5, 6),  # 7
        Link(pointwise(24, 8), "relu", 7),  # 8
    ]
    x = torch.randn(batch, 8, 29, 30)
    check(links, [3, 7, 8], x, torch.randn(batch, 16, 29, 30))


def sparse(module: nn.Conv2d, tiling: Tiling, activation: str = "relu") -> SparseConv2d:
    made = SparseConv2d.of(module, activation=activation, channels_last=True)
    made.tiling = tiling
    return made


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("patterns", [True, False])
def test_sparse_links(patterns: bool, batch: int, threads: int) -> None:
    torch.set_num_threads(threads)
    turned = Tiling(patterns, 16, 1, 1, True)
    links = [
        Link(pointwise(8, 40), "relu", 0),  # 2, after the inputs 0 and 1
        Link(sparse(nn.Conv2d(40, 40, 3, padding=1), Tiling(patterns, 32, 1, 3)), "relu6", 2),  # 3
        Link(sparse(nn.Conv2d(40, 70, 1), Tiling(patterns, 64, 2), "none"), "relu", 3, 1),  # 4
        Link(sparse(nn.Conv2d(70, 24, (3, 1), (2, 1)), turned), "none", 4),  # 5
        Link(pointwise(24, 16), "relu", 5),  # 6
        Link(sparse(nn.Conv2d(16, 16, 1), Tiling(patterns, 16, 1)), "relu", 6),  # 7
    ]
    check(links, [4, 7], torch.randn(batch, 8, 29, 30), torch.randn(batch, 70, 29, 30))


def test_sparse_links_that_meet_few_zeros_become_dense() -> None:
    layer = sparse(nn.Conv2d(32, 16, 1), Tiling(True, 32, 1))
    layer.min_zeros = 0.4
    links = linked(sparse(nn.Conv2d(16, 32, 1), Tiling(True, 16, 1)), layer)
    links[0].module.min_zeros = 0.0
    nn.init.ones_(links[0].module.weight)
    made = Chain(links, [2])

    def right(x: Tensor) -> None:
        with torch.inference_mode():
            wanted = expected(links, [x])[2]
            assert float((made(x) - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())

    def dense() -> list[bool]:
        (found,) = made._programs.values()
        assert found is not None
        return [not isinstance(kernel, RingConvolution) for kernel in found._kernels]

    x = torch.randn(1, 16, 12, 12)  # half of what the second layer reads is zero
    full = x.abs() + 1  # nothing is
    for given in (x, full, full, x, full, full):
        right(given)
        assert dense() == [False, False]
    right(full)
    for given in (full, x):
        right(given)
        assert dense() == [False, True]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 1, 2), (3, 1, 0), (4, 3, 1), (1, 2, 0)]
)
@pytest.mark.parametrize("first", ["none", "pointwise", "stem"])
def test_strips(many_strips: None, first: str, size: int, stride: int, padding: int, batch: int) -> None:
    stem = planned(nn.Conv2d(3, 40, 3, 2, 1), "direct", "relu")
    before = {"none": [], "pointwise": [pointwise(3, 40)], "stem": [stem]}[first]
    channels = 40 if before else 3
    links = linked(*before, depthwise(channels, size, stride, padding), pointwise(channels, 24, "none"))
    x = torch.randn(batch, 3, 61, 60)
    check(links, [len(links)], x)
    links += [
        Link(module, module.activation, len(links) + i)
        for i, module in enumerate((pointwise(24, 40), depthwise(40)))
    ]
    links.append(Link(pointwise(40, 24), "none", len(links), len(links) - 2))  # a residual that strips add
    check(links, [len(links) - 3, len(links)], x)


def test_strips_are_used_where_nothing_else_reads_what_is_between(many_strips: None) -> None:
    links = linked(pointwise(3, 40), depthwise(40), pointwise(40, 24))
    x = torch.randn(1, 3, 40, 40)

    def steps(links: Sequence[Link], outputs: Sequence[int]) -> int:
        made = Chain(links, outputs)
        with torch.inference_mode():
            made(x)
        (found,) = made._programs.values()
        assert found is not None
        return len(found._jobs)

    assert steps(links, [3]) > 30
    assert steps(links, [2, 3]) == steps(links, [1, 2, 3]) == 3
    assert steps([*links, Link(pointwise(24, 40), "none", 3, 2)], [4]) == 4


def test_new_weights_are_noticed_and_gradients_refused() -> None:
    links = linked(pointwise(8, 16), depthwise(16))
    made, x = Chain(links, [2]), torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        made(x)
        links[1].module.weight.mul_(2)
        links[0].module.weight.data = links[0].module.weight.data + 1
        y = made(x)
        assert torch.allclose(y.double(), expected(links, [x])[2], atol=1e-4)
    with pytest.raises(RuntimeError, match="has no gradient"):
        made(x)


@torch.no_grad()
def test_a_changed_bias_or_norm_is_noticed() -> None:
    conv, norm = nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16).eval()
    first = DenseConv2d.of(conv, norm=norm, channels_last=True)
    first.method = "direct"
    second, x = pointwise(16, 8, "none"), torch.randn(1, 8, 9, 9)
    made = Chain(linked(first, second), [2])
    for change in (
        lambda: None,
        lambda: setattr(conv.bias, "data", conv.bias + 1),
        lambda: norm.weight.mul_(2),
        lambda: norm.bias.add_(1),
        lambda: norm.running_var.mul_(2),
        lambda: setattr(norm.running_mean, "data", norm.running_mean + 1),
        lambda: setattr(norm, "weight", nn.Parameter(norm.weight + 1)),
        lambda: setattr(second, "bias", None),
    ):
        change()
        assert torch.allclose(made(x), F.conv2d(norm(conv(x)), second.weight, second.bias), atol=1e-4)


def test_other_inputs_are_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    links = linked(pointwise(8, 16), depthwise(16))
    made = Chain([*links, Link(pointwise(16, 16), "none", 2, 0)], [3])
    with torch.inference_mode():
        x = torch.randn(1, 8, 6, 6)
        with pytest.raises(RuntimeError):  # torch's own: a residual of 8 channels does not fit 16
            made(x)
        torch.set_num_threads(2)
        monkeypatch.setattr(program, "team", lambda: Team(0, 0, 0, 0))  # without torch's OpenMP
        links = linked(planned(nn.Conv2d(16, 64, 3), "direct"), pointwise(64, 64))
        x = torch.randn(1, 16, 40, 40)
        assert torch.allclose(Chain(links, [2])(x).double(), expected(links, [x])[2], atol=1e-4)


def test_a_team_may_be_smaller_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As inside another parallel region."""
    asked = []

    def run(code: int, job: int, threads: int, flags: int) -> None:
        asked.append(threads)
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code)(job)

    alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(run)
    if team().run == 0:
        pytest.skip("torch has no GNU OpenMP here")
    torch.set_num_threads(2)
    made = team()._replace(run=ctypes.cast(alone, ctypes.c_void_p).value)
    monkeypatch.setattr(program, "team", lambda: made)
    links = linked(planned(nn.Conv2d(16, 64, 3), "direct"), pointwise(64, 64), depthwise(64))
    check(links, [2, 3], torch.randn(1, 16, 40, 40))
    assert asked == [2, 2]


@pytest.mark.parametrize("own", [1, 2])
def test_several_threads_may_call_a_chain_at_once(own: int) -> None:
    """own: threads that each of them has for itself."""
    links = linked(pointwise(8, 40), depthwise(40), pointwise(40, 16))
    torch.set_num_threads(own)
    made = Chain(links, [3])
    inputs = [torch.randn(1, 8, 30, 31) for _ in range(4)]
    results: list[list[Tensor]] = [[] for _ in inputs]

    def call(i: int) -> None:
        with torch.inference_mode():
            results[i] = [made(inputs[i]) for _ in range(30)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    with torch.inference_mode():
        for x, found in zip(inputs, results, strict=True):
            assert all(torch.equal(y, found[0]) for y in found)
            assert torch.allclose(found[0].double(), expected(links, [x])[3], atol=1e-4)
