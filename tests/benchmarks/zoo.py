"""Small networks without training, by the names that the benchmarks ask of models/zoo.py."""

import torch
from torch import nn
from torch.nn import functional as F


def _network(size: int, seed: int) -> nn.Module:
    """Its logits have mean 0 and standard deviation 4 over some pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, width in ((3, 8), (8, 16)):
            layers += [nn.Conv2d(inputs, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        head = nn.Linear(16 * 4 * 4, 10)
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), head).eval()
        with torch.no_grad():
            pictures = F.interpolate(torch.randn(100, 3, 5, 5), (size, size), mode="bilinear")
            logits = network(pictures + torch.randn_like(pictures) / 8)
            head.weight *= 4 / logits.std(0)[:, None]
            head.bias -= logits.mean(0)
            head.bias *= 4 / logits.std(0)
    network.preprocess = {"size": size, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return network


def cifar_resnet20() -> nn.Module:
    return _network(32, 1)


def mobilenet_v1_075() -> nn.Module:
    return _network(112, 2)


def resnet18() -> nn.Module:
    """Reads much as the other does, but not all."""
    return _network(96, 2)
