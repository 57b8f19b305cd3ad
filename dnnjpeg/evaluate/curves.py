"""Rate-performance curves of codecs, and the difference between two curves."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.evaluate.statistics import Samples

Rows = NDArray[np.float64]  # a row a sample: (1 + resamples) x settings


class Curve:
    """The settings of a codec, joined by straight lines over the logarithm of the bytes.

    size: mean bytes of a picture.
    goodness: an accuracy, or minus a loss: larger is better.

    Both are samples (see `dnnjpeg.evaluate.statistics`), float64 (1 + resamples) x settings, in any order of
    the settings. All methods return a value for each sample. Nothing is extrapolated: beyond the settings the
    result is plus or minus infinity.
    """

    def __init__(self, size: Rows, goodness: Rows) -> None:
        order = np.argsort(size, axis=1, kind="stable")
        self._log_bytes = np.take_along_axis(np.log(size), order, axis=1)
        self._goodness = np.take_along_axis(goodness, order, axis=1)

    @cached_property
    def rising(self) -> tuple[Rows, Rows]:
        """Log bytes and goodness of the monotone curve, on which each goodness has one number of bytes.

        A setting that is worse than a smaller one is noise. Such settings are replaced by their mean, by the
        pool-adjacent-violators algorithm (Ayer et al. 1955). The number of settings stays the same.
        """
        log_bytes, goodness = self._log_bytes.copy(), self._goodness.copy()
        for row in np.flatnonzero((np.diff(goodness) <= 0).any(axis=1)):
            log_bytes[row], goodness[row] = _pool(log_bytes[row].tolist(), goodness[row].tolist())
        return log_bytes, goodness

    def goodness_at(self, log_bytes: Samples) -> Samples:
        """The goodness at a number of bytes, given by its logarithm."""
        return _interpolate(log_bytes, self._log_bytes, self._goodness)

    def log_bytes_at(self, goodness: Samples) -> Samples:
        """The logarithm of the bytes at a goodness, on the monotone curve."""
        log_bytes, rising = self.rising
        return _interpolate(goodness, rising, log_bytes)

    def within(self, goodness: Samples) -> Samples:
        """The goodness, clipped to the range of the monotone curve."""
        _, rising = self.rising
        return np.clip(goodness, rising[:, 0], rising[:, -1])


def log_ratio(curve: Curve, reference: Curve, goodness: Samples) -> Samples:
    """log(bytes / bytes of the reference) at equal goodness. NaN if the goodness is beyond both curves."""
    with np.errstate(invalid="ignore"):
        return curve.log_bytes_at(goodness) - reference.log_bytes_at(goodness)


def mean_log_ratio(curve: Curve, reference: Curve) -> Samples:
    """The mean of `log_ratio` over the goodness that both curves reach. NaN if there is no such goodness.

    This is Bjontegaard's difference of rates (VCEG-M33), with straight lines in place of the cubic, which is
    sensitive to noise.
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
    """Logarithms of ratios as changes in per cent. Infinite values stay infinite."""
    return np.where(np.isneginf(log_ratios), -np.inf, 100 * np.expm1(log_ratios))


def _pool(log_bytes: list[float], goodness: list[float]) -> tuple[list[float], list[float]]:
    pools: list[tuple[float, float, int]] = []  # mean log bytes, mean goodness, number of settings
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
    """For each row, y at x on the line through points with rising xs and ys. Infinite beyond the points."""
    before = np.sum(xs <= x[:, None], axis=1)
    neighbours = np.stack((before - 1, before), axis=1).clip(0, xs.shape[1] - 1)
    (x0, x1), (y0, y1) = (np.take_along_axis(rows, neighbours, axis=1).T for rows in (xs, ys))
    share = np.divide(x - x0, x1 - x0, out=np.zeros(len(x)), where=x1 > x0)
    y = y0 + share * (y1 - y0)
    return np.where(x > xs[:, -1], np.inf, np.where(before == 0, -np.inf, y))
