"""A model of the networks' loss, from the damage to the coefficients. It is fitted to trials on real files.

    loss = (Σ w (moved + r lost))^g

Each band of frequencies has a weight w, each channel has a ratio r, and there is one exponent g. `lost` is
the mean squared error of coefficients that became zero, `moved` that of the other coefficients.
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
    """A measured point.

    bytes, loss: means over the pictures; the loss is in nat.
    moved, lost: float64 3 x 64, mean squared errors of coefficients, at the pictures' resolution.
    """

    point: OperatingPoint
    bytes: float
    loss: float
    moved: Steps
    lost: Steps


@dataclass(frozen=True)
class Response:
    """The fitted model.

    weights: float64 3 x 64, the weights w.
    ratio: float64 3, the ratios r of Y, Cb and Cr.
    exponent: g.
    error: root mean square error of log loss over the trials.
    """

    weights: Steps
    ratio: NDArray[np.float64]
    exponent: float
    error: float

    def damage(self, moved: Steps, lost: Steps) -> float:
        """The sum of the model, for mean squared errors of shape 3 x 64. It is at least 1e-12."""
        return max(float((self.weights * (moved + self.ratio[:, None] * lost)).sum()), 1e-12)

    def loss(self, moved: Steps, lost: Steps) -> float:
        """The mean loss that the model expects, in nat, for mean squared errors of shape 3 x 64."""
        return math.exp(self.exponent * math.log(self.damage(moved, lost)))


def fit(trials: Sequence[Trial]) -> Response:
    """Fit the model to trials, by least squares of log loss.

    Neighbouring bands get similar weights, and so do Cb and Cr in the same band. Trials without a loss are
    left out. Raises ValueError if more than half of the trials have no loss, or if all losses are nearly
    equal.
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
    """The trials with a loss above 0. Noise of the labels can make a loss negative."""
    seen = [trial for trial in trials if trial.loss > 0]
    losses = [trial.loss for trial in seen] or [0.0]
    if 2 * len(seen) < len(trials) or max(losses) < 1.1 * min(losses):
        raise ValueError(
            f"the loss is above 0 with {len(seen)} of {len(trials)} very different tables, and lies between "
            f"{min(losses):.4g} and {max(losses):.4g}: the networks do not see the difference. Check that "
            "they are trained, and that they read these pictures"
        )
    return seen


def _by_band(damage: Steps) -> NDArray[np.float64]:
    return np.bincount(BAND.ravel(), damage.ravel(), 16).astype(np.float64)
