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


@lru_cache(maxsize=1)
def _times_drawn(count: int) -> NDArray[np.float64]:
    """How often each picture is in each resample, RESAMPLES x count."""
    rng = np.random.default_rng(_SEED)
    draws = (rng.integers(0, count, count) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=count).astype(np.float64) for draw in draws])
