"""The soft quantizer of JPEG-DL and J4D, and its sampled and hard forms.

A coefficient z with step q gets the index i with probability P(i|z) ∝ exp(-κ (z/q - i)²). This is the
conditional probability mass function (CPMF); κ > 0 is the hardness. Let n be the nearest index and r = z/q -
n. Then P is proportional to exp(κ (2rk - k²)) over the offsets k = i - n.
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
_LEAST = 1e-30  # if exp(-κ) is below this, exp(-2κ) is 0


def reach(kappa: Tensor) -> int:
    """The number K of indices on either side of the nearest one that the CPMF needs.

    It is the smallest K with κ K (K + 1) >= 14.5. When the nearest index changes, the soft quantizer then
    jumps by only about 1e-6 steps. Raises ValueError if κ is below 0.01.
    """
    lowest = float(kappa.detach().min())
    for k in range(1, _MAX_REACH):
        if lowest * k * (k + 1) >= _TAIL:
            return k
    raise ValueError(f"hardness is {lowest:g}, expected at least 0.01")


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
    """Quantize and dequantize coefficients. Returns index x step, in the shape of z.

    z: float coefficients.
    q, kappa: steps > 0 and hardness > 0. Both broadcast against z.
    mode: "soft" returns the expectation Σ P(i|z) i q. "sampled" draws i from P with torch's generator. "hard"
        takes the nearest index, with the encoder's rounding. All modes have the gradients of "soft" with
        respect to z, q and κ, in closed form. Only the inputs are saved for the backward pass.
    index: use this index in place of the nearest or drawn one: whole numbers in the shape of z.
    max_index: clip z/q to ±max_index, a whole number > 0, or one for each step. None: no limit.
    steady: use another derivative with respect to q, for coefficients of at least one step: Q/q - t, with
        t = z/q, in place of F(t) - t F'(t), for Q = q F(t). It assumes a rounding error in proportion to the
        step. If rounding errors are uniform, the mean over many coefficients is the same. The noise, which
        grows with t, is gone: for DC, the noise is a hundred times smaller.
    K: number of indices on either side of the nearest one. None: as many as κ needs (`reach`).

    Half-precision inputs give a float32 result. Raises ValueError for an unknown mode, and for κ below 0.01
    if K is None.
    """
    if mode not in ("soft", "sampled", "hard"):
        raise ValueError(f"mode is {mode!r}, expected 'soft', 'sampled' or 'hard'")
    dtype = torch.promote_types(z.dtype, torch.float32)
    z, q, kappa = z.to(dtype), q.to(dtype), kappa.to(dtype)
    return _quantize(z, q, kappa, mode, index, reach(kappa) if K is None else K, max_index, steady)


def hold_(t: Tensor, max_index: int | Tensor | None) -> Tensor:
    """Clip t to ±max_index, in place."""
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
    """Nearest ("hard") or drawn ("sampled") indices: whole numbers in the dtype of z."""
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
    """t = z/q, the nearest index, and the distance of t from it."""
    t = hold_(z / q, max_index)
    nearest = t.round()
    return t, nearest, t - nearest


def weights(r: Tensor, kappa: Tensor, K: int) -> tuple[list[Tensor], list[Tensor]]:
    """exp(κ (2rk - k²)) for k = 1..K and for k = -1..-K, from powers of the first, which is at most 1."""
    slope = r * (2 * kappa)
    up, down = [(slope - kappa).exp_()], [slope.neg_().sub_(kappa).exp_()]
    for k in range(2, K + 1):
        fade = torch.exp(-2 * (k - 1) * kappa)
        up.append(up[-1] * up[0] * fade)
        down.append(down[-1] * down[0] * fade)
    return up, down


def _moments(r: Tensor, kappa: Tensor, K: int, order: int) -> list[Tensor]:
    """E[k], E[k²], ... of the offset k, up to the given order.

    The weights of the nearer and the farther neighbour at distance 1 have the product exp(-2κ). So each
    coefficient needs one exponential. Odd moments have the sign of r.
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
            drawn = [index] * (steady and mode == "sampled")  # it cannot be computed again
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
        slope = 2 * kappa * variance  # derivative of Q/q with respect to t
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
            change = 2 * r * variance - (
                third[0] - first * second
            )  # derivative of Q/q with respect to κ: Cov(k, 2rk - k²)
            to_kappa = (gradient * q * change).sum_to_size(kappa.shape)
        return to_z, to_q, to_kappa, None, None, None, None, None


_quantize: Callable[..., Tensor] = _Quantize.apply
