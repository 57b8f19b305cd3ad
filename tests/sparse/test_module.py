"""SparseConv2d in the place of nn.Conv2d: state dict, results, fall-back, what is noticed and refused."""

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse import SparseConv2d  # noqa: E402
from dnnjpeg.sparse.dense import LOWERED, TORCH, DenseConv2d  # noqa: E402
from dnnjpeg.sparse.fast import SHAPES, FastConv2d  # noqa: E402


def with_zeros(zeros: float, *shape: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=random) * (torch.rand(shape, generator=random) >= zeros)


def pair(**options: Any) -> tuple[nn.Conv2d, SparseConv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(20, 24, 3, padding=1, **options)
    sparse = SparseConv2d(20, 24, 3, padding=1, **options)
    sparse.load_state_dict(plain.state_dict())
    return plain, sparse


def close(y: Tensor, expected: Tensor) -> bool:
    return torch.allclose(y, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}])
@pytest.mark.parametrize("last", [True, False])
def test_it_is_a_drop_in(options: dict[str, Any], last: bool) -> None:
    plain, sparse = pair(**options)
    assert isinstance(sparse, nn.Conv2d) and list(sparse.state_dict()) == list(plain.state_dict())
    x = with_zeros(0.6, 2, 20, 9, 11)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    y = sparse(x)
    assert close(y, plain(x))
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    with torch.inference_mode():
        assert close(sparse(with_zeros(0.9, 3, 20, 5, 4)), plain(with_zeros(0.9, 3, 20, 5, 4)))


