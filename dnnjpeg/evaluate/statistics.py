"""Means over pictures, and how sure they are: the bootstrap."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
_SEED = 0

# The value itself, then one for each resample of the pictures. All are made with the same resamples, so that
# what is computed from two of them, element by element, is paired: the luck of the draw cancels.
Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval, by percentiles of the bootstrap (Efron 1979).

    An infinite number lies beyond what was measured, in that direction; NaN is not defined.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Samples) -> Self:
        """Samples that are not defined have no say in the interval, as long as the value is defined."""
        value, resampled = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
        if np.isnan(value) or not resampled.size:
            return cls(value, np.nan, np.nan)
        # of neighbours, the outer one: between a finite and an infinite one there is nothing to interpolate
        low = np.percentile(resampled, 2.5, method="lower")
        high = np.percentile(resampled, 97.5, method="higher")
        return cls(value, float(low), float(high))


def means(values: Iterable[ArrayLike]) -> NDArray[np.float64]:
    """Samples of the means of K arrays with one value a picture, as (1 + RESAMPLES) x K.

    The resamples depend on nothing but the number of pictures N: each draws N of them, with repetition.
    """
    table = np.stack([np.asarray(array, np.float64) for array in values], axis=1)
    return np.vstack((table.mean(axis=0), _times_drawn(len(table)) @ table / len(table)))


def crossed_means(table: ArrayLike) -> Samples:
    """Samples of the mean of a table of trainings x pictures, where trainings and pictures are both drawn
    anew: what comes of other seeds as well as of other pictures.

    A value is the mean, what its training adds, what its picture adds, and a rest that is of both. Means of
    trainings have their share of the rest, so that what pictures add is shrunk by it: drawing rows and
    columns of the table alike counts the rest three times (Owen 2007). As there are few trainings, how far
    apart they are is uncertain as well: what is drawn of them is divided by a drawn deviation, as in
    Student's t.

    Of one training nothing is known of others: all but the mean are NaN. Raises ValueError for another shape.
    """
    values = np.asarray(table, np.float64)
    if values.ndim != 2 or len(values) < 1 or values.shape[1] < 2:
        raise ValueError(f"table has the shape {values.shape}, expected trainings x 2 pictures or more")
    rows, mean = len(values), values.mean()
    if rows == 1:
        return np.array([mean, *[np.nan] * RESAMPLES])
    by_row, by_picture = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    rest = values - mean - by_row[:, None] - by_picture
    in_pictures = (rest**2).sum() / (rows - 1) / rows  # the rest in the sum of squares of `by_picture`
    of_pictures = (by_picture**2).sum()
    shrink = np.sqrt(max(0.0, 1 - in_pictures / of_pictures)) if of_pictures else 0.0
    drawn = _times_drawn(rows, _SEED + 1) @ by_row / rows
    deviation = np.sqrt(np.random.default_rng(_SEED).chisquare(rows - 1, RESAMPLES) / rows)
    return mean + np.append(0.0, drawn / deviation + shrink * means([by_picture])[1:, 0])


@lru_cache(maxsize=2)
def _times_drawn(count: int, seed: int = _SEED) -> NDArray[np.float64]:
    """How often each picture is in each resample, RESAMPLES x count."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, count, count) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=count).astype(np.float64) for draw in draws])
