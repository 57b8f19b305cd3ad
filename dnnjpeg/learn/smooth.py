"""Steps that vary smoothly with frequency and quality, fitted to measured slopes.

The logarithm of a step is f0 + x + f1 x. x is the quality, as the logarithm of libjpeg's factor. f0 and f1
are functions of the frequency. The fit is a Gaussian process. Its prior mean is Annex K, smoothed. Its prior
covariance has a large part that all frequencies share, a smaller one that neighbours in u + v share, and a
small one for each frequency alone. Each measured slope gives a best step for each frequency, with a variance.
The result is the posterior mean.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_factor

Field = NDArray[np.float64]  # tables x 64

_U, _V = np.divmod(np.arange(64), 8)
_SUM, _DIFFERENCE = (_U + _V) / 14, (_U - _V) / 7
_FUNCTIONS = np.stack(
    [_SUM**0, _SUM, _SUM**2, _SUM**3, _DIFFERENCE, _DIFFERENCE**2, 1.0 * (_SUM == 0)], axis=1
)
_SPREAD = np.array([0.8, 0.8, 0.8, 0.6, 0.15, 0.4, 0.6])  # standard deviations of their coefficients
_MIRROR = 8 * _V + _U  # the frequency with u and v exchanged
_PAIR, _ALONE = 0.3, 0.15  # standard deviations: shared with the mirrored frequency, and its own
_SLOPE = 0.5, 0.35  # standard deviations of f1 divided by those of f0: of the functions, of the own parts
_SCALE = 1.2  # f1 is multiplied by x / _SCALE
_CURVATURE = 1.5  # how fast (share of the damage - share of the bytes) grows with the logarithm of a step
_BYTES_ERROR = 0.1  # relative error of the share of the bytes
_MODEL_ERROR = 0.12  # standard deviation of the logarithm of a best step, however well the slopes are known
_DEAD = 0.02  # a frequency with a smaller share of the bytes, relative to the mean share, has no influence
_TRUST = 1.0  # the largest change of the logarithm of a step


@dataclass(frozen=True)
class Slope:
    """What was measured at a point: how damage and bytes change with the logarithm of each step.

    x: the coordinate of the quality. log_steps: logarithms of the steps, tables x 64.
    damage: the share of each frequency in the damage; the sum is 1. variance: its variance over pictures.
    bytes: the share of a file's bytes that is saved when the logarithm of a step grows by 1.
    """

    x: float
    log_steps: Field
    damage: Field
    variance: Field
    bytes: Field

    def best(self) -> tuple[Field, Field]:
        """The logarithms of the best steps, and their variances.

        Steps are best if each frequency has the same share in the damage as in the bytes. Then one byte more
        reduces the damage by the same amount in every frequency.
        """
        share = self.bytes / self.bytes.sum()
        mean = share.mean()
        curvature = _CURVATURE * np.maximum(0.25 * np.maximum(self.damage, 0) + 0.75 * share, 0.05 * mean)
        change = np.clip((share - self.damage) / curvature, -_TRUST, _TRUST)
        error = (self.variance + (_BYTES_ERROR * share) ** 2) / curvature**2 + _MODEL_ERROR**2
        return self.log_steps + change, np.where(share < _DEAD * mean, 4.0, error)


def coordinate(quality: float) -> float:
    """The coordinate of a quality: the logarithm of libjpeg's factor for Annex K's steps."""
    return math.log(max(ijg_factor(quality), 1) / 100)


class SmoothTables:
    """Tables for every quality, fitted to slopes. tables: 2 (luma, chroma) or 3 (Y, Cb, Cr)."""

    def __init__(self, slopes: list[Slope], tables: int) -> None:
        annex = np.log(np.array([STANDARD_LUMA, *[STANDARD_CHROMA] * (tables - 1)], np.float64))
        self._start = annex @ np.linalg.pinv(_FUNCTIONS).T @ _FUNCTIONS.T
        precision = np.linalg.inv(_prior())
        self._fields = np.zeros((tables, 2, 64))
        known = [(slope.x, *slope.best()) for slope in slopes]
        frequencies = np.arange(64)
        for table in range(tables):
            total, pull = precision.copy(), np.zeros(128)
            for x, best, variance in known:
                powers = 1.0, x / _SCALE
                for i, one in enumerate(powers):
                    pull[64 * i : 64 * i + 64] += one * (best - x - self._start)[table] / variance[table]
                    for j, other in enumerate(powers):
                        total[64 * i + frequencies, 64 * j + frequencies] += one * other / variance[table]
            self._fields[table] = np.linalg.solve(total, pull).reshape(2, 64)

    def log_steps(self, x: float) -> Field:
        """Logarithms of the steps at a coordinate, tables x 64. The steps are not limited to 1..255."""
        return self._start + x + self._fields[:, 0] + self._fields[:, 1] * x / _SCALE


def _prior() -> Field:
    """The prior covariance of f0 and f1 of one table, 128 x 128."""
    smooth = _FUNCTIONS * _SPREAD**2 @ _FUNCTIONS.T
    mirrored = np.eye(64) + np.eye(64)[_MIRROR]
    own = _PAIR**2 * mirrored / 2 + (_ALONE**2 + 1e-9) * np.eye(64)
    covariance = np.zeros((128, 128))
    covariance[:64, :64] = smooth + own
    covariance[64:, 64:] = _SLOPE[0] ** 2 * smooth + _SLOPE[1] ** 2 * own
    return covariance
