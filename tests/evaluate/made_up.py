"""Codecs whose bytes and losses are known by formula, in place of measurements."""

from collections.abc import Callable, Collection
from math import exp, log

import numpy as np
from scipy.optimize import brentq

from dnnjpeg.evaluate.codecs import Codec
from dnnjpeg.evaluate.ladder import goodness
from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.networks.readings import Readings

Function = Callable[[float], float]


def size(quality: float) -> float:
    """From 2,066 to 56,063 bytes, 3.4 % more for each step of the quality."""
    return 2000 * exp(quality / 30)


def convex(size: float) -> float:
    """A divergence of so many bytes, that falls steeply at first; curved in log-log too."""
    x = log(size / 2000)
    return exp(1 - 0.9 * x - 0.25 * x * x)


def codec(name: str = "made up", whole: bool = True) -> Codec:
    return Codec(name, lambda picture, quality: b"", whole)


class MadeUp:
    """Measures by formula, one picture, and remembers what it was asked for.

    bytes_of: of a quality. divergence_of: of the bytes, by network, or of all.
    """

    def __init__(
        self, bytes_of: Function = size, divergence_of: Function | dict[str, Function] = convex
    ) -> None:
        self.bytes_of, self.divergence_of = bytes_of, divergence_of
        self.asked: list[tuple[float, str]] = []

    def __call__(self, codec: Codec, quality: float, networks: Collection[str]) -> Measurement:
        self.asked += [(quality, name) for name in networks]
        count = self.bytes_of(quality)
        one = np.array([count])
        return Measurement(
            codec.name,
            quality,
            one,
            one - 500,
            one * 0 + 30,
            {name: self.read(name, count) for name in networks},
        )

    def read(self, network: str, count: float) -> Readings:
        """Cross-entropy is the divergence and 0.9 nat."""
        of = self.divergence_of
        loss = of[network](count) if isinstance(of, dict) else of(count)
        no = np.zeros(1, np.bool_)
        return Readings(np.array([loss]), ~no, {"loss": np.array([0.9 + loss])})

    def bytes_at(self, target: float, metric: str = "divergence", network: str = "one") -> float:
        """The bytes in which a network reads so well: the truth."""

        def short(log_bytes: float) -> float:
            return goodness(self.read(network, exp(log_bytes)), metric) - target

        return exp(brentq(short, log(self.bytes_of(1)) - 1, log(self.bytes_of(100)) + 1, xtol=1e-9))
