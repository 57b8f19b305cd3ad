"""Learn tables from slopes: how damage and bytes change with each step, measured near the tables themselves.

With the best tables, one byte more reduces the damage by the same amount in every frequency. So `Bench`
measures two slopes for each step, and the steps are changed until the ratio of the two is equal everywhere.
`SmoothTables` computes from the slopes where the best steps are. The next round measures there.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from dnnjpeg.learn.bench import Bench, as_point
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.smooth import Field, Slope, SmoothTables, coordinate
from dnnjpeg.table.point import OperatingPoint

_ROUNDS = 3
_ANCHORS = 5  # the number of qualities at which a round measures slopes, within the range that is asked for
_TABLE = 65  # bytes of a quantization table in a file
_WORTH = 0.01  # if a table takes more than this share of a file, one table for all components is tried, too


def learn(
    objective: Objective,
    qualities: Sequence[float],
    subsamplings: Sequence[str],
    *,
    tables: int = 2,
    seed: int = 0,
    deadline: float | None = None,
    on_trial: Callable[[float, float], object] = lambda loss, size: None,
) -> list[OperatingPoint]:
    """Learn candidates near the rates of standard files of these qualities, for each of the subsamplings.

    If there are several networks, the damage to each is divided by its sum, so that all count the same.

    objective: if it has a cache, slopes that were measured before are not measured again. So an interrupted
        run goes on.
    tables: 2 (Cb and Cr share one; if files are small, all three may share one) or 3.
    deadline: a time of `time.monotonic`, in seconds. A trial that would probably end later is not begun.
    on_trial: called after each trial, with its mean loss and its mean bytes of a picture.

    Raises ValueError if a network does not see the damage, or if the deadline leaves no time for one trial of
    each subsampling.
    """
    bench = Bench(objective, tables, seed)
    clock = _Clock(math.inf if deadline is None else deadline)
    slopes: dict[str, list[Slope]] = {subsampling: [] for subsampling in subsamplings}
    sizes: dict[str, list[tuple[float, float]]] = {subsampling: [] for subsampling in subsamplings}
    with suppress(_LateError):
        for number in range(_ROUNDS):
            fitted = {s: SmoothTables(slopes[s], tables) for s in subsamplings}
            for x, subsampling in itertools.product(_anchors(qualities, number), subsamplings):
                with clock.timed():
                    slope, loss, size = bench.measure(fitted[subsampling].log_steps(x), x, subsampling)
                slopes[subsampling].append(slope)
                sizes[subsampling].append((x, size))
                on_trial(loss, size)
    if not all(slopes.values()):
        raise ValueError(
            f"the time is over after {sum(map(len, slopes.values()))} trials, and a table needs one of each "
            "subsampling: give more time, or fewer pictures"
        )
    found = []
    for subsampling in subsamplings:
        fit = SmoothTables(slopes[subsampling], tables)
        known = np.array(sorted(sizes[subsampling])).T
        for x in map(coordinate, qualities):
            steps = fit.log_steps(x)
            found.append(bench.with_bin_width(as_point(steps, subsampling)))
            if tables == 2 and not objective.headerless and np.interp(x, *known) * _WORTH < _TABLE:
                nearest = min(slopes[subsampling], key=lambda slope: abs(slope.x - x))
                found.append(bench.with_bin_width(as_point(_tied(steps, nearest), subsampling)))
    return list(dict.fromkeys(found))


def most_trials(subsamplings: int) -> int:
    """The number of trials that `learn` makes for a number of subsamplings, if the time is enough."""
    return _ROUNDS * _ANCHORS * subsamplings


def most_candidates(qualities: int, subsamplings: int) -> int:
    """The largest number of candidates that `learn` returns."""
    return 2 * qualities * subsamplings


def _anchors(qualities: Sequence[float], number: int) -> list[float]:
    """The coordinates of the trials of a round. Those of another round lie between them."""
    first, last = coordinate(max(qualities)), coordinate(min(qualities))
    shares = (np.arange(_ANCHORS) + (0.5, 0.2, 0.8)[number % 3]) / _ANCHORS
    return (first + shares * (last - first)).tolist()


def _tied(log_steps: Field, slope: Slope) -> Field:
    """One table for all components: the mean of the logarithms of the steps, weighted by their bytes."""
    weights = np.maximum(slope.bytes, 1e-3 * slope.bytes.mean())
    return np.repeat([(weights * log_steps).sum(0) / weights.sum(0)], len(log_steps), axis=0)


class _LateError(Exception):
    """There is no time for another trial."""


class _Clock:
    """Ends a search in time. A trial is expected to take as long as the longest trial before it."""

    def __init__(self, deadline: float) -> None:
        self._deadline, self._longest = deadline, 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.monotonic()
        if start + self._longest > self._deadline:
            raise _LateError
        yield
        self._longest = max(self._longest, time.monotonic() - start)
