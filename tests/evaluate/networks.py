"""Small classifiers without training."""

import torch
from torch import nn


def _classifier(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 7 * 7, 10)
    module = nn.Sequential(*layers)
    with torch.no_grad():
        layers[-1].weight *= 8  # sure enough of itself to have something to lose
    module.preprocess = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return module


def one() -> nn.Module:
    return _classifier(1)


def two() -> nn.Module:
    return _classifier(2)
