"""Steps that vary smoothly with frequency and quality, fitted to what slopes say of them.

The logarithm of a step of luma or chroma is f0 + x + f1 x: x is the quality, as the logarithm of libjpeg's
factor, and f0 and f1 are functions of the frequency. Before anything is measured they are Annex K's, smoothed
and with an uncertainty: much of it is common to all frequencies, less to neighbours in u + v, little to a
frequency alone. Each measured point says of each frequency where its best step would be, and how well that is
known; the fit is the mean of what is then probable (a Gaussian process).
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
_SPREAD = np.array([0.8, 0.8, 0.8, 0.6, 0.15, 0.4, 0.6])  # standard deviations of what multiplies them
_MIRROR = 8 * _V + _U  # the frequency with u and v exchanged
_PAIR, _ALONE = 0.3, 0.15  # standard deviations of a frequency's own part: with its mirror image, and alone
_SLOPE = 0.5, 0.35  # f1 in parts of f0: of what multiplies the functions, and of a frequency's own part
_SCALE = 1.2  # of x
_CURVATURE = 1.5  # how fast the share of the damage less that of the bytes grows with the logarithm of a step
_BYTES_ERROR = 0.1  # relative, of what slopes say of bytes
_MODEL_ERROR = 0.12  # of the logarithm of the best step
_DEAD = 0.02  # in parts of the mean share of the bytes: below it a frequency says nothing
_TRUST = 1.0  # bound of the logarithm of a step to its best


@dataclass(frozen=True)
class Slope:
    """What was measured at a point: how damage and bytes change with the logarithm of each step, in shares.

    x: of the quality. log_steps: tables x 64. damage: its share, adding up to 1, of all networks; variance:
    of this share, by the pictures. bytes: their share.
    """

    x: float
    log_steps: Field
    damage: Field
    variance: Field
    bytes: Field

    def best(self) -> tuple[Field, Field]:
        """The logarithms of the best steps, and their variance: where the shares are equal, a byte more
        would take away as much damage in one frequency as in any other.
        """
        share = self.bytes / self.bytes.sum()
        mean = share.mean()
        curvature = _CURVATURE * np.maximum(0.25 * np.maximum(self.damage, 0) + 0.75 * share, 0.05 * mean)
        change = np.clip((share - self.damage) / curvature, -_TRUST, _TRUST)
        error = (self.variance + (_BYTES_ERROR * share) ** 2) / curvature**2 + _MODEL_ERROR**2
        return self.log_steps + change, np.where(share < _DEAD * mean, 4.0, error)


def coordinate(quality: float) -> float:
    """x of a quality: the logarithm of the factor by which libjpeg multiplies Annex K's steps."""
    return math.log(max(ijg_factor(quality), 1) / 100)


class SmoothTables:
    """Tables by quality, of two or three tables (luma, chroma; or Y, Cb, Cr), fitted to slopes."""

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
        """Tables x 64, not held to 1..255."""
        return self._start + x + self._fields[:, 0] + self._fields[:, 1] * x / _SCALE


def _prior() -> Field:
    """Covariance of f0 and f1 of one table, 128 x 128."""
    smooth = _FUNCTIONS * _SPREAD**2 @ _FUNCTIONS.T
    mirrored = np.eye(64) + np.eye(64)[_MIRROR]
    own = _PAIR**2 * mirrored / 2 + (_ALONE**2 + 1e-9) * np.eye(64)
    covariance = np.zeros((128, 128))
    covariance[:64, :64] = smooth + own
    covariance[64:, 64:] = _SLOPE[0] ** 2 * smooth + _SLOPE[1] ** 2 * own
    return covariance
