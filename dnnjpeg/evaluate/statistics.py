"""Means over pictures, and their intervals by the bootstrap."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
_SEED = 0

# The value itself, then a value for each resample of the pictures. All arrays use the same resamples. So a
# difference of two arrays is a paired difference, in which the luck of the draw cancels.
Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, by percentiles of the bootstrap (Efron 1979).

    Infinite means: beyond the measured settings, in this direction. NaN means: not defined.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Make an estimate from samples. NaN samples are left out of the interval if the value is not NaN."""
        value, resampled = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
        if np.isnan(value) or not resampled.size:
            return cls(value, np.nan, np.nan)
        # take the outer neighbour: between a finite and an infinite value, interpolation has no meaning
        low = np.percentile(resampled, 2.5, method="lower")
        high = np.percentile(resampled, 97.5, method="higher")
        return cls(value, float(low), float(high))


def means(values: Iterable[ArrayLike]) -> NDArray[np.float64]:
    """Samples of the means of K arrays, float64 (1 + RESAMPLES) x K.

    values: K arrays with a value for each of N pictures.

    A resample draws N pictures with repetition. The resamples depend only on N.
    """
    table = np.stack([np.asarray(array, np.float64) for array in values], axis=1)
    return np.vstack((table.mean(axis=0), _times_drawn(len(table)) @ table / len(table)))


def crossed_means(table: ArrayLike) -> Samples:
    """Samples of the mean of a table, trainings x pictures, when both trainings and pictures are drawn.

    The samples show the effect of other seeds and of other pictures. A value of the table is the sum of the
    mean, an effect of its training, an effect of its picture, and a rest. Drawing rows and columns alike
    would count the rest three times (Owen 2007). The means of trainings already include their share of the
    rest, so the effects of pictures are shrunk. There are few trainings, so their deviation is uncertain,
    too: their drawn effects are divided by a drawn deviation, as in Student's t.

    With a single training, all samples but the mean are NaN. Raises ValueError for another shape.
    """
    values = np.asarray(table, np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise ValueError(f"table has the shape {values.shape}, expected trainings x 2 pictures or more")
    rows, mean = len(values), values.mean()
    if rows == 1:
        return np.array([mean, *[np.nan] * RESAMPLES])
    by_row, by_picture = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - by_row[:, None] - by_picture
    in_pictures = (rest**2).sum() / (rows - 1) / rows  # share of the rest in the squares of `by_picture`
    of_pictures = (by_picture**2).sum()
    shrink = np.sqrt(max(0.0, 1 - in_pictures / of_pictures)) if of_pictures else 0.0
    drawn = _times_drawn(rows, _SEED + 1) @ by_row / rows
    deviation = np.sqrt(np.random.default_rng(_SEED).chisquare(rows - 1, RESAMPLES) / rows)
    return mean + np.append(0.0, drawn / deviation + shrink * means([by_picture])[1:, 0])


@lru_cache(maxsize=2)
def _times_drawn(count: int, seed: int = _SEED) -> NDArray[np.float64]:
    """How often each picture is drawn in each resample, RESAMPLES x count."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, count, count) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=count).astype(np.float64) for draw in draws])
