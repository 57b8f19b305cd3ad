"""From candidates to the points of a table.

Candidates are measured on real files. The best ones become points, and each point gets the quality of the
standard JPEG with the same loss. The best of many candidates is partly lucky with these pictures. So the
choice is repeated on four fifths of the pictures and tested on the last fifth: this shows how much is luck.
"""

import math
from bisect import bisect, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.learn.objective import Losses, Objective
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

QUALITIES = (5, 10, 20, 30, 40, 50, 65, 80, 90, 95)  # of the standard files on whose curve points are placed
CHECKED = (20, 35, 50, 65, 75, 85)  # where a table is compared with the standard table of the same quality

# From few chroma samples to many.
_BY_CHROMA = sorted(SUBSAMPLINGS, key=lambda one: -math.prod(SUBSAMPLINGS[one][0]))
_APART = 2  # in quality, of two points
_FOLDS = 5
_OFF = 0.03  # of the loss, at which a quality that is checked gets a point of its own


@dataclass(frozen=True)
class StandardCurve:
    """Bytes and loss of the standard table (4:2:0) by quality: the scale on which points are placed.

    Few pictures make the loss noisy. So neighbouring qualities are merged until the loss falls from each to
    the next (isotonic regression by pooling adjacent violators). Between qualities, the logarithms of loss
    and bytes are interpolated linearly. Qualities with a loss of 0 or less are left out.

    qualities: float64, ascending, 1..100, after merging.
    bytes: float64, mean bytes a picture.
    loss: float64, mean loss in nat.
    """

    qualities: NDArray[np.float64]
    bytes: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(
        cls, qualities: Sequence[float], sizes: Sequence[float], losses: Sequence[float]
    ) -> "StandardCurve":
        """Make the curve from mean bytes and mean losses at ascending qualities.

        Raises ValueError if the loss does not fall as the quality rises.
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
                "the loss on standard JPEG files does not fall as their quality rises: give more pictures, "
                "or a network that reads these"
            )
        merged, log_sizes, log_losses = np.array([np.mean(pool, axis=0) for pool in pools]).T
        return cls(merged, np.exp(log_sizes), np.exp(log_losses))

    def quality(self, loss: float) -> float | None:
        """The standard quality with this mean loss, or None outside the curve."""
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
        """The loss that one byte more saves at this quality, in nat a byte.

        It is the slope of a parabola that is fitted to the logarithms of loss and bytes. The difference
        between two neighbouring qualities would be mostly noise.
        """
        sizes, losses = np.log(self.bytes), np.log(self.loss)
        parabola = np.polynomial.Polynomial.fit(sizes, losses, min(2, len(sizes) - 1))
        size = np.log(self.bytes_at(quality))
        slope = min(float(parabola.deriv()(size)), -0.1)  # finer files lose less, whatever the noise
        return float(-slope * np.exp(parabola(size) - size))


class Selection:
    """Chooses the candidates that become points, and their qualities.

    candidates, measured: the candidates, and their losses.
    standard: losses of the standard table at QUALITIES, on the same pictures.

    curve: the StandardCurve of the standard files.
    luck: the chosen candidates lose less on these pictures than on other pictures, by this share of the loss;
        the mean over the chosen ones. In each of five folds, candidates are chosen at the same prices on the
        other four fifths of the pictures. On the last fifth, this choice costs more than the choice by all
        pictures. The difference is the luck.
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

        Points are candidates on the lower convex hull of mean bytes and mean loss. They take fewer bytes than
        the standard table at equal loss. Their loss is the measured one plus the luck. A candidate outside
        the curve is left out. If two candidates are less than 2 apart in quality, the one that saves more
        stays. Raises ValueError if no candidate is left.
        """
        kept: list[tuple[OperatingPoint, float]] = []  # with their shares of the standard table's bytes
        for i in self._prices:
            found = self._placed(self.candidates[i], self.measured[i])
            if found is None or found[1] >= 1:
                continue
            if kept and found[0].quality - kept[-1][0].quality < _APART:
                found = min(kept.pop(), found, key=itemgetter(1))
            kept.append(found)
        if not kept:
            raise ValueError(
                f"none of {len(self.candidates)} candidates takes fewer bytes than the standard table at "
                "equal loss: learn from more pictures, or at lower qualities"
            )
        return tuple(point for point, _ in kept)

    def between(
        self, points: Sequence[OperatingPoint], checked: Sequence[tuple[OperatingPoint, Losses]]
    ) -> Iterator[OperatingPoint]:
        """Find further points, where a quality between two points has not the standard table's loss.

        checked: points that the table interpolates between its own, and their losses. If the loss of such a
            point differs from the standard table's at this quality by more than 3 %, the point is added, with
            the quality that belongs to its loss. The luck counts here, too.
        """
        taken = [point.quality for point in points]
        for point, one in checked:
            placed = self._placed(point, one)
            if placed is None or abs(self._expected(one) / self.curve.loss_at(point.quality) - 1) <= _OFF:
                continue
            found, _ = placed
            if bisect(taken, found.quality) != bisect(taken, point.quality):
                continue  # beyond a neighbour
            if min(abs(found.quality - quality) for quality in taken) >= _APART:
                insort(taken, found.quality)
                yield found

    def _switch_once(self) -> list[int]:
        """Choose candidates so that chroma never becomes coarser as quality rises.

        Each subsampling gets a range of bytes, and its candidates in this range are chosen. The ranges are
        those that cost least over all prices.
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
        """Indices of the candidates on the hull that are better than the standard table, each with its price.

        At this price of a byte, the candidate is the best. It is the standard table's price at the
        candidate's quality, limited by the slopes to the neighbours on the hull.
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
        """The mean loss expected on other pictures."""
        return float(one.loss.mean()) * (1 + self.luck)

    def _placed(self, point: OperatingPoint, one: Losses) -> tuple[OperatingPoint, float] | None:
        """The point with its quality, rounded; and its bytes, as a share of the standard table's at equal
        loss. None outside the curve.
        """
        quality = self.curve.quality(self._expected(one))
        if quality is None:
            return None
        placed = replace(point, quality=round(quality, 1), measured=one.record())
        return placed, float(one.bytes.mean()) / self.curve.bytes_at(quality)


def check(table: Table, objective: Objective) -> dict[str, dict[str, float]]:
    """Compare a table with the standard table, at the qualities CHECKED.

    Returns the ratio of the mean losses by network and quality. A ratio of 1 is what `quality` promises.
    """
    found: dict[str, dict[str, float]] = {}
    for quality in CHECKED:
        ours, standard = (objective.measure(one.at(quality)) for one in (table, standard_table()))
        for name, loss in ours.losses.items():
            usual = float(standard.losses[name].mean())
            if usual > 0:  # else there is no ratio
                found.setdefault(name, {})[f"{quality}"] = round(float(loss.mean()) / usual, 3)
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
