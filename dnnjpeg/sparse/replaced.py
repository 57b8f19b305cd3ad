"""Modules that replace the batch norms and ReLUs that a convolution does."""

import copy

from torch import Tensor, nn


class FoldedNorm(nn.BatchNorm2d):
    """Replaces a batch norm that the convolution before it does."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the input. Raises RuntimeError in training mode."""
        if self.training:
            raise RuntimeError(
                "a batch norm is in training mode, but a convolution computes it: call eval(), or "
                "dnnjpeg.sparse.restore_ the network before training"
            )
        return x


class KnownReLU(nn.ReLU):
    """A ReLU that does nothing if the convolution before it has applied it."""

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape."""
        return x if _is_done(x, "relu") else super().forward(x)


class KnownReLU6(nn.ReLU6):
    """A ReLU6 that does nothing if the convolution before it has applied it."""

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape."""
        return x if _is_done(x, "relu6") else super().forward(x)


def _is_done(x: Tensor, activation: str) -> bool:
    """Whether a convolution has just made `x` with this activation. True only once, as `x` may change."""
    done = getattr(x, "activation", None) == activation
    if done:
        x.activation = None  # type: ignore[attr-defined]
    return done


def twin(kind: type[nn.Module], module: nn.Module) -> nn.Module:
    """A module of another class with the same parameters, buffers and hooks."""
    made = kind.__new__(kind)
    made.__dict__.update(copy.copy(module.__dict__))
    return made
