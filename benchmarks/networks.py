"""Small classifiers to train from scratch, for `dnnjpeg train --network benchmarks/networks.py:NAME`.

Initial weights are drawn with torch's generator. Those named flowers_* are for 17 classes at 128 x 128
pixels, those named cifar_* for 10 classes at 32 x 32.
"""

from typing import Any

import torch
from torch import Tensor, nn

_CIFAR = {"size": 32, "mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)}
_FLOWERS = {"size": 128, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _convolution(inputs: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, width, size, stride, size // 2, bias=False)


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            _convolution(width, width, 3), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(_convolution(inputs, width, 1, stride), nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class _Dense(nn.Module):
    """A bottleneck of 4 x `growth` channels and a 3x3 convolution, added as channels (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), _convolution(inputs, 4 * growth, 1),
            nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True), _convolution(4 * growth, growth, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def _stem(width: int) -> list[nn.Module]:
    """To a quarter of the picture's size."""
    return [
        _convolution(3, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1),
    ]  # fmt: skip


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _network(layers: list[nn.Module], preprocess: dict[str, Any]) -> nn.Module:
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network.preprocess = preprocess  # type: ignore[assignment]
    return network


def _resnet(widths: tuple[int, ...], depth: int) -> list[nn.Module]:
    """Stages of `depth` residual blocks; all but the first halve the size."""
    layers, inputs = [], widths[0]
    for stage, width in enumerate(widths):
        for block in range(depth):
            layers.append(_Residual(inputs, width, 2 if stage and not block else 1))
            inputs = width
    return layers


def _vgg(inputs: int) -> list[nn.Module]:
    """Pairs of convolutions, and a pooling behind each (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [_convolution(inputs, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return layers


def _cifar_resnet(depth: int) -> nn.Module:
    stem = [_convolution(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    return _network([*stem, *_resnet((16, 32, 64), depth), *_head(64, 10)], _CIFAR)


def cifar_resnet20() -> nn.Module:
    """0.27 M parameters, as published for CIFAR."""
    return _cifar_resnet(3)


def cifar_resnet32() -> nn.Module:
    """0.47 M parameters, as published for CIFAR."""
    return _cifar_resnet(5)


def cifar_densenet() -> nn.Module:
    """DenseNet-BC of 40 layers with growth 12, as published for CIFAR, 0.18 M parameters."""
    width = 24
    layers: list[nn.Module] = [_convolution(3, width, 3)]
    for stage in range(3):
        if stage:
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True), _convolution(width, width // 2, 1)]
            layers.append(nn.AvgPool2d(2))
            width //= 2
        for _ in range(6):
            layers.append(_Dense(width, 12))
            width += 12
    return _network([*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True), *_head(width, 10)], _CIFAR)


def cifar_vgg() -> nn.Module:
    """Six convolutions with batch norm and three poolings, 0.29 M parameters."""
    return _network([*_vgg(3), *_head(128, 10)], _CIFAR)


def flowers_resnet18() -> nn.Module:
    """ResNet-18 as published, with 17 classes."""
    return _network([*_stem(64), *_resnet((64, 128, 256, 512), 2), *_head(512, 17)], _FLOWERS)


def flowers_resnet18_narrow() -> nn.Module:
    """ResNet-18 with a quarter of the channels."""
    return _network([*_stem(16), *_resnet((16, 32, 64, 128), 2), *_head(128, 17)], _FLOWERS)


def flowers_vgg() -> nn.Module:
    """A stem and six convolutions with batch norm, 0.29 M parameters."""
    return _network([*_stem(16), *_vgg(16), *_head(128, 17)], _FLOWERS)
