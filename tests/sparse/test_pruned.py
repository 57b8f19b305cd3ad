"""Layers whose weights torch computes at each call, as in pruning: a plan leaves them alone."""

from collections.abc import Callable
from typing import Any

import pytest
from small_networks import pictures, small

torch = pytest.importorskip("torch")

from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm  # noqa: E402

from dnnjpeg.sparse import Plan, SparseConv2d, apply_, optimize_  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan  # noqa: E402
from dnnjpeg.sparse.trace import sites  # noqa: E402

CHANGES: dict[str, Callable[[Any], Any]] = {
    "prune": lambda network: prune.l1_unstructured(network.stem, "weight", 0.5),
    "prune bias": lambda network: prune.random_unstructured(network.stem, "bias", 0.5),
    "prune norm": lambda network: prune.l1_unstructured(network.norm, "weight", 0.5),
    "weight_norm": lambda network: weight_norm(network.stem),
    "spectral_norm": lambda network: spectral_norm(network.stem),
    "parametrization": lambda network: parametrizations.weight_norm(network.stem),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@torch.no_grad()
def test_such_layers_are_left_to_torch(change: str) -> None:
    network, x = small(), pictures()
    (stem, *_) = sites(network, (x,))
    CHANGES[change](network)
    expected = network.eval()(x)
    report = optimize_(network, x, seconds=0)
    assert ("stem" in [layer.name for layer in report.layers]) == (change == "prune norm")
    assert torch.allclose(network(x), expected, atol=1e-4)
    if change != "prune norm":
        with pytest.raises(ValueError, match="weight or bias of the convolution is no parameter"):
            SparseConv2d.of(network.stem)
    plan = Plan((LayerPlan("stem", stem.geometry, "direct", norm="norm"),))
    with pytest.raises(ValueError, match=r"(stem|norm): weight or bias is no parameter"):
        apply_(network, plan, check=False)
