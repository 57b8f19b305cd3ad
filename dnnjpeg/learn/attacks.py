"""Adversarial attacks in the maximum norm on a network behind a JPEG layer.

A layer whose output is flat between its steps hides the gradient without protecting the network; so a third
attack takes the layer for the identity on the way back (BPDA: Athalye, Carlini and Wagner, 2018).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.soft.jpeg import straight_through

Attack = Literal["fgsm", "pgd", "bpda"]

_STRIDE = 2.5  # times the bound over the number of steps: far enough to cross the ball (Madry et al. 2018)


@torch.no_grad()
def attack(
    kind: Attack,
    network: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    bound: float,
    *,
    layer: Callable[[Tensor], Tensor] = lambda pixels: pixels,
    steps: int = 20,
    seed: int = 0,
) -> Tensor:
    """Pictures at most `bound` from the given ones in each sample, within 0..255, on which the network errs.

    kind: "fgsm" is one step along the sign of the loss's gradient through layer and network (Goodfellow et
        al. 2015); "pgd" takes `steps` of them from a random place within the bound (Madry et al. 2018);
        "bpda" is PGD with the layer's derivative replaced by the identity.
    network: logits N x classes of pixels; layer: pixels of pixels, as a `JPEGLayer` in the form that is
        attacked: "file" is what its real files hold.
    pixels: float N x 3 x H x W, 0..255; labels: N integers.

    PGD and BPDA keep, of all places they come to, the one with the largest loss by picture, reckoned through
    the real layer. Raises ValueError for an unknown kind, steps below 1 and a bound that is not above 0.
    """
    if kind not in ("fgsm", "pgd", "bpda"):
        raise ValueError(f"kind is {kind!r}, expected 'fgsm', 'pgd' or 'bpda'")
    if steps < 1 or not bound > 0:
        raise ValueError(f"steps is {steps} and bound {bound}, expected at least 1 and a number above 0")

    def through(place: Tensor) -> Tensor:
        if kind != "bpda":
            return layer(place)
        with torch.no_grad():
            value = layer(place)
        return straight_through(place, value)

    def loss(place: Tensor) -> Tensor:
        return F.cross_entropy(network(through(place)), labels, reduction="none")

    def step(place: Tensor, stride: float) -> tuple[Tensor, Tensor]:
        """The losses here, and the next place."""
        leaf = place.detach().requires_grad_()
        with torch.enable_grad():
            losses = loss(leaf)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        moved = place + stride * gradient.sign()
        return losses.detach(), _within(moved, pixels, bound)

    if kind == "fgsm":
        return step(pixels, bound)[1]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(pixels.shape, generator=generator).to(pixels)
    place = _within(pixels + bound * (2 * noise - 1), pixels, bound)
    best, most = place, torch.full(labels.shape, -torch.inf, device=pixels.device)
    for number in range(steps + 1):
        is_last = number == steps
        losses, following = (loss(place), place) if is_last else step(place, _STRIDE * bound / steps)
        is_more = losses > most
        best = torch.where(is_more.view(-1, 1, 1, 1), place, best)
        most = torch.where(is_more, losses, most)
        place = following
    return best


def _within(moved: Tensor, pixels: Tensor, bound: float) -> Tensor:
    return torch.minimum(torch.maximum(moved, pixels - bound), pixels + bound).clamp(0, 255)
