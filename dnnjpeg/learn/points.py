"""From candidates to the points of a table: measured on real files, the best of them kept, each with the
quality of the standard JPEG that loses as much.

Choosing and placing are cross-fitted: the best of many candidates owes something to luck with these pictures,
and what is chosen on four fifths of them shows on the last fifth how much.
"""

import math
from bisect import bisect, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, pairwise

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.learn.objective import Losses, Objective
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

QUALITIES = (5, 10, 20, 30, 40, 50, 65, 80, 90, 95)  # of the standard files on whose curve points are placed
CHECKED = (20, 35, 50, 65, 75, 85)  # where a table's qualities are held to what they say

_BY_CHROMA = sorted(
    SUBSAMPLINGS, key=lambda one: -math.prod(SUBSAMPLINGS[one][0])
)  # from few samples to many
_APART = 2  # in quality, of two points
_FOLDS = 5
_OFF = 0.03  # of the loss, at which a quality that is checked gets a point of its own


@dataclass(frozen=True)
class StandardCurve:
    """What the standard table, 4:2:0, costs and loses by quality: the scale on which points are placed.

    Qualities are merged until the loss falls from each to the next, as it would without the noise of few
    pictures (isotonic regression by pooling adjacent violators). Interpolation is linear in quality, of the
    logarithms of the loss and of the bytes. Qualities that lose nothing are left out.

    qualities, bytes, loss: float64, of the merged qualities in ascending order; bytes and loss are means.
    """

    qualities: NDArray[np.float64]
    bytes: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(
        cls, qualities: Sequence[float], sizes: Sequence[float], losses: Sequence[float]
    ) -> "StandardCurve":
        """From the means of the standard table at these qualities, in ascending order.

        Raises ValueError where the loss does not fall with quality at all.
        """
        pools: list[list[tuple[float, float, float]]] = []
        for quality, size, lost in zip(qualities, sizes, losses, strict=True):
            if lost <= 0:
                continue
            pools.append([(quality, float(np.log(size)), float(np.log(lost)))])
            while len(pools) > 1 and np.mean(pools[-1], axis=0)[2] >= np.mean(pools[-2], axis=0)[2] - 1e-12:
                last = pools.pop()
                pools[-1] += last
        if len(pools) < 2:
            raise ValueError(
                "the loss on standard JPEG files does not fall with their quality: too few pictures, or a "
                "network that does not read them"
            )
        merged, log_sizes, log_losses = np.array([np.mean(pool, axis=0) for pool in pools]).T
        return cls(merged, np.exp(log_sizes), np.exp(log_losses))

    def quality(self, loss: float) -> float | None:
        """The standard quality with this mean loss; None outside the curve."""
        if not self.loss[-1] <= loss <= self.loss[0]:
            return None
        return float(np.interp(-np.log(loss), -np.log(self.loss), self.qualities))

    def loss_at(self, quality: float) -> float:
        """Mean loss of a standard file of this quality."""
        return float(np.exp(np.interp(quality, self.qualities, np.log(self.loss))))

    def bytes_at(self, quality: float) -> float:
        """Mean bytes of a standard file of this quality."""
        return float(np.exp(np.interp(quality, self.qualities, np.log(self.bytes))))

    def price(self, quality: float) -> float:
        """Loss that one byte more takes away there, in nat a byte: by a parabola through the logarithms of
        loss and bytes, for the difference of two settings is mostly noise.
        """
        sizes, losses = np.log(self.bytes), np.log(self.loss)
        parabola = np.polynomial.Polynomial.fit(sizes, losses, min(2, len(sizes) - 1))
        size = np.log(self.bytes_at(quality))
        slope = min(float(parabola.deriv()(size)), -0.1)  # finer files lose less, whatever the noise
        return float(-slope * np.exp(parabola(size) - size))


