"""Adversarial attacks in the maximum norm on a network behind a JPEG layer.

The output of a hard layer is flat between its steps. This hides the gradient, but does not protect the
network. So the attack "bpda" replaces the layer's gradient by that of the identity (Athalye, Carlini and
Wagner, 2018).
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
    """Change pictures so that the network makes mistakes. No sample changes by more than `bound`.

    kind: "fgsm" takes one step along the sign of the loss's gradient (Goodfellow et al. 2015). "pgd" starts
        at a random place within the bound, and takes `steps` such steps (Madry et al. 2018). "bpda" is "pgd"
        with the layer's derivative replaced by the identity.
    network: maps pixels to logits, N x classes.
    pixels: float N x 3 x H x W, 0..255.
    labels: int64 N, the true classes.
    bound: the largest change of a sample, > 0, in units of pixels.
    layer: maps pixels to pixels, for example a `JPEGLayer`. Its form "file" attacks the real files.
    steps: number of steps of "pgd" and "bpda", at least 1.
    seed: seed of the random start.

    Returns pixels of the same shape, 0..255. "pgd" and "bpda" return, for each picture, the place with the
    largest loss on their way. This loss is computed through the real layer. Raises ValueError that names the
    argument.
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
        """The losses at this place, and the next place."""
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
