"""Small networks with what the selector must see through: residuals, shared and in-place ReLUs, groups,
branches.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dnnjpeg.sparse import Plan, apply_
from dnnjpeg.sparse.fast import FastConv2d
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.plan import LayerPlan
from dnnjpeg.sparse.tiling import Tiling


class Block(nn.Module):
    """A residual block with one ReLU for both places."""

    def __init__(self, width: int, inplace: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + x)


class Small(nn.Module):
    """Logits of pictures of 16 x 16."""

    def __init__(self, width: int = 32, inplace: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU6(inplace=inplace)
        self.blocks = nn.Sequential(Block(width, inplace), Block(width, inplace))
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.wide = nn.Conv2d(width, 48, (1, 3), dilation=(1, 2))
        self.fc = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.norm(self.stem(x))))
        return self.fc(self.wide(self.depthwise(x).relu()).mean((2, 3)))


def small(width: int = 32, inplace: bool = False, seed: int = 0) -> Small:
    """In eval mode, with batch norms that are not the identity."""
    torch.manual_seed(seed)
    network = Small(width, inplace)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, -0.3, 0.5)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def pictures(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def is_planned(model: nn.Module) -> bool:
    """Whether a plan has replaced convolutions of a model."""
    return any(isinstance(module, FastConv2d) for module in model.modules())


class Pair(nn.Module):
    """Two convolutions, the first with a ReLU, and what `way` makes of x and their outputs."""

    def __init__(self, way: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.relu, self.relu6 = nn.ReLU(), nn.ReLU6(inplace=True)
        self.shift = nn.Parameter(torch.randn(1, 16, 1, 1))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def in_a_row(net: Any, x: Tensor) -> Tensor:
    return net.second(net.relu(net.first(x)))


def planned(network: nn.Module, method: str, fused: bool) -> nn.Module:
    """A `Pair` with a plan of one method, for pictures of 9 x 11."""
    geometry = Geometry(16, 9, 11, 16, (3, 3), (1, 1), (1, 1))
    tiling = Tiling(True, 16, 1, 3) if method == "ring-patterns" else None
    layers = [LayerPlan(name, geometry, method, tiling) for name in ("first", "second")]
    apply_(network, Plan(tuple(layers), fused=fused), check=False)
    return network
