"""The soft quantizer of JPEG-DL and J4D, and its sampled and hard forms.

A coefficient z with step q is an index i with probability P(i|z) ∝ exp(-κ (z/q - i)²), κ > 0 being the
hardness: the conditional probability mass function (CPMF). With the nearest index n and r = z/q - n it is
proportional to exp(κ (2rk - k²)) over the offsets k = i - n, whatever the size of z.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Mode = Literal["soft", "sampled", "hard"]

_TAIL = 14.5  # offsets whose weight is below exp(-14.5) = 5e-7 are left out, as in the encoder
_MAX_REACH = 40
_LEAST = 1e-30  # where exp(-κ) is below, exp(-2κ) is 0


def reach(kappa: Tensor) -> int:
    """The number K of offsets on either side of the nearest index that the CPMF of hardness `kappa` needs.

    Smallest K with κ K (K + 1) >= 14.5: where one index takes over from the next as the nearest, the soft
    quantizer then jumps by about 1e-6 steps. Raises ValueError where κ is not positive, or below 0.01.
    """
    lowest = float(kappa.detach().min())
    for k in range(1, _MAX_REACH):
        if lowest * k * (k + 1) >= _TAIL:
            return k
    raise ValueError(f"hardness is {lowest:g}, expected at least 0.01: below it an index says nothing")


def cpmf(z: Tensor, q: Tensor, kappa: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """The nearest index, shaped as z, and P(nearest + k | z), k = -K..K in a last dimension of 2K + 1.

    `q` and `kappa` broadcast against z. Differentiable by autograd; `quantize` is the lean way to its mean.
    """
    t = z / q
    nearest = t.detach().round()
    offsets = torch.arange(-K, K + 1, dtype=t.dtype, device=t.device)
    r = (t - nearest).unsqueeze(-1)
    kappa = torch.as_tensor(kappa, dtype=t.dtype, device=t.device).unsqueeze(-1)
    return nearest, torch.softmax(kappa * offsets * (2 * r - offsets), dim=-1)


def quantize(
    z: Tensor,
    q: Tensor,
    kappa: Tensor,
    mode: Mode = "soft",
    *,
    index: Tensor | None = None,
    max_index: int | Tensor | None = None,
    steady: bool = False,
    K: int | None = None,
) -> Tensor:
    """Coefficients after quantization and dequantization, i·q, shaped as z.

    z: float coefficients. q: steps > 0, kappa: hardness > 0; both broadcast against z.
    mode: "soft" is the expectation Σ P(i|z) i q; "sampled" draws i from P with torch's generator; "hard" is
        the nearest index, with the encoder's rounding. All three have the gradients of "soft" with respect
        to z, q and κ (each with the others held fixed), in closed form; only the inputs are kept for them.
    index: what to take for the nearest or the drawn index, in whole numbers shaped as z.
    max_index: to what magnitude z/q is held, a whole number > 0, or one for each step; None: no limit.
    steady: the derivative by q of coefficients of at least a step is that of a rounding error in proportion
        to the step, Q/q - t with t = z/q, in place of F(t) - t F'(t) for Q = q F(t). Over many coefficients,
        whose rounding errors are uniform, the mean is the same; but the noise, which grows with t, is gone:
        of DC, a hundred times smaller.
    K: how many indices there are on either side of the nearest; None: as many as κ asks for (`reach`).

    Half-precision inputs are computed in, and returned as, float32. Raises ValueError for an unknown mode
    and, where K is None, for κ below 0.01.
    """
    if mode not in ("soft", "sampled", "hard"):
        raise ValueError(f"mode is {mode!r}, expected 'soft', 'sampled' or 'hard'")
    dtype = torch.promote_types(z.dtype, torch.float32)
    z, q, kappa = z.to(dtype), q.to(dtype), kappa.to(dtype)
    return _quantize(z, q, kappa, mode, index, reach(kappa) if K is None else K, max_index, steady)


def hold_(t: Tensor, max_index: int | Tensor | None) -> Tensor:
    """t, held to ±max_index in place."""
    if max_index is None:
        return t
    return t.clamp_(-max_index, max_index)  # type: ignore[arg-type]  # its stubs have no union


@torch.no_grad()
def indices(
    z: Tensor,
    q: Tensor,
    kappa: Tensor,
    mode: Mode,
    max_index: int | Tensor | None = None,
    K: int | None = None,
) -> Tensor:
    """Nearest ("hard") or drawn ("sampled") indices, whole numbers in the dtype of z. K: of `quantize`."""
    if mode == "hard":
        # the encoder multiplies by the reciprocal, a float32, and rounds once: this decides the ties
        t = z.double() * q.float().reciprocal().double()
        return hold_(t, max_index).round_().to(z.dtype)
    _, index, r = _position(z, q, max_index)
    up, down = weights(r, kappa, reach(kappa) if K is None else K)
    steps = [*reversed(down), torch.ones_like(r), *up]
    draw = torch.rand_like(r) * sum(steps)
    index -= len(down)
    passed = torch.zeros_like(r)
    for weight in steps[:-1]:
        passed += weight
        index += draw >= passed
    return index


def _position(z: Tensor, q: Tensor, max_index: int | Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """t = z/q, the nearest index, and how far t is from it."""
    t = hold_(z / q, max_index)
    nearest = t.round()
    return t, nearest, t - nearest


def weights(r: Tensor, kappa: Tensor, K: int) -> tuple[list[Tensor], list[Tensor]]:
    """exp(κ (2rk - k²)) for k = 1..K and for k = -1..-K: by powers of the first, which is at most 1."""
    slope = r * (2 * kappa)
    up, down = [(slope - kappa).exp_()], [slope.neg_().sub_(kappa).exp_()]
    for k in range(2, K + 1):
        fade = torch.exp(-2 * (k - 1) * kappa)
        up.append(up[-1] * up[0] * fade)
        down.append(down[-1] * down[0] * fade)
    return up, down


def _moments(r: Tensor, kappa: Tensor, K: int, order: int) -> list[Tensor]:
    """E[k], E[k²], ... of the offset, up to the given order.

    The weights of the nearer and the farther neighbour at distance 1 have the product exp(-2κ), so that one
    exponential a coefficient does for all; and odd moments have the sign of r.
    """
    bits = kappa / math.log(2)  # 2 ** x takes a third of the time of exp(x)
    near = r.abs().mul_(2 * bits).sub_(bits).exp2_()  # of the nearer neighbour, exp(-κ)..1
    far = torch.exp(-2 * kappa) / near.clamp(min=_LEAST)
    even, odd = near + far, near - far
    total = 1 + even
    sums = [odd if power % 2 else even for power in range(1, order + 1)]
    nearer, farther = near, far
    for k in range(2, K + 1):
        fade = torch.exp(-2 * (k - 1) * kappa)
        nearer, farther = nearer * near * fade, farther * far * fade
        even, odd = nearer + farther, nearer - farther
        total += even
        sums = [
            torch.add(known, odd if power % 2 else even, alpha=k**power)
            for power, known in enumerate(sums, 1)
        ]
    means = [known / total for known in sums]
    return [torch.copysign(mean, r) if power % 2 else mean for power, mean in enumerate(means, 1)]


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        q: Tensor,
        kappa: Tensor,
        mode: Mode,
        index: Tensor | None,
        K: int,
        max_index: int | Tensor | None,
        steady: bool,
    ) -> Tensor:
        ctx.mode, ctx.K, ctx.max_index, ctx.steady = mode, K, max_index, steady
        drawn = []
        if mode == "soft":
            _, nearest, r = _position(z, q, max_index)
            value = nearest.add_(_moments(r, kappa, K, 1)[0]).mul_(q)
        else:
            if index is None:
                index = indices(z, q, kappa, mode, max_index, K)
            drawn = [index] * (steady and mode == "sampled")  # which cannot be known again
            value = index * q
        ctx.save_for_backward(z, q, kappa, *drawn)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, q, kappa, *drawn = ctx.saved_tensors
        for_z, for_q, for_kappa = ctx.needs_input_grad[:3]
        t, nearest, r = _position(z, q, ctx.max_index)
        first, second, *third = _moments(r, kappa, ctx.K, 3 if for_kappa else 2)
        variance = second - first * first
        slope = 2 * kappa * variance  # of Q/q by t
        if ctx.max_index is not None:
            slope = slope * (t.abs() < ctx.max_index)
        to_z = to_q = to_kappa = None
        if for_z:
            to_z = (gradient * slope).sum_to_size(z.shape)
        if for_q:
            change = nearest + first - t * slope
            if ctx.steady:
                error = drawn[0] - t if drawn else first - r if ctx.mode == "soft" else -r
                exact = t.abs() < 1
                if ctx.max_index is not None:
                    exact |= t.abs() >= ctx.max_index
                change = torch.where(exact, change, error)
            to_q = (gradient * change).sum_to_size(q.shape)
        if for_kappa:
            change = 2 * r * variance - (third[0] - first * second)  # of Q/q by κ: Cov(k, 2rk - k²)
            to_kappa = (gradient * q * change).sum_to_size(kappa.shape)
        return to_z, to_q, to_kappa, None, None, None, None, None


_quantize: Callable[..., Tensor] = _Quantize.apply
