"""What damage to coefficients costs the networks: a model fitted to trials on real files.

    loss = (Σ w (moved + r lost))^g

with a weight w for each band of frequencies, a ratio r for each channel and one exponent g; moved and lost
are mean squared errors of coefficients that remain, and that became zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.table.point import OperatingPoint

Steps = NDArray[np.float64]  # 3 x 64, of Y, Cb and Cr

DIAGONAL = np.add.outer(np.arange(8), np.arange(8)).ravel()
# Bands of u + v: eight of luma, four of each chroma.
_LUMA_BAND = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 7, 7, 7, 7])[DIAGONAL]
_CHROMA_BAND = np.array([0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])[DIAGONAL]
BAND = np.stack([_LUMA_BAND, 8 + _CHROMA_BAND, 12 + _CHROMA_BAND])
_CHANNEL = np.repeat([0, 1, 2], [8, 4, 4])  # of each band


@dataclass(frozen=True)
class Trial:
    """A measured point. moved, lost: 3 x 64, squared units of a coefficient, at the pictures' resolution."""

    point: OperatingPoint
    bytes: float
    loss: float
    moved: Steps
    lost: Steps


@dataclass(frozen=True)
class Response:
    """The fitted model. weights: 3 x 64; ratio: 3, of lost to moved; error: rms of log loss at the trials."""

    weights: Steps
    ratio: NDArray[np.float64]
    exponent: float
    error: float

    def damage(self, moved: Steps, lost: Steps) -> float:
        """The model's sum, of 3 x 64 each."""
        return max(float((self.weights * (moved + self.ratio[:, None] * lost)).sum()), 1e-12)

    def loss(self, moved: Steps, lost: Steps) -> float:
        """Mean loss that the model expects of this damage, 3 x 64 each."""
        return math.exp(self.exponent * math.log(self.damage(moved, lost)))


def fit(trials: Sequence[Trial]) -> Response:
    """The model of these trials: least squares of log loss, with weights drawn to those of the neighbouring
    bands and, of the same band, to each other in Cb and Cr.

    Trials that lose nothing say nothing. Raises ValueError where these are most, or losses hardly differ.
    """
    trials = _seen(trials)
    target = torch.tensor([trial.loss for trial in trials], dtype=torch.float64).log()
    moved, lost = (
        torch.from_numpy(np.stack([_by_band(getattr(trial, kind)) for trial in trials]))
        for kind in ("moved", "lost")
    )
    channel = torch.from_numpy(_CHANNEL)
    log_weights = torch.full((16,), -6.0, dtype=torch.float64, requires_grad=True)
    log_ratio = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_exponent = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_weights, log_ratio, log_exponent],
        max_iter=500,
        tolerance_grad=1e-9,
        line_search_fn="strong_wolfe",
    )

    def residuals() -> Tensor:
        weights = log_weights.exp()
        damage = (weights * (moved + lost * log_ratio[channel].exp())).sum(1)
        return log_exponent.exp() * damage.log() - target

    def closure() -> Tensor:
        optimizer.zero_grad()
        luma, blue, red = log_weights[:8], log_weights[8:12], log_weights[12:]
        apart = torch.cat([luma.diff(), blue.diff(), red.diff(), blue - red])
        misfit = (residuals() / 0.03).square().sum()  # 3 %: what two draws of the pictures differ by
        cost: Tensor = (
            misfit
            + (apart / 0.3).square().sum()
            + (log_ratio / 0.5).square().sum()
            + (log_exponent / 0.3).square()
        )
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return Response(
            log_weights.exp().numpy()[BAND],
            log_ratio.exp().numpy(),
            float(log_exponent.exp()),
            float(residuals().square().mean().sqrt()),
        )


def _seen(trials: Sequence[Trial]) -> list[Trial]:
    """Those in which something is lost: less than nothing is the noise of labels."""
    seen = [trial for trial in trials if trial.loss > 0]
    losses = [trial.loss for trial in seen] or [0.0]
    if 2 * len(seen) < len(trials) or max(losses) < 1.1 * min(losses):
        raise ValueError(
            f"the loss is above 0 in {len(seen)} of {len(trials)} very different tables, "
            f"{min(losses):.4g} to {max(losses):.4g}: the networks do not see the difference"
        )
    return seen


def _by_band(damage: Steps) -> NDArray[np.float64]:
    return np.bincount(BAND.ravel(), damage.ravel(), 16).astype(np.float64)
