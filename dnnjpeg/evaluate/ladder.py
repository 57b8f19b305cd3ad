"""Choose the qualities at which a codec is measured, so that its bytes at equal loss are known well
enough.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.evaluate.codecs import Codec
from dnnjpeg.evaluate.curves import Curve
from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.networks.readings import Readings

WIDTH = math.log(1.1)  # of the bytes of two neighbours
_ASIDE = 0.035  # distance of the next setting from the answer, in the logarithm of the bytes
_MOST = 20  # settings for one question
_ROUNDS = 3  # of all questions: a new setting for one question may change the answer to another
_FINEST = 0.1  # distance of qualities that need not be whole
_MARGIN = (
    0.25  # in the logarithm of the divergence: settings go this far beyond the targets, for the intervals
)

Measure = Callable[[Codec, float, Collection[str]], Measurement]


def goodness(read: Readings, metric: str, sign: int = -1) -> float:
    """The mean of a metric as goodness. See `shaped`."""
    return float(shaped(np.asarray(np.mean(getattr(read, metric))), metric, sign))


def shaped(values: NDArray[np.float64], metric: str, sign: int = -1) -> NDArray[np.float64]:
    """Means of a metric as goodness, which is nearly linear in log bytes: -log divergence, or the metric.

    sign: 1 if more of the metric is better, -1 if less is (`Task.scores`).
    """
    return -np.log(np.maximum(values, 1e-9)) if metric == "divergence" else sign * values


class Ladder:
    """The settings of one codec, measured when they are needed.

    measure: encodes all pictures at a quality, and runs some networks on the files.
    rate: "bytes" or "scan_bytes".
    on_reading: called after each measurement with the number of networks.
    """

    on_reading: Callable[[int], object] | None = None

    def __init__(self, codec: Codec, measure: Measure, rate: str = "bytes") -> None:
        self.codec, self._measure, self._rate = codec, measure, rate
        self._settings: dict[float, Measurement] = {}

    @property
    def settings(self) -> list[Measurement]:
        """All settings in the order of quality. Each was read by some of the networks."""
        return [self._settings[quality] for quality in sorted(self._settings)]

    def at(self, quality: float, networks: Iterable[str]) -> Measurement:
        """The setting of a quality, read at least by these networks."""
        known = self._settings.get(quality)
        missing = [name for name in networks if known is None or name not in known.readings]
        if missing:
            found = self._measure(self.codec, quality, missing)
            if self.on_reading is not None:
                self.on_reading(len(missing))
            both = found.readings if known is None else known.readings | found.readings
            self._settings[quality] = replace(found, readings=both)
        return self._settings[quality]

    def settle(self, network: str, metric: str, target: float, width: float = WIDTH, sign: int = -1) -> bool:
        """Add settings until the two settings around a goodness are close. Returns whether any was added.

        target: the goodness (see `shaped`).
        width: largest difference of the two settings, in the logarithms of bytes and entropy-coded data.
        sign: that of the metric (see `shaped`).

        There must be one setting already. New qualities come from interpolation, a little below or above the
        target by turns. After two of them, every third quality halves the interval. The search ends early at
        quality 1 or 100, or if no quality is left between two settings.
        """
        for turn in range(_MOST):
            quality = self._next(network, metric, target, width, sign, halve=turn % 3 == 2)
            if quality is None:
                return turn > 0
            self.at(quality, [network])
        return True

    def _next(
        self, network: str, metric: str, target: float, width: float, sign: int, halve: bool
    ) -> float | None:
        """The quality to measure next, or None if the settings are close enough."""
        read = sorted((one for one in self.settings if network in one.readings), key=self._bytes)
        values = np.array([[goodness(one.readings[network], metric, sign) for one in read]])
        curve = Curve(np.array([[self._bytes(one) for one in read]]), values)
        (log_bytes,), (rising,) = curve.rising
        above = int(np.sum(rising <= target))
        known = [one.quality for one in read]
        if above == 0:
            return self._beyond(min(known), -1)
        if above == len(read):
            return self._beyond(max(known), 1)
        worse, better = read[above - 1], read[above]
        low, high = log_bytes[above - 1], log_bytes[above]
        # headers have a fixed size, so for small pictures the bytes alone differ too little
        apart = max(high - low, _log_ratio(better.scan_bytes, worse.scan_bytes))
        if apart < width:
            return None
        place = float(curve.log_bytes_at(np.array([target]))[0])
        unit = (high - low) / apart
        wanted = place + unit * (-_ASIDE if place - low > high - place else _ASIDE)
        if halve or not low + 0.2 * unit * WIDTH < wanted < high - 0.2 * unit * WIDTH:
            wanted = (low + high) / 2
        guess = float(np.interp(wanted, [low, high], [worse.quality, better.quality]))
        return self._between(guess, worse.quality, better.quality, known)

    def _bytes(self, one: Measurement) -> float:
        return float(getattr(one, self._rate).mean())

    def _between(self, guess: float, one: float, other: float, known: Collection[float]) -> float | None:
        """The quality between two others that is nearest to the guess and not measured yet."""
        step, low, high = 1 if self.codec.whole else _FINEST, min(one, other), max(one, other)
        inside = (round(low + i * step, 1) for i in range(1, round((high - low) / step)))
        return min((x for x in inside if x not in known), key=lambda x: abs(x - guess), default=None)

    def _beyond(self, end: float, direction: int) -> float | None:
        """A quality beyond the lowest or the highest one, or None if there is none."""
        limit = 1.0 if direction < 0 else 100.0
        if end == limit:
            return None
        further = (end + limit) / 2 if direction > 0 else 0.6 * end
        quality = math.ceil(further) if direction > 0 else math.floor(further)
        return float(min(max(quality, 1), 100))


def _log_ratio(one: NDArray[np.int64] | None, other: NDArray[np.int64] | None) -> float:
    return 0.0 if one is None or other is None else math.log(one.mean() / other.mean())


def climb(
    ladders: Mapping[str, Ladder],
    readers: Mapping[str, Collection[str]],
    references: Sequence[str],
    qualities: Sequence[float],
    scores: Mapping[str, Mapping[str, int]],
) -> None:
    """Measure all that a report needs: each codec at the metrics of the first reference at its qualities.

    ladders: ladder of each codec.
    readers: names of the networks that read each codec's files.
    references: names of the references among the codecs.
    qualities: qualities of the first reference.
    scores: by network, the metrics besides the divergence that are settled, with their signs (`Task.scores`).
    """
    first = references[0]
    for quality in qualities:
        ladders[first].at(quality, readers[first])
    for codec, ladder in ladders.items():
        # a table's quality is compared with the same quality of the reference
        whole = float(math.floor(min(qualities))), float(math.ceil(max(qualities)))
        for quality in whole if ladder.codec.whole else qualities:
            ladder.at(quality, readers[codec])
        questions = []
        for network in readers[codec]:
            read = [ladders[first].at(quality, [network]).readings[network] for quality in qualities]
            for metric, sign in {"divergence": -1, **scores.get(network, {})}.items():
                targets = [goodness(one, metric, sign) for one in read]
                questions += [(network, metric, target, WIDTH, sign) for target in targets]
                if metric == "divergence":
                    ends = min(targets) - _MARGIN, max(targets) + _MARGIN
                    questions += [(network, metric, target, math.inf, sign) for target in ends]
        for _ in range(_ROUNDS):
            added = [ladder.settle(*question) for question in questions]
            if not any(added):
                break
