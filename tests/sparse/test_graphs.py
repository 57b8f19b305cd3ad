"""Networks as one graph: what fx adds to them, and threads."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from dnnjpeg.sparse.fused import Fused  # noqa: E402


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body((x - torch.tensor(0.5)) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))


def test_constants_are_no_attributes_of_the_network() -> None:
    model, x = Constant().eval(), torch.randn(1, 3, 9, 9)
    fused = Fused(model)
    with torch.no_grad():
        for one in (fused, Fused(copy.deepcopy(model))):
            assert torch.allclose(one(x), model(x), atol=1e-5)


def test_threads_trace_a_copy_one_after_the_other() -> None:
    model, x = Constant().eval(), torch.randn(1, 3, 9, 9)
    model.forward = Fused(model)
    expected = model(x)
    for _ in range(5):
        other = copy.deepcopy(model)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, other=other: other(x), range(4)))
        assert all(torch.allclose(one, expected, atol=1e-5) for one in found)
