"""The source of a network of four logits, small enough to compute by hand."""

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
HEAD = f"""
import torch
from torch import nn

class Means(nn.Module):
    '''Four mixtures of the colours' means.'''

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.BatchNorm2d(3)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(12).reshape(4, 3) / 10)
            self.fc.bias.copy_(torch.arange(4))
        self.preprocess = dict(size=16, mean={MEAN}, std={STD})

    def forward(self, x):
        self.seen = x
        return self.fc(x.mean((2, 3)))
"""
