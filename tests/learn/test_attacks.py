"""Attacks on networks whose worst pictures are known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from dnnjpeg.learn.attacks import attack  # noqa: E402

SHAPE = (3, 8, 8)


def linear(seed: int = 0) -> Tensor:
    return torch.randn(3 * 64, generator=torch.Generator().manual_seed(seed)) / 100


def network_of(weight: Tensor):
    """Two classes; the logit of the second less that of the first is linear in the pixels."""

    def network(pixels: Tensor) -> Tensor:
        score = (pixels - 128).flatten(1) @ weight
        return torch.stack([-score / 2, score / 2], dim=1)

    return network


def some(count: int = 4) -> tuple[Tensor, Tensor]:
    pixels = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) * 200 + 25
    return pixels, torch.arange(count) % 2


@pytest.mark.parametrize("kind", ["fgsm", "pgd", "bpda"])
def test_a_linear_network_is_moved_as_far_as_it_can_be(kind: str) -> None:
    weight = linear()
    pixels, labels = some()
    moved = attack(kind, network_of(weight), pixels, labels, 3.0)
    away = torch.where(labels == 1, -1.0, 1.0)[:, None] * weight.sign()
    torch.testing.assert_close(moved, (pixels + 3 * away.view_as(pixels)).clamp(0, 255))


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["fgsm", "pgd", "bpda"]),
    bound=st.floats(0.1, 300),
    steps=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_never_leaves_the_bound_or_the_range(kind, bound, steps, seed) -> None:
    pixels, labels = some()
    moved = attack(kind, network_of(linear(seed)), pixels, labels, bound, steps=steps, seed=seed)
    assert (moved - pixels).abs().max() <= bound * (1 + 1e-5) + 1e-4
    assert moved.min() >= 0 and moved.max() <= 255
    assert not moved.requires_grad


def test_a_flat_layer_hides_the_gradient_and_bpda_finds_the_way() -> None:
    """Rounding to multiples of 8 has no derivative, and protects from nothing."""
    weight = linear()
    network = network_of(weight)
    pixels, labels = some()

    def flat(place: Tensor) -> Tensor:
        return (place / 8).round() * 8 + 0 * place

    losses = {}
    for kind in ("fgsm", "pgd", "bpda"):
        moved = attack(kind, network, pixels, labels, 8.0, layer=flat)
        losses[kind] = torch.nn.functional.cross_entropy(network(flat(moved)), labels).item()
    clean = torch.nn.functional.cross_entropy(network(flat(pixels)), labels).item()
    assert losses["fgsm"] == pytest.approx(clean)
    assert losses["bpda"] > losses["pgd"] + 0.3 * (losses["bpda"] - clean)
    assert losses["bpda"] > clean + 0.5


def test_keeps_the_worst_place() -> None:
    """More steps never leave a picture better off."""
    weight = linear()
    network = network_of(weight)

    def wavy(place: Tensor) -> Tensor:
        return place + 20 * torch.sin(place)

    pixels, labels = some(8)
    losses = [
        torch.nn.functional.cross_entropy(
            network(wavy(attack("pgd", network, pixels, labels, 6.0, layer=wavy, steps=steps))),
            labels, reduction="none",
        )
        for steps in (1, 40)
    ]  # fmt: skip
    assert (losses[1] >= losses[0] - 1e-4).float().mean() > 0.9


def test_a_gradient_a_step() -> None:
    """None of the last place, of which only the loss is asked for; and bit for bit what PGD is with one."""
    pixels, labels = some(8)
    network, counts = network_of(linear()), []

    def wavy(place: Tensor) -> Tensor:
        if place.requires_grad:
            place.register_hook(lambda _: counts.append(1))
        return place + 20 * torch.sin(place)

    def loss(place: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(network(wavy(place)), labels, reduction="none")

    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
    place = best = (pixels + 6 * (2 * noise - 1)).clamp(0, 255)
    most = torch.full((8,), -torch.inf)
    for _ in range(4):
        leaf = place.clone().requires_grad_()
        losses = loss(leaf)
        losses.sum().backward()
        best = torch.where((losses > most).view(-1, 1, 1, 1), place, best)
        most = losses.detach().maximum(most)
        moved = place + 2.5 * 6 / 3 * leaf.grad.sign()
        place = moved.maximum(pixels - 6).minimum(pixels + 6).clamp(0, 255)
    counts.clear()
    assert torch.equal(attack("pgd", network, pixels, labels, 6.0, layer=wavy, steps=3), best)
    assert len(counts) == 3
    counts.clear()
    attack("fgsm", network, pixels, labels, 6.0, layer=wavy)
    assert len(counts) == 1


def test_same_seed_same_attack() -> None:
    pixels, labels = some()
    network = network_of(linear())
    one, other, third = (
        attack("pgd", network, pixels, labels, 2.0, steps=1, layer=lambda x: x + 5 * torch.sin(x), seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, other) and not np.array_equal(one.numpy(), third.numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "cw"}, "kind is 'cw'"), ({"steps": 0}, "steps is 0"), ({"bound": 0.0}, "bound 0.0")],
)
def test_bad_arguments(options, message) -> None:
    pixels, labels = some()
    arguments = {"kind": "pgd", "bound": 1.0} | options
    with pytest.raises(ValueError, match=message):
        attack(arguments.pop("kind"), network_of(linear()), pixels, labels, **arguments)
