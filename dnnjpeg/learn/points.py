"""From candidates to the points of a table: measured on real files of held-out pictures, the best of them
kept, each with the quality of the standard JPEG that loses as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.learn.objective import Measurement, Objective
from dnnjpeg.point import OperatingPoint
from dnnjpeg.table import standard_table

_APART = 2  # in quality, of two points

QUALITIES = (5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 95)


@dataclass(frozen=True)
class StandardCurve:
    """What the standard table, 4:2:0, costs and loses by quality: the scale on which points are placed.

    Qualities are merged until the loss falls from each to the next, as it would without the noise of few
    pictures (isotonic regression by pooling adjacent violators). Interpolation is linear in quality, of the
    loss and of the logarithm of the bytes.

    qualities, bytes, loss: float64, of the merged qualities in ascending order; bytes and loss are means.
    """

    qualities: NDArray[np.float64]
    bytes: NDArray[np.float64]
    loss: NDArray[np.float64]

    @classmethod
    def of(cls, qualities: Sequence[float], measured: Sequence[Measurement]) -> "StandardCurve":
        """From measurements of the standard table at these qualities, in ascending order.

        Raises ValueError where the loss does not fall with quality at all.
        """
        pools: list[list[tuple[float, float, float]]] = []
        for quality, one in zip(qualities, measured, strict=True):
            pools.append([(quality, float(np.log(one.bytes.mean())), float(one.loss.mean()))])
            while len(pools) > 1 and np.mean(pools[-1], axis=0)[2] >= np.mean(pools[-2], axis=0)[2]:
                last = pools.pop()
                pools[-1] += last
        if len(pools) < 2:
            raise ValueError(
                "the loss on standard JPEG files does not fall with their quality: too few pictures, or a "
                "network that does not read them"
            )
        merged, sizes, loss = np.array([np.mean(pool, axis=0) for pool in pools]).T
        return cls(merged, np.exp(sizes), loss)

    def quality(self, loss: float) -> float | None:
        """The standard quality with this mean loss; None outside the curve."""
        if not self.loss[-1] <= loss <= self.loss[0]:
            return None
        return float(np.interp(-loss, -self.loss, self.qualities))

    def bytes_at(self, quality: float) -> float:
        """Mean bytes of a standard file of this quality."""
        return float(np.exp(np.interp(quality, self.qualities, np.log(self.bytes))))

    def price(self, quality: float) -> float:
        """Loss that one byte more takes away there, in nat a byte: the slope of the curve."""
        below = np.clip(np.searchsorted(self.qualities, quality), 1, len(self.qualities) - 1)
        loss, size = (np.diff(values[below - 1 : below + 1])[0] for values in (self.loss, self.bytes))
        return float(-loss / size)


def measure_standard(objective: Objective, quality: float) -> Measurement:
    """The standard table, 4:2:0, in the same encoder."""
    return objective.measure(standard_table().at(quality))


def select(
    candidates: Sequence[OperatingPoint], measured: Sequence[Measurement], curve: StandardCurve
) -> tuple[OperatingPoint, ...]:
    """The points of a table: the candidates, whatever their subsampling, that lie on the lower convex hull of
    mean bytes and mean loss and take fewer bytes than the standard table at equal loss; sorted by rate, with
    their `quality` and `measured`.

    Candidates beyond the curve have no quality, and of two less than 2 apart the one that saves more stays.
    Raises ValueError where none is left.
    """
    records = [one.record() for one in measured]
    kept: list[OperatingPoint] = []
    for i in _hull([(record["bytes"], record["loss"]) for record in records]):
        quality = curve.quality(records[i]["loss"])
        if quality is None or records[i]["bytes"] >= curve.bytes_at(quality):
            continue
        point = replace(candidates[i], quality=round(quality, 1), measured=records[i])
        if kept and point.quality - kept[-1].quality < _APART:
            point = min(kept.pop(), point, key=lambda one: _share(one, curve))
        kept.append(point)
    if not kept:
        raise ValueError(
            f"none of {len(candidates)} candidates takes fewer bytes than the standard table at equal loss: "
            "learn from more pictures, or at qualities where the network loses more"
        )
    return tuple(kept)


def _share(point: OperatingPoint, curve: StandardCurve) -> float:
    """Of the bytes that the standard table takes at equal loss."""
    assert point.measured is not None
    return float(point.measured["bytes"]) / curve.bytes_at(point.quality)


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
