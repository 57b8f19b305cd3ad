"""Small networks without training, by the names that the benchmarks ask of models/zoo.py."""

import torch
from torch import nn


def _network(size: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, width in ((3, 16), (16, 32)):
            layers += [nn.Conv2d(inputs, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        head = nn.Linear(32, 10)
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        head.weight *= 20  # sure enough of itself to have something to lose
    network.preprocess = {"size": size, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return network


def cifar_resnet20() -> nn.Module:
    return _network(32, 1)


def mobilenet_v1_075() -> nn.Module:
    return _network(56, 2)


def resnet18() -> nn.Module:
    return _network(56, 3)
