"""Rate against what the network makes of it: one curve a codec, and what lies between two of them."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.evaluate.statistics import Samples

Rows = NDArray[np.float64]  # a row a sample: (1 + resamples) x settings


class Curve:
    """The settings of a codec, joined by straight lines over the logarithm of the bytes.

    size: bytes of the mean picture.
    goodness: what is larger where the network does better: an accuracy, or a loss with its sign turned.

    Both are samples (see `dnnjpeg.evaluate.statistics`) by setting, (1 + resamples) x settings in any order,
    and every question is answered for each sample.

    Nothing is extrapolated: an answer beyond the settings is infinite, in the direction in which it lies.
    """

    def __init__(self, size: Rows, goodness: Rows) -> None:
        order = np.argsort(size, axis=1, kind="stable")
        self._log_bytes = np.take_along_axis(np.log(size), order, axis=1)
        self._goodness = np.take_along_axis(goodness, order, axis=1)

    @cached_property
    def rising(self) -> tuple[Rows, Rows]:
        """Log bytes and goodness of the curve made to rise, so that each goodness has its bytes.

        Settings that fall behind a smaller one are noise: each run of them is pooled into its mean, by the
        pool-adjacent-violators algorithm (Ayer et al. 1955), and stands there as often as it has settings.
        """
        log_bytes, goodness = self._log_bytes.copy(), self._goodness.copy()
        for row in np.flatnonzero((np.diff(goodness) <= 0).any(axis=1)):
            log_bytes[row], goodness[row] = _pool(log_bytes[row].tolist(), goodness[row].tolist())
        return log_bytes, goodness

    def goodness_at(self, log_bytes: Samples) -> Samples:
        """The goodness at so many bytes."""
        return _interpolate(log_bytes, self._log_bytes, self._goodness)

    def log_bytes_at(self, goodness: Samples) -> Samples:
        """The logarithm of the bytes that such a goodness takes, on the curve made to rise."""
        log_bytes, rising = self.rising
        return _interpolate(goodness, rising, log_bytes)

    def within(self, goodness: Samples) -> Samples:
        """The goodness, or the end of the curve made to rise that it lies beyond."""
        _, rising = self.rising
        return np.clip(goodness, rising[:, 0], rising[:, -1])


def log_ratio(curve: Curve, reference: Curve, goodness: Samples) -> Samples:
    """log(bytes / bytes of the reference) at equal goodness; NaN where it is beyond both."""
    with np.errstate(invalid="ignore"):
        return curve.log_bytes_at(goodness) - reference.log_bytes_at(goodness)


def mean_log_ratio(curve: Curve, reference: Curve) -> Samples:
    """The mean of `log_ratio` over the goodness that both curves reach; NaN where there is none.

    Bjontegaard's difference of rates (VCEG-M33), with straight lines in the place of his cubic, which noise
    would bend.
    """
    one, other = curve.rising[1], reference.rising[1]
    low = np.maximum(one[:, 0], other[:, 0])
    high = np.minimum(one[:, -1], other[:, -1])
    common = low < high
    # between two neighbours of this grid both curves are straight
    grid = np.sort(np.clip(np.hstack((one, other)), low[:, None], high[:, None]), axis=1)
    ratios = np.stack([log_ratio(curve, reference, column) for column in grid.T], axis=1)
    mean = np.full(len(grid), np.nan)
    mean[common] = np.trapezoid(ratios[common], grid[common]) / (high - low)[common]
    return mean


def per_cent(log_ratios: Samples) -> Samples:
    """The change that logarithms of ratios stand for, in per cent; what is beyond the curve stays so."""
    return np.where(np.isneginf(log_ratios), -np.inf, 100 * np.expm1(log_ratios))


def _pool(log_bytes: list[float], goodness: list[float]) -> tuple[list[float], list[float]]:
    pools: list[tuple[float, float, int]] = []  # mean log bytes and goodness of so many settings
    for x, y in zip(log_bytes, goodness, strict=True):
        count = 1
        while pools and pools[-1][1] >= y:
            before_x, before_y, before = pools.pop()
            x = (before * before_x + count * x) / (before + count)
            y = (before * before_y + count * y) / (before + count)
            count += before
        pools.append((x, y, count))
    return [x for x, _, count in pools for _ in range(count)], [y for _, y, n in pools for _ in range(n)]


def _interpolate(x: Samples, xs: Rows, ys: Rows) -> Samples:
    """By row, y at x on a curve through points with rising xs; infinite beyond them, for ys rise too."""
    before = np.sum(xs <= x[:, None], axis=1)
    neighbours = np.stack((before - 1, before), axis=1).clip(0, xs.shape[1] - 1)
    (x0, x1), (y0, y1) = (np.take_along_axis(rows, neighbours, axis=1).T for rows in (xs, ys))
    share = np.divide(x - x0, x1 - x0, out=np.zeros(len(x)), where=x1 > x0)
    y = y0 + share * (y1 - y0)
    return np.where(x > xs[:, -1], np.inf, np.where(before == 0, -np.inf, y))
