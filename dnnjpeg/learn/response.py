"""Tables from real files: measure what damage costs the networks, model it, and spend the bytes accordingly.

A trial encodes all pictures with one set of tables, decodes the files, and runs the networks on them. A trial
gives the mean loss and the damage. The damage has two mean squared errors for each frequency of Y, Cb and Cr:
one of the coefficients that were lost (became zero), one of the coefficients that were only moved.

`damage.fit` fits a model of the loss to many trials. The damage of any table can be computed without a
network, and its bytes by encoding alone, so the best table under the model is cheap to find. This table is
then tried, the model is fitted again, and so on. The model holds only near its trials, so each round changes
the steps by a bounded factor. At the end, the best points are tried with bins wider or narrower than the
steps.
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from dnnjpeg.files.cache import digest, key
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.learn.damage import BAND, DIAGONAL, Response, Steps, Trial, fit
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.points import StandardCurve
from dnnjpeg.soft.jpeg import to_coefficients
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint

_STANDARD = (10, 20, 30, 40, 50, 65, 80, 90)  # qualities of the standard trials
_RANDOM = 16  # further trials, of standard tables with their bands scaled at random
_TOLERANCES = (
    0.05,
    0.02,
)  # by round: a subsampling further behind the best is skipped; in parts of its bytes
_TRUST = 0.45  # bound of |log step| from one round to the next
_KEPT = 3  # of the trials at each price: how many become candidates
MOST = _KEPT + 1  # candidates at a price, one of them with bins of its own
_PIXELS = 1_600_000  # to count bytes with, in 32 to 100 pictures
_TABLE = 65  # bytes that a quantization table takes
_CELLS = (0.8, 1.25)  # of luma
_CHROMA_CELLS = (1.0, 0.93)  # some networks like a little too much colour
_DOUBT = 30  # indices of 1 that speak for a bin width of 1


def learn(
    objective: Objective,
    qualities: Sequence[float],
    subsamplings: Sequence[str],
    *,
    tables: int = 2,
    seed: int = 0,
    deadline: float | None = None,
    on_trial: Callable[[Trial], object] = lambda trial: None,
    on_skip: Callable[[], object] = lambda: None,
) -> list[OperatingPoint]:
    """Find candidate points: for each quality, the few trials that cost least.

    The cost of a trial is loss + price x bytes. The price belongs to a quality: it is the loss that one byte
    more saves in a standard file of this quality.

    objective: if it has a cache, trials of an earlier run are not measured again. An interrupted run
        continues this way.
    qualities: qualities of the standard table, 1..100.
    subsamplings: keys of `SUBSAMPLINGS`, for example "4:2:0".
    tables: 2 (Cb and Cr share one; all three share one where that is cheaper) or 3.
    seed: seed of the random trials, and of the pictures on which tables are compared.
    deadline: a time of `time.monotonic`, in seconds. A trial that would probably end later is not started.
    on_trial: called after each trial.
    on_skip: called for each trial that is not needed. Without a deadline, on_trial and on_skip are called
        `most_trials` times together.

    Raises ValueError if the loss does not depend on the damage, or if the deadline leaves no time for the
    standard trials of one subsampling.
    """
    trials: list[Trial] = []
    clock = _Clock(math.inf if deadline is None else deadline)

    def attempt(find: Callable[[], OperatingPoint]) -> None:
        point = find()
        if point in [trial.point for trial in trials]:
            on_skip()
            return
        with clock.timed():
            trials.append(_try(objective, point))
        on_trial(trials[-1])

    def prices() -> list[float]:
        first = trials[: len(_STANDARD)]
        curve = StandardCurve.of(_STANDARD, [one.bytes for one in first], [one.loss for one in first])
        return [curve.price(quality) for quality in qualities]

    def search() -> None:
        for subsampling in subsamplings:
            for standard in _STANDARD:
                attempt(partial(_point, _standard(standard), subsampling, 2))
        for steps, subsampling in _random(subsamplings, seed):
            attempt(partial(_point, steps, subsampling, 3))
        at = prices()
        benches = {s: _Bench(objective, s, seed, clock.check) for s in subsamplings}
        for tolerance in _TOLERANCES:
            response = fit(trials)
            for price in at:
                best = {s: min(_of(trials, s), key=partial(_cost, price)) for s in subsamplings}
                least = min(best.values(), key=partial(_cost, price))
                for subsampling, start in best.items():
                    behind = _cost(price, start) - _cost(price, least)
                    if behind <= tolerance * price * least.bytes:
                        attempt(partial(benches[subsampling].improve, response, start, price, tables))
                    else:
                        on_skip()
        best_points = _best(trials, at, 1)
        for point, chroma in itertools.product(best_points, _CHROMA_CELLS):
            attempt(partial(benches[point.subsampling].with_bin_width, point, chroma))
        for _ in range((len(at) - len(best_points)) * len(_CHROMA_CELLS)):
            on_skip()

    with suppress(_LateError):
        search()
    if len(trials) < len(_STANDARD):
        raise ValueError(
            f"the time is over after {len(trials)} trials, expected at least {len(_STANDARD)}: give more "
            "time, or fewer pictures"
        )
    plain = [trial for trial in trials if set(trial.point.bin_width) <= {1}]
    return list(dict.fromkeys([*_best(plain, prices()), *_best(trials, prices(), 1)]))


def most_trials(qualities: int, subsamplings: int) -> int:
    """The largest number of trials that `learn` makes, for these numbers of qualities and subsamplings."""
    rounds = len(_TOLERANCES) * subsamplings * qualities
    return subsamplings * len(_STANDARD) + _RANDOM + rounds + qualities * len(_CHROMA_CELLS)


class _LateError(Exception):
    """There is no time for another trial."""


class _Clock:
    """Ends a search in time: a trial is expected to take as long as the longest before it."""

    def __init__(self, deadline: float) -> None:
        self._deadline, self._longest = deadline, 0.0

    def check(self) -> None:
        if time.monotonic() + self._longest > self._deadline:
            raise _LateError

    @contextmanager
    def timed(self) -> Iterator[None]:
        self.check()
        start = time.monotonic()
        yield
        self._longest = max(self._longest, time.monotonic() - start)


def _of(trials: Sequence[Trial], subsampling: str) -> list[Trial]:
    return [trial for trial in trials if trial.point.subsampling == subsampling]


def _cost(price: float, trial: Trial) -> float:
    return trial.loss + price * trial.bytes


def _best(trials: Sequence[Trial], prices: Sequence[float], count: int = _KEPT) -> list[OperatingPoint]:
    """The few points that cost least at each price, without repeats."""
    few = [trial.point for price in prices for trial in sorted(trials, key=partial(_cost, price))[:count]]
    return list(dict.fromkeys(few))


def _try(objective: Objective, point: OperatingPoint) -> Trial:
    found = objective.measure(point)
    moved, lost = (one.mean(0) for one in (found.moved, found.lost))
    return Trial(point, float(found.bytes.mean()), float(found.loss.mean()), moved, lost)


def _standard(quality: float) -> Steps:
    luma, chroma = standard_table().at(quality).tables
    return np.array([luma, chroma, chroma], float)


def _random(subsamplings: Sequence[str], seed: int) -> Iterator[tuple[Steps, str]]:
    """Standard tables, with a random factor for each band (within e^±0.8) and a random tilt."""
    generator = np.random.default_rng(seed)
    for i in range(_RANDOM):
        bands = generator.uniform(-0.8, 0.8, 16)
        bands[12:] = bands[8:12] + generator.uniform(-0.4, 0.4, 4)
        tilt = generator.uniform(-0.5, 0.5, 2)[[0, 1, 1]][:, None] * (DIAGONAL - 4) / 4
        scale = np.exp(bands[BAND] + tilt + generator.uniform(-0.5, 0.5, 2)[[0, 1, 1]][:, None])
        yield _standard((12, 20, 30, 45, 65, 80)[i % 6]) * scale, subsamplings[i % len(subsamplings)]


def _point(steps: Steps, subsampling: str, tables: int) -> OperatingPoint:
    rows = [tuple(map(int, np.clip(np.rint(row), 1, 255))) for row in steps[:tables]]
    return OperatingPoint.from_tables(rows, subsampling=subsampling)


def _steps(point: OperatingPoint) -> Steps:
    luma, blue, *rest = point.tables
    return np.array([luma, blue, *(rest or [blue])], float)


class _Bench:
    """Compares tables on some of the pictures, without a network: by damage and bytes."""

    def __init__(
        self, objective: Objective, subsampling: str, seed: int, check: Callable[[], object] = lambda: None
    ) -> None:
        count = int(np.clip(_PIXELS / objective.dataset.pixels, 32, 100))
        index = np.sort(np.random.default_rng(seed).permutation(len(objective))[:count])
        self.objective = objective
        self.dataset = objective.dataset.take(index)
        self.subsampling = subsampling
        self.check = check  # called often; may raise, to end the work
        parts = [to_coefficients(pixels, subsampling) for _, pixels in objective.groups(index)]
        self.planes = [
            np.ascontiguousarray(torch.cat([plane.reshape(-1, 64) for plane in planes]).T.cpu().numpy())
            for planes in zip(*parts, strict=True)
        ]
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def bytes(self, steps: Steps, tables: int) -> float:
        """Mean bytes of a picture's baseline file."""
        write = partial(self.objective.size, _point(steps, self.subsampling, tables))
        return float(np.mean(list(self.pool.map(write, self.dataset.pictures))))

    def cost(self, response: Response, steps: Steps) -> Steps:
        """The summands of the model's damage, one for each frequency, 3 x 64."""
        h, v = SUBSAMPLINGS[self.subsampling][0]
        # A frequency of subsampled chroma is a lower one of the picture.
        row, column = np.divmod(np.arange(64), 8)
        coarse = (row // v) * 8 + column // h
        result = np.empty((3, 64))
        for c, plane in enumerate(self.planes):
            index = np.rint(plane / steps[c][:, None])
            error = (index * steps[c][:, None] - plane) ** 2
            error *= np.where(index == 0, response.ratio[c], 1)
            result[c] = error.mean(1) * response.weights[c][coarse if c else slice(None)]
        return result

    def with_bin_width(self, point: OperatingPoint, chroma: float) -> OperatingPoint:
        """The point with luma bins so wide that the mean coefficient of a bin is what the bin decodes to.

        Most coefficients with index 1 are below the step. A wider bin takes fewer of them.
        """
        steps = _steps(point)[0][:, None]
        index = np.rint(self.planes[0] / steps)
        ratio = ((index * self.planes[0] / steps).sum(1) + _DOUBT) / (np.square(index).sum(1) + _DOUBT)
        luma = np.clip(1 / ratio, *_CELLS).round(2).tolist()
        return replace(point, bin_width=(tuple(luma), *(chroma,) * len(point.chroma)))

    def improve(self, response: Response, start: Trial, price: float, tables: int) -> OperatingPoint:
        """The point near the trial `start` with the least cost under the model: loss + price x bytes.

        If the tables are a large part of a file's bytes, one table for all components is tried, too.
        """
        model = digest(response.weights), digest(response.ratio), response.exponent
        begin = start.point.subsampling, start.point.tables, start.loss, start.bytes
        name = key(self.dataset.identity, self.objective.headerless, model, begin, price, tables)
        cache = self.objective.cache
        if cache and (kept := cache.load(name)):
            return OperatingPoint.from_tables(kept["tables"].tolist(), subsampling=self.subsampling)
        best = self._descend(response, start, price, tables)
        if tables == 2 and not self.objective.headerless and 0.01 * start.bytes < _TABLE:
            best = min(best, self._descend(response, start, price, 1), key=lambda found: found[0])
        if cache:
            cache.save(name, {"tables": np.array(best[1].tables)})
        return best[1]

    def _descend(
        self, response: Response, start: Trial, price: float, tables: int, iterations: int = 3
    ) -> tuple[float, OperatingPoint]:
        """The cost and the point of steps that are optimal under the model, within the bound around `start`.

        Optimal means: for every step, the loss that a byte more saves is the price.
        """
        groups = {1: [[0, 1, 2]], 2: [[0], [1, 2]], 3: [[0], [1], [2]]}[tables]
        origin = _steps(start.point)
        if tables == 1:
            origin[1:] = origin[0]
        begun = self.cost(response, _steps(start.point)).sum()
        damage = response.damage(start.moved, start.lost)
        steps = origin.copy()

        def loss(sum_of_costs: float) -> float:
            changed = max(1 + (sum_of_costs - begun) / damage, 0.01)
            return start.loss * math.exp(response.exponent * math.log(changed))

        for _ in range(iterations):
            now = np.clip(np.rint(steps), 1, 255)
            up = np.minimum(np.maximum(np.rint(now * 1.2), now + 1), 255)
            costs = self.cost(response, now)
            added = self.cost(response, up) - costs
            slope = response.exponent * loss(costs.sum()) / (damage + costs.sum() - begun)
            size = self.bytes(now, tables)
            for group, k in itertools.product(groups, range(64)):
                self.check()
                trial = now.copy()
                trial[group, k] = up[group, k]
                saved = size - self.bytes(trial, tables) if up[group[0], k] > now[group[0], k] else 0
                lost = slope * added[group, k].sum()
                ratio = math.log(price * max(saved, 1e-6) / lost) if lost > 0 else 1.0
                steps[group, k] *= math.exp(min(max(0.5 * ratio, -0.3), 0.3))
            steps = np.clip(steps, origin * math.exp(-_TRUST), origin * math.exp(_TRUST))
        steps = np.clip(np.rint(steps), 1, 255)
        total = loss(self.cost(response, steps).sum()) + price * self.bytes(steps, tables)
        return total, _point(steps, self.subsampling, tables)
