"""torch.compile of networks with a plan: the results stay."""

import subprocess
import sys

import pytest
from small_networks import pictures, small

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from dnnjpeg.sparse import Plan, SparseConv2d, apply_  # noqa: E402
from dnnjpeg.sparse.plan import LayerPlan  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling  # noqa: E402
from dnnjpeg.sparse.trace import sites  # noqa: E402


@pytest.fixture(autouse=True)
def forget() -> object:
    yield
    torch._dynamo.reset()


def planned(method: str, fused: bool) -> nn.Module:
    network = small(inplace=True)
    tiling = Tiling(True, 16, 1, 3) if method == "ring-patterns" else None
    layers = [
        LayerPlan(site.name, site.geometry, method, tiling, 0.0, site.norm, site.relu)
        for site in sites(network, (pictures(),))
        if "blocks" in site.name
    ]
    apply_(network, Plan(tuple(layers), fused=fused), check=False)
    return network


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("method", ["direct", "prepacked", "ring-patterns"])
@torch.no_grad()
def test_a_network(method: str, fused: bool) -> None:
    expected, network = small(), planned(method, fused)
    compiled = torch.compile(network, backend="eager")
    for seed in range(4):
        x = pictures(seed=seed)
        x = x.mT if seed % 2 else x  # which is copied, so the kernel reads a tensor of its own
        wanted = expected(x)
        assert float((compiled(x) - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@torch.no_grad()
def test_a_single_layer() -> None:
    plain = nn.Conv2d(32, 32, 3, padding=1)
    compiled = torch.compile(SparseConv2d.of(plain), backend="eager")
    for zeros in (0.9, 0.1, 0.9):
        x = torch.randn(2, 32, 9, 8) * (torch.rand(2, 32, 9, 8) >= zeros)
        assert torch.allclose(compiled(x.mT), plain(x.mT), atol=1e-5)


def test_the_compiler_is_not_loaded_without_need() -> None:
    program = (
        "import sys, torch, dnnjpeg.sparse\n"
        "dnnjpeg.sparse.SparseConv2d(8, 8, 3).requires_grad_(False)(torch.zeros(1, 8, 9, 9))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