@pytest.mark.parametrize("method", [None, "direct"])
def test_few_zeros_are_left_to_a_dense_method(method: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    own = DenseConv2d.compute
    monkeypatch.setattr(DenseConv2d, "compute", lambda self, *args: calls.append(self) or own(self, *args))
    plain, sparse = pair()
    sparse.dense = method or sparse.dense
    for zeros, expected in ((0.05, 1), (0.5, 1), (0.1, 2)):
        x = with_zeros(zeros, 1, 20, 12, 12)
        assert close(sparse(x), plain(x)) and len(calls) == expected
    assert {call.method for call in calls} == {method or TORCH[-1]}


@pytest.mark.parametrize(
    "options",
    [{"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}],
)
def test_what_it_cannot_do_torch_does(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain, sparse = nn.Conv2d(4, 8, 3, **options), SparseConv2d(4, 8, 3, **options)
    sparse.load_state_dict(plain.state_dict())
    x = with_zeros(0.9, 1, 4, 8, 8)
    assert torch.equal(sparse(x), plain(x))


def test_no_pictures_at_all() -> None:
    plain, sparse = pair()
    x = torch.zeros(0, 20, 8, 8)
    assert sparse(x).shape == plain(x).shape


@pytest.mark.parametrize("kind", [SparseConv2d, DenseConv2d])
def test_double_precision_is_left_to_torch(kind: type[FastConv2d]) -> None:
    plain, _ = pair()
    norm = nn.BatchNorm2d(24).eval()
    made = kind.of(plain.double(), norm=norm.double(), activation="relu")
    x = with_zeros(0.9, 1, 20, 8, 8).double()
    y = made(x)
    assert y.dtype == torch.float64 and torch.allclose(y, norm(plain(x)).relu(), atol=1e-12)


@pytest.mark.parametrize("method", ["ring-patterns", "depthwise", "prepacked"])
def test_an_input_of_another_type_is_refused_as_by_torch(method: str) -> None:
    """Also where one of the same shape has been seen."""
    groups = 20 if method == "depthwise" else 1
    plain = nn.Conv2d(20, 20, 3, padding=1, groups=groups)
    made = (SparseConv2d if method == "ring-patterns" else DenseConv2d).of(plain)
    made.method = method
    x = with_zeros(0.9, 1, 20, 8, 8)
    assert close(made(x), plain(x))
    with pytest.raises(RuntimeError, match=r"type|dtype"):
        made(x.double())


@pytest.mark.parametrize("trained", ["bias", "norm.weight", "norm.bias"])
@pytest.mark.parametrize("kind", [SparseConv2d, DenseConv2d])
def test_gradients_of_biases_and_norms_are_refused(kind: type[FastConv2d], trained: str) -> None:
    plain, norm = pair()[0].requires_grad_(False), nn.BatchNorm2d(24).eval().requires_grad_(False)
    made, x = kind.of(plain, norm=norm), with_zeros(0.9, 1, 20, 8, 8)
    getattr(norm if trained.startswith("norm") else plain, trained.rpartition(".")[2]).requires_grad_()
    with torch.enable_grad(), pytest.raises(RuntimeError, match="no gradient"):
        made(x)


def test_gradients_are_refused() -> None:
    _, sparse = pair()
    x = with_zeros(0.9, 1, 20, 8, 8)
    with torch.enable_grad(), pytest.raises(RuntimeError, match="for inference and has no gradient"):
        sparse(x)
    frozen = sparse.requires_grad_(False)
    with torch.enable_grad():
        frozen(x)
        with pytest.raises(RuntimeError, match="no gradient"):
            frozen(x.requires_grad_())


@pytest.mark.parametrize("kind", [SparseConv2d, DenseConv2d])
def test_new_weights_are_noticed(kind: type[FastConv2d]) -> None:
    plain, other = pair()
    norm = nn.BatchNorm2d(24).eval()
    made = kind.of(plain, norm=norm, activation="relu")
    assert made.weight is plain.weight and list(made.state_dict()) == list(plain.state_dict())
    x = with_zeros(0.6, 1, 20, 9, 9)
    for change in (
        lambda: None,
        lambda: plain.weight.mul_(2),
        lambda: plain.bias.add_(0.5),
        lambda: setattr(plain.bias, "data", plain.bias + 0.5),
        lambda: norm.running_mean.add_(0.5),
        lambda: norm.running_var.mul_(2),
        lambda: norm.weight.mul_(2),
        lambda: norm.bias.add_(0.5),
        lambda: setattr(norm.weight, "data", norm.weight * 2),
        lambda: setattr(norm, "bias", nn.Parameter(norm.bias + 0.5)),
        lambda: plain.load_state_dict({key: -value for key, value in other.state_dict().items()}),
        lambda: setattr(plain, "bias", None),
    ):
        change()
        assert close(made(x), norm(plain(x)).relu())


def test_new_weights_in_the_memory_of_old_ones_are_noticed() -> None:
    plain, _ = pair()
    made, x = SparseConv2d.of(plain), with_zeros(0.6, 1, 20, 9, 9)
    for _ in range(20):
        assert close(made(x), plain(x))
        for _ in range(2):
            plain.bias.data = plain.bias.data + 1


@pytest.mark.parametrize("method", (*TORCH, *LOWERED, "direct"))
@pytest.mark.parametrize("last", [True, False, None])
@pytest.mark.parametrize(("activation", "known"), [("relu", F.relu), ("relu6", F.relu6)])
def test_dense_methods(method: str, last: bool | None, activation: str, known: Any) -> None:
    plain, _ = pair(stride=2)
    norm = nn.BatchNorm2d(24).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    made = DenseConv2d.of(plain, norm=norm, activation=activation, channels_last=last)
    made.method = method
    for given in (torch.channels_last, torch.contiguous_format):
        x = with_zeros(0.3, 2, 20, 9, 12).contiguous(memory_format=given)
        y = made(x)
        assert close(y, known(norm(plain(x)))) and y.activation == activation
        if last:
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_threads_and_shapes_may_change() -> None:
    plain, sparse = pair()
    before = torch.get_num_threads()
    try:
        for threads, size in ((1, 8), (2, 8), (2, 21), (1, 21)):
            torch.set_num_threads(threads)
            x = with_zeros(0.7, 2, 20, size, size)
            assert close(sparse(x), plain(x))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [SparseConv2d, DenseConv2d])
def test_many_shapes_do_not_fill_the_memory(kind: type[FastConv2d]) -> None:
    plain, _ = pair()
    made = kind.of(plain)
    for size in range(3, 30):
        x = with_zeros(0.7, 1, 20, size, 8)
        assert close(made(x), plain(x)) and len(made._ready) <= SHAPES


def test_a_copy_stands_on_its_own() -> None:
    plain, sparse = pair()
    x = with_zeros(0.7, 1, 20, 8, 8)
    sparse(x)
    copied, unpickled = copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse))
    sparse.weight.zero_()
    assert close(copied(x), plain(x)) and not close(sparse(x), plain(x))
    assert close(unpickled(x), plain(x))
