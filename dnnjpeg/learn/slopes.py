"""Tables from slopes: what damage and bytes come with each step, measured around the tables themselves.

Where tables are best, a byte more takes away as much damage in one frequency as in any other. So the steps of
a trial are made finer and coarser by one factor, and the networks' loss midway is differentiated. Its
gradient times the difference, summed by frequency, is what each frequency adds to the change of the loss.
All of them together are that change, to second order. Networks without gradients read groups of frequencies
finer and coarser in place of that (`dnnjpeg.learn.differences`). A gradient at the tables themselves would
miss that errors grow, and clean pictures are felt differently. Bytes are those of real files, one step
changed at a time. `SmoothTables` draws from this where the best steps are, and there the next round measures.
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
from numpy.typing import NDArray

from dnnjpeg.files.cache import digest, key
from dnnjpeg.learn.differences import PICTURES, damage_by_differences
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.smooth import Field, Slope, SmoothTables, coordinate
from dnnjpeg.soft.jpeg import from_coefficients, to_coefficients
from dnnjpeg.table.point import OperatingPoint

_ROUNDS = 3
_ANCHORS = 5  # qualities at which slopes are measured, between the least and the greatest that are asked for
_WIDE = 1.7  # factor by which steps are coarser or finer where networks read
_NARROW = 1.25  # and where bytes are counted
_PIXELS = 7_000_000  # of the pictures of a trial, of which there are at least 48
_COUNTED = 1_200_000  # of those in which bytes are counted, 12 to 48
_TABLE = 65  # bytes that a quantization table takes
_WORTH = 0.01  # of a file: where a table takes more, one for all components is a candidate too
_WIDEST = 1.25  # bins, in steps
_DOUBT = 30  # indices of 1 that speak for a bin width of 1


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
    """Candidates near standard files of these qualities, for each of the subsamplings.

    Of several networks each counts by its share of its own loss.

    objective: with a cache, slopes that were measured before cost nothing, and an interrupted run goes on.
    tables: 2 (Cb and Cr share one, and for small files all three may) or 3.
    deadline: of `time.monotonic`. A trial that would probably end later is not begun.
    on_trial: called after each of `most_trials`, with its mean loss and bytes a picture.

    Raises ValueError where networks do not see the damage, and where the deadline leaves no time for a trial
    of each subsampling.
    """
    bench = _Bench(objective, tables, seed)
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
    """How many trials `learn` makes at so many subsamplings, given the time."""
    return _ROUNDS * _ANCHORS * subsamplings


def most_candidates(qualities: int, subsamplings: int) -> int:
    """How many candidates `learn` finds at most."""
    return 2 * qualities * subsamplings


def _anchors(qualities: Sequence[float], number: int) -> list[float]:
    """x of the trials of a round; rounds lie between one another."""
    first, last = coordinate(max(qualities)), coordinate(min(qualities))
    shares = (np.arange(_ANCHORS) + (0.5, 0.2, 0.8)[number % 3]) / _ANCHORS
    return (first + shares * (last - first)).tolist()


def _tied(log_steps: Field, slope: Slope) -> Field:
    """One table for all: between the best of luma and of chroma, by their bytes."""
    weights = np.maximum(slope.bytes, 1e-3 * slope.bytes.mean())
    return np.repeat([(weights * log_steps).sum(0) / weights.sum(0)], len(log_steps), axis=0)


def as_point(log_steps: Field, subsampling: str) -> OperatingPoint:
    """The steps of these logarithms, tables x 64, as a file holds them."""
    rows = np.clip(np.rint(np.exp(np.minimum(log_steps, 6))), 1, 255).astype(int)
    return OperatingPoint.from_tables(rows.tolist(), subsampling=subsampling)


class _LateError(Exception):
    """There is no time for another trial."""


class _Clock:
    """Ends a search in time: a trial is expected to take as long as the longest before it."""

    def __init__(self, deadline: float) -> None:
        self._deadline, self._longest = deadline, 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.monotonic()
        if start + self._longest > self._deadline:
            raise _LateError
        yield
        self._longest = max(self._longest, time.monotonic() - start)


class _Bench:
    """Measures slopes, each trial on pictures of its own as far as there are enough."""

    def __init__(self, objective: Objective, tables: int, seed: int) -> None:
        self.objective, self.tables, self.seed = objective, tables, seed
        self.count = min(max(round(_PIXELS / objective.dataset.pixels), 48), len(objective))
        if not all(network.is_differentiable for network in objective.networks):
            self.count = min(self.count, PICTURES)
        self.counted = min(max(round(_COUNTED / objective.dataset.pixels), 12), 48, self.count)
        self.trials = 0
        some = np.unique(np.linspace(0, len(objective) - 1, self.counted).round().astype(np.int64))
        planes = [to_coefficients(pixels)[0].reshape(-1, 64) for _, pixels in objective.groups(some)]
        self.luma = torch.cat(planes).cpu().numpy()
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def measure(self, log_steps: Field, x: float, subsampling: str) -> tuple[Slope, float, float]:
        """The slope at a point, its mean loss and its bytes."""
        index = self._draw()
        cache, networks = self.objective.cache, self.objective.networks
        identities = [(network.identity, network.task.identity) for network in networks]
        facts = self.objective.loss, self.objective.headerless, subsampling, digest(log_steps.round(6))
        name = key("slopes", self.objective.dataset.identity, identities, facts, digest(index))
        kept = cache.load(name) if cache else {}
        if not kept:
            damage, loss = self._damage(np.exp(log_steps), subsampling, index)
            counted = index[np.linspace(0, len(index) - 1, self.counted).round().astype(int)]
            kept = {"damage": damage, "loss": loss, **self._bytes(as_point(log_steps, subsampling), counted)}
            if cache:
                cache.save(name, kept)
        share, variance = _shares(kept["damage"])
        slope = Slope(x, log_steps, share, variance, kept["saved"])
        return slope, float(kept["loss"].mean()), float(kept["size"])

    def with_bin_width(self, point: OperatingPoint) -> OperatingPoint:
        """The point with luma bins of which the steps are the means: what coefficients decode to is nearest
        to what they were. Most of an index 1 were below the step; fewer of them are in wider bins.
        """
        z = self.luma / np.array(point.luma)
        index = np.rint(z)
        width = (np.square(index).sum(0) + _DOUBT) / ((index * z).sum(0) + _DOUBT)
        luma = np.clip(width, 1, _WIDEST).round(2).tolist()
        return replace(point, bin_width=(tuple(luma), *(1,) * len(point.chroma)))

    def _draw(self) -> NDArray[np.int64]:
        """The next pictures of random orders of all, one order after the other."""
        first, total = self.trials * self.count, len(self.objective)
        self.trials += 1
        rounds = range(first // total, (first + self.count - 1) // total + 1)
        orders = [np.random.default_rng([self.seed, number]).permutation(total) for number in rounds]
        return np.unique(np.concatenate(orders)[first - rounds[0] * total :][: self.count])

    def _damage(
        self, steps: Field, subsampling: str, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """By network and picture, what each frequency adds to the loss between the finer and the coarser
        steps, networks x N x tables x 64; and the loss midway, networks x N.
        """
        networks = range(len(self.objective.networks))
        damage = np.zeros((len(networks), len(index), self.tables, 64), np.float32)
        losses = np.zeros((len(networks), len(index)), np.float32)
        by_channel = torch.tensor(_by_channel(steps), dtype=torch.float32, device=self.objective.device)
        for numbers, pixels in self.objective.groups(index):
            height, width = pixels.shape[-2:]
            planes = to_coefficients(pixels, subsampling)
            fine, coarse = (
                [q * torch.round(z / q) for z, q in zip(planes, by_channel * factor, strict=True)]
                for factor in (1 / _WIDE, _WIDE)
            )
            middle = [((a + b) / 2).requires_grad_() for a, b in zip(fine, coarse, strict=True)]
            decoded = from_coefficients(middle, height, width, subsampling)
            rows = np.searchsorted(index, numbers)
            for which in networks:
                if not self.objective.networks[which].is_differentiable:
                    loss_midway, parts_of = damage_by_differences(
                        self.objective,
                        which,
                        numbers,
                        [plane.detach() for plane in middle],
                        [b - a for a, b in zip(fine, coarse, strict=True)],
                        (height, width),
                        subsampling,
                        self.tables,
                    )
                    losses[which, rows], damage[which, rows] = loss_midway, parts_of
                    continue
                loss, gradient = self.objective.gradient(decoded.detach(), numbers, which)
                parts = torch.autograd.grad(decoded, middle, gradient, retain_graph=True)
                for c, part in enumerate(parts):
                    change = (part * (coarse[c] - fine[c])).sum(1)
                    damage[which, rows, min(c, self.tables - 1)] += change.cpu().numpy()
                losses[which, rows] = loss.cpu().numpy()
        return damage, losses

    def _bytes(self, point: OperatingPoint, index: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """saved: by table and frequency, the share of a file's bytes that go as the logarithm of a step grows
        by one; size: mean bytes.
        """
        pictures = self.objective.dataset.take(index).pictures
        tables = np.array(point.tables)[: self.tables]

        def sizes(steps: NDArray[np.int64]) -> NDArray[np.float64]:
            write = partial(self.objective.size, _replaced(point, steps))
            return np.array(list(self.pool.map(write, pictures)), np.float64)

        now = sizes(tables)
        saved = np.zeros(tables.shape)
        for place in np.ndindex(*tables.shape):
            step = int(tables[place])
            low = max(round(step / _NARROW), 1)
            high = min(max(round(step * _NARROW), low + 1), 255)
            if low == high:
                continue
            ends = []
            for end in (low, high):
                changed = tables.copy()
                changed[place] = end
                ends.append(sizes(changed))
            saved[place] = float(((ends[0] - ends[1]) / now).mean()) / math.log(high / low)
        return {"saved": np.maximum(saved, 0), "size": now.mean()}


def _replaced(point: OperatingPoint, steps: NDArray[np.int64]) -> OperatingPoint:
    luma, *chroma = (tuple(map(int, row)) for row in steps)
    return replace(point, luma=luma, chroma=tuple(chroma))


def _by_channel(steps: Field) -> Field:
    return steps if len(steps) == 3 else steps[[0, 1, 1]]


def _shares(damage: NDArray[np.float32]) -> tuple[Field, Field]:
    """The share of each table and frequency in the damage, the mean of the networks, and its variance.

    A few pictures lose much, in one way or the other by chance: each counts the less, the more it loses.
    Raises ValueError where coarser steps do not hurt a network.
    """
    share, variance = np.zeros((2, *damage.shape[2:]))
    for one in damage.astype(np.float64):
        size = np.sqrt(np.square(one).sum((1, 2)))
        weighted = one / (size.mean() / 2 + size + 1e-12)[:, None, None]
        total = weighted.mean(0).sum()
        if not total > 0:
            raise ValueError(
                "the networks do not see the difference between fine and coarse steps: too few pictures, or "
                "networks that do not read them"
            )
        share += weighted.mean(0) / total / len(damage)
        variance += weighted.var(0) / len(one) / (total * len(damage)) ** 2
    return share, variance