class Selection:
    """Candidates and standard files, measured on the same pictures: which become points, and where.

    standard: the standard table at QUALITIES.

    curve: of the standard files.
    luck: by what share those chosen lose less on these pictures than on others, for which they were not
        chosen: the mean over them. In five folds, the choice at the same price by the other four fifths of
        the pictures is made to pay on the fifth, where it costs more than what all pictures choose.
    """

    def __init__(
        self,
        candidates: Sequence[OperatingPoint],
        measured: Sequence[Losses],
        standard: Sequence[Losses],
    ) -> None:
        self.candidates, self.measured = candidates, measured
        means = [(one.bytes.mean(), one.loss.mean()) for one in standard]
        self.curve = StandardCurve.of(QUALITIES, *zip(*means, strict=True))
        self._bytes = np.array([one.bytes for one in measured], np.float64)  # candidates x pictures
        self._loss = np.array([one.loss for one in measured])
        self._steady = self._switch_once()
        self._prices = self._choose()
        self.luck = self._expect_luck()

    def points(self) -> tuple[OperatingPoint, ...]:
        """The points of a table, sorted by rate, with their `quality` and `measured`.

        They are the candidates on the lower convex hull of mean bytes and mean loss that take fewer bytes
        than the standard table at equal loss; their loss is the one measured and what was luck. Candidates
        beyond the curve have no quality, and of two less than 2 apart the one that saves more stays. Raises
        ValueError where none is left.
        """
        kept: list[OperatingPoint] = []
        for i in self._prices:
            point = self._placed(self.candidates[i], self.measured[i])
            if point is None or self._share(point) >= 1:
                continue
            if kept and point.quality - kept[-1].quality < _APART:
                point = min(kept.pop(), point, key=self._share)
            kept.append(point)
        if not kept:
            raise ValueError(
                f"none of {len(self.candidates)} candidates takes fewer bytes than the standard table at "
                "equal loss: learn from more pictures, or at qualities where the network loses more"
            )
        return tuple(kept)

    def between(
        self, points: Sequence[OperatingPoint], checked: Sequence[tuple[OperatingPoint, Losses]]
    ) -> Iterator[OperatingPoint]:
        """Points that make the qualities between a table's points mean what they say.

        checked: what the table has at qualities between its points, and how it measured; it shares the luck
            of these. Where its loss is more than 3 % off the standard table's at that quality, it becomes a
            point, of the quality that it truly has.
        """
        taken = [point.quality for point in points]
        for point, one in checked:
            found = self._placed(point, one)
            if found is None or abs(self._expected(one) / self.curve.loss_at(point.quality) - 1) <= _OFF:
                continue
            if bisect(taken, found.quality) != bisect(taken, point.quality):
                continue  # beyond a neighbour
            if min(abs(found.quality - quality) for quality in taken) >= _APART:
                insort(taken, found.quality)
                yield found

    def _switch_once(self) -> list[int]:
        """Candidates of which no table goes back to coarser chroma as its quality rises: of each subsampling
        those within a range of bytes, the ranges being such that all prices together cost least.
        """
        qualities = [q for q in QUALITIES if self.curve.qualities[0] <= q <= self.curve.qualities[-1]]
        prices = np.array([self.curve.price(quality) for quality in qualities])
        size, loss = self._bytes.mean(1), self._loss.mean(1)
        cost = np.log(np.maximum(loss, 1e-12)[:, None] + prices * size[:, None])
        kinds = [one for one in _BY_CHROMA if any(point.subsampling == one for point in self.candidates)]
        kind = np.array([kinds.index(point.subsampling) for point in self.candidates])

        def allowed(cuts: Sequence[float]) -> NDArray[np.bool_]:
            borders = np.array([-math.inf, *cuts, math.inf])
            return (borders[kind] <= size) & (size < borders[kind + 1])

        borders = [-math.inf, *np.unique(size).tolist(), math.inf]
        ways = filter(np.any, map(allowed, combinations_with_replacement(borders, len(kinds) - 1)))
        best = min(ways, key=lambda way: float(cost[way].min(0).sum()))
        return np.flatnonzero(best).tolist()

    def _choose(self) -> dict[int, float]:
        """Candidates on the hull that are better than the standard table, and the price of a byte at which
        each is the best: that of the standard table, as far as the neighbours on the hull allow.
        """
        places = list(zip(self._bytes.mean(1).tolist(), self._loss.mean(1).tolist(), strict=True))
        corners = [self._steady[i] for i in _hull([places[i] for i in self._steady])]
        slopes = [(places[i][1] - places[j][1]) / (places[j][0] - places[i][0]) for i, j in pairwise(corners)]
        found = {}
        for i, most, least in zip(corners, [math.inf, *slopes], [*slopes, 0.0], strict=True):
            size, loss = places[i]
            quality = self.curve.quality(loss)
            if quality is not None and size < self.curve.bytes_at(quality):
                found[i] = min(max(self.curve.price(quality), least), most)
        return found

    def _expect_luck(self) -> float:
        count = self._loss.shape[1]
        fold = np.random.default_rng(0).permutation(count) % _FOLDS
        shares = []
        for i, price in self._prices.items():
            cost = self._loss + price * self._bytes
            cost[~np.isin(np.arange(len(cost)), self._steady)] = np.inf
            best = np.array([cost[:, fold != number].sum(1).argmin() for number in range(_FOLDS)])
            paid = cost[best[fold], np.arange(count)]
            shares.append(float((paid - cost[i]).sum() / self._loss[i].sum()))
        return sum(shares) / len(shares) if shares else 0.0

    def _expected(self, one: Losses) -> float:
        """The mean loss on other pictures."""
        return float(one.loss.mean()) * (1 + self.luck)

    def _placed(self, point: OperatingPoint, one: Losses) -> OperatingPoint | None:
        quality = self.curve.quality(self._expected(one))
        return None if quality is None else replace(point, quality=round(quality, 1), measured=one.record())

    def _share(self, point: OperatingPoint) -> float:
        """Of the bytes that the standard table takes at equal loss."""
        assert point.measured is not None
        return float(point.measured["bytes"]) / self.curve.bytes_at(point.quality)


def check(table: Table, objective: Objective) -> dict[str, dict[str, float]]:
    """By network and checked quality: the mean loss at that quality of the table, in parts of the standard
    table's. 1 is what a quality promises.
    """
    found: dict[str, dict[str, float]] = {}
    for quality in CHECKED:
        ours, standard = (objective.measure(one.at(quality)) for one in (table, standard_table()))
        for name, loss in ours.losses.items():
            ratio = float(loss.mean() / standard.losses[name].mean())
            found.setdefault(name, {})[f"{quality}"] = round(ratio, 3)
    return found


def _hull(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the corners of the lower convex hull, from the fewest bytes to the least loss."""
    corners: list[int] = []
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        x, y = places[i]
        if corners and y >= places[corners[-1]][1]:
            continue  # costs more and loses no less
        while len(corners) > 1:
            (x0, y0), (x1, y1) = (places[j] for j in corners[-2:])
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break  # a corner below the line from its neighbour to here
            corners.pop()
        corners.append(i)
    return corners
