"""The soft quantizer against sums over all indices, its gradients against the closed forms."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="pip install 'dnnjpeg[learn]'")

from tiny import cpmf  # noqa: E402
from torch import Tensor  # noqa: E402

from dnnjpeg.soft.quantizer import quantize, reach  # noqa: E402

HARDNESS = (0.05, 0.7, 2.0, 5.0, 20.0, 500.0)


def law(z: Tensor, q: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Indices and P(i|z) straight from the definition, over every index that could matter."""
    nearest = torch.round(z / q).long()
    span = 12 + math.ceil(12 / math.sqrt(kappa))
    i = nearest.unsqueeze(-1) + torch.arange(-span, span + 1)
    alpha = kappa / q**2
    distance = (z.unsqueeze(-1) - i * q.unsqueeze(-1)) ** 2
    return i.to(z.dtype), torch.softmax(-alpha.unsqueeze(-1) * distance, dim=-1)


def sample() -> tuple[Tensor, Tensor]:
    """Coefficients and steps, float64."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 64, generator=generator, dtype=torch.float64) * 40
    q = torch.rand(64, generator=generator, dtype=torch.float64) * 30 + 0.5
    return z, q


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.sum(), inputs)


@pytest.mark.parametrize("kappa", HARDNESS)
def test_soft_is_the_mean_index(kappa: float) -> None:
    z, q = sample()
    i, p = law(z, q, kappa)
    expected = (i * p).sum(-1) * q
    k = torch.tensor(kappa, dtype=torch.float64)
    assert ((quantize(z, q, k) - expected) / q).abs().max() < 2e-6
    single = quantize(z.float(), q.float(), k.float())
    assert ((single - expected) / q).abs().max() < 2e-4


@pytest.mark.parametrize("kappa", HARDNESS)
def test_gradients_are_the_closed_forms(kappa: float) -> None:
    z, q = sample()
    z.requires_grad_()
    q = q.expand_as(z).clone().requires_grad_()
    k = torch.full_like(z, kappa).requires_grad_()
    by_z, by_q, by_kappa = gradients(quantize(z, q, k), z, q, k)

    i, p = law(z.detach(), q.detach(), kappa)
    mean = (i * p).sum(-1)
    variance = (i**2 * p).sum(-1) - mean**2
    distance = (z.detach().unsqueeze(-1) - i * q.detach().unsqueeze(-1)) ** 2
    covariance = (i * distance * p).sum(-1) - mean * (distance * p).sum(-1)
    t = (z / q).detach()
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(by_z, 2 * kappa * variance, **tolerance)
    torch.testing.assert_close(by_q, mean - t * 2 * kappa * variance, **tolerance)
    # dQ/dalpha = -q Cov(i, (z - iq)²), and alpha = κ/q²
    torch.testing.assert_close(by_kappa / q, -covariance / q**2, rtol=1e-4, atol=2e-3)


def test_the_path_through_alpha_is_not_lost() -> None:
    z, q = sample()
    alpha = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    q.requires_grad_()

    def output(q: Tensor, alpha: Tensor) -> Tensor:
        return quantize(z, q, alpha * q**2)

    assert torch.autograd.gradcheck(output, (q, alpha), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("steps", [(64,), (1, 64), (3, 1, 64), (3, 5, 64), (1,)])
def test_gradcheck_with_any_broadcast(steps: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    z = (torch.randn(3, 5, 64, dtype=torch.float64) * 20).requires_grad_()
    q = (torch.rand(steps, dtype=torch.float64) * 10 + 2).requires_grad_()
    kappa = (torch.rand(steps[-1:], dtype=torch.float64) * 8 + 3).requires_grad_()
    check = {"fast_mode": True, "eps": 1e-7, "atol": 1e-3}
    assert torch.autograd.gradcheck(quantize, (z, q, kappa), **check)
    assert torch.autograd.gradcheck(lambda *x: quantize(*x, max_index=7), (z, q, kappa), **check)


@pytest.mark.parametrize("mode", ["soft", "sampled", "hard"])
def test_steady_derivatives_by_steps(mode: str) -> None:
    """Of the squared error, which is known at other steps; large coefficients are where noise would be."""
    torch.manual_seed(0)
    kappa = torch.tensor(12.0, dtype=torch.float64)

    def error(z: Tensor, log_q: Tensor, steady: bool) -> Tensor:
        return (quantize(z, log_q.exp(), kappa, mode, steady=steady) - z).square().sum(1)

    for spread, reduction in ((1000, 30), (60, 2)):
        z = torch.distributions.Laplace(0.0, spread).sample((400, 1000)).double()
        log_q = torch.full((400, 1), 2.5, dtype=torch.float64, requires_grad=True)
        known = (error(z, log_q.detach() + 0.05, True) - error(z, log_q.detach() - 0.05, True)).sum() / 0.1
        exact, steady = (gradients(error(z, log_q, way), log_q)[0] for way in (False, True))
        assert steady.sum().item() == pytest.approx(known.item(), rel=0.1 if mode != "soft" else 0.25)
        assert exact.std() > reduction * steady.std()


def test_steady_changes_nothing_else() -> None:
    z, q = sample()
    kappa = torch.full((64,), 6.0, dtype=torch.float64, requires_grad=True)
    z.requires_grad_()
    for mode in ("soft", "hard"):
        plain, steady = (quantize(z, q, kappa, mode, steady=way) for way in (False, True))
        assert torch.equal(plain, steady)
        for one, two in zip(gradients(plain, z, kappa), gradients(steady, z, kappa), strict=True):
            assert torch.equal(one, two)
    small = (0.9 * z.detach() / z.detach().abs().max() * q).requires_grad_()
    q.requires_grad_()
    by_q = [gradients(quantize(small, q, kappa, steady=way), q)[0] for way in (False, True)]
    assert torch.equal(*by_q)
    saturated = torch.full((3,), 1e4, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64, requires_grad=True)
    assert gradients(quantize(saturated, one, kappa[:1], max_index=127, steady=True), one)[0] == 3 * 127


@pytest.mark.parametrize("mode", ["sampled", "hard"])
def test_straight_through_gradients_are_those_of_soft(mode: str) -> None:
    z, q = sample()
    z.requires_grad_()
    q.requires_grad_()
    kappa = torch.full((64,), 6.0, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(z.shape, dtype=torch.float64)
    soft = gradients(quantize(z, q, kappa) * weight, z, q, kappa)
    other = gradients(quantize(z, q, kappa, mode) * weight, z, q, kappa)
    for one, two in zip(soft, other, strict=True):
        assert torch.equal(one, two)


def test_hard_is_the_nearest_index() -> None:
    z, q = sample()
    hard = quantize(z, q, torch.tensor(3.0), "hard")
    assert torch.equal(hard, torch.round(z / q) * q)
    # ties: to even where 1/q is exact; else up, for the float32 nearest to 1/10 or 1/3 is larger than that
    z = torch.tensor([1.0, 3.0, -3.0, 5.0, 15.0, -15.0, 1.5, 4.5])
    q = torch.tensor([2.0, 2.0, 2.0, 10.0, 10.0, 10.0, 3.0, 3.0])
    index = quantize(z, q, torch.tensor(3.0), "hard") / q
    assert index.tolist() == [0, 2, -2, 1, 2, -2, 1, 2]


@pytest.mark.parametrize("kappa", [0.7, 3.0, 30.0])
def test_sampled_follows_the_law(kappa: float) -> None:
    torch.manual_seed(0)
    z = torch.full((200_000,), 7.7)
    q, k = torch.tensor(3.0), torch.tensor(kappa)
    index = quantize(z, q, k, "sampled") / q
    nearest, p = cpmf(z[:1], q, k, reach(k))
    for offset, share in enumerate(p[0].tolist(), -reach(k)):
        seen = float((index == nearest[0] + offset).float().mean())
        assert abs(seen - share) < 5 * math.sqrt(share / len(z)) + 1e-6
    torch.manual_seed(0)
    assert torch.equal(index, quantize(z, q, k, "sampled") / q)


@pytest.mark.parametrize("kappa", HARDNESS)
def test_no_jump_where_the_nearest_index_changes(kappa: float) -> None:
    border = torch.tensor([2.5, -0.5, 13.5], dtype=torch.float64)
    k = torch.tensor(kappa, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    assert (quantize(border - 1e-9, one, k) - quantize(border + 1e-9, one, k)).abs().max() < 1e-5


def test_limits_of_hardness() -> None:
    z, q = sample()
    off = (z / q - torch.round(z / q)).abs() < 0.49
    very_hard = quantize(z, q, torch.tensor(1e4))
    assert ((very_hard - torch.round(z / q) * q).abs()[off] < 1e-9).all()
    assert ((quantize(z, q, torch.tensor(1.0)) - z) / q).abs().max() < 4e-4  # the identity, nearly
    assert torch.isfinite(quantize(z.float(), q.float(), torch.tensor(1e30))).all()


@given(
    z=st.floats(-1024, 1024),
    q=st.floats(0.05, 255),
    kappa=st.floats(0.011, 1e6),
    mode=st.sampled_from(["soft", "sampled", "hard"]),
)
def test_any_coefficient_goes_near_itself(z: float, q: float, kappa: float, mode: str) -> None:
    tensors = [torch.tensor(x, dtype=torch.float64) for x in (z, q, kappa)]
    value = float(quantize(*tensors, mode))
    index = value / q
    reached = reach(tensors[2]) + 0.5 + 1e-6 if mode == "sampled" else 0.5 + 1e-3
    assert abs(index - z / q) <= reached
    if mode != "soft":
        assert abs(index - round(index)) < 1e-9


@pytest.mark.parametrize("limit", [127, torch.tensor(127.0), torch.tensor([3, 127, 127, 127])])
def test_limits_saturate(limit: "int | torch.Tensor") -> None:
    q = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    z = torch.tensor([3.0, 253.9, 260.0, -1000.0], dtype=torch.float64, requires_grad=True)
    kappa = torch.tensor(20.0, dtype=torch.float64)
    for mode in ("soft", "hard"):
        limited = quantize(z, q, kappa, mode, max_index=limit)
        assert limited[2:].tolist() == [254, -254]
        assert torch.equal(limited[:1], quantize(z, q, kappa, mode)[:1])
        by_z, _ = gradients(limited, z, q)
        assert (by_z[2:] == 0).all()
        assert by_z[0] != 0
    assert gradients(quantize(z[2:3], q, kappa, max_index=127), q)[0] == 127


def test_half_precision_comes_back_as_float32() -> None:
    z, q = (x.float() for x in sample())
    kappa = torch.tensor(5.0)
    low = z.bfloat16().requires_grad_()
    out = quantize(low, q, kappa)
    assert out.dtype == torch.float32
    assert torch.equal(out, quantize(low.float(), q, kappa))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantize(low, q, kappa), out)
    out.sum().backward()
    assert low.grad.dtype == torch.bfloat16


def test_only_inputs_are_kept_for_backward() -> None:
    z = torch.randn(4, 50, 64, requires_grad=True)
    q = torch.full((64,), 5.0, requires_grad=True)
    kappa = torch.tensor(1.0, requires_grad=True)

    def naive() -> Tensor:
        nearest, p = cpmf(z, q, kappa, 3)
        return ((nearest.unsqueeze(-1) + torch.arange(-3, 4)) * p).sum(-1) * q

    def kept(function: Callable[[], Tensor]) -> int:
        storages = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: storages.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
        ):
            function()
        return sum(x.untyped_storage().nbytes() for x in storages.values())

    lean = kept(lambda: quantize(z, q, kappa))
    assert lean <= 4 * (z.numel() + 64 + 1)  # z itself, which lives anyway
    assert kept(naive) > 10 * lean


@pytest.mark.parametrize("kappa", [0.0, -1.0, 0.001, math.nan])
def test_hardness_that_says_nothing_is_refused(kappa: float) -> None:
    with pytest.raises(ValueError, match="hardness is"):
        quantize(torch.zeros(3), torch.ones(1), torch.tensor(kappa))


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode is 'firm', expected 'soft', 'sampled' or 'hard'"):
        quantize(torch.zeros(3), torch.ones(1), torch.ones(1), "firm")
