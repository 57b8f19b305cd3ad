"""An evaluation as a JSON document: all settings, and all codecs compared with the references."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dnnjpeg.evaluate.curves import Curve, log_ratio, mean_log_ratio, per_cent
from dnnjpeg.evaluate.ladder import shaped
from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.evaluate.statistics import Estimate, Samples, means
from dnnjpeg.networks.readings import Readings


@dataclass(frozen=True)
class _Setting:
    quality: float
    own: dict[str, Samples]  # bytes, scan_bytes (if JPEG), psnr
    networks: dict[str, dict[str, Samples]]  # metrics by network


Settings = Mapping[str, Sequence[_Setting]]


def report(
    measurements: Mapping[str, Sequence[Measurement]],
    originals: Mapping[str, Readings],
    references: Sequence[str],
    qualities: Sequence[float],
    *,
    pixels: float,
    scores: Mapping[str, Mapping[str, int]],
    headerless: bool,
) -> dict[str, Any]:
    """Make the report of an evaluation, as a JSON object.

    measurements: settings of each codec, including the references. A setting may be read by some networks
        only.
    originals: readings of the originals by each network.
    references: names of the codecs to compare with.
    qualities: qualities of the first reference at which codecs are compared. Each must be among its settings.
    pixels: mean number of pixels of a picture.
    scores: by network, the metrics with labels at which codecs are compared, with their signs
        (`Task.scores`). Empty without labels.
    headerless: compare entropy-coded data in place of whole files.

    An estimate is {value, low, high}, with a 95 % interval. null means: beyond the measured settings.

    - `clean`: estimates for each network on the originals: divergence, which is the distance of the network's
      task (of classifiers in nat), the metrics of its task (of classifiers loss, the cross-entropy in nat,
      top1 and top5, 0..1) and agreement with the originals, 0..1.
    - `settings`: means for each codec and quality: bytes, scan_bytes (entropy-coded data; null if not JPEG),
      bits_per_pixel, psnr (dB), and `networks` with the fields of `clean`.
    - `comparisons`: a row for each metric (divergence, and those of `scores`), codec, reference and network.
      `bd_rate` is the mean change of bytes at equal metric, in %. `points` has an entry for each
      quality of the first reference: the reference's metric; the codec's bytes at this metric; their change
      from the reference's (bytes_change, %); the change of the metric at the point's bytes (metric_change).
      If several networks read both codecs, a row with the network null has the mean of their bytes_change
      (the geometric mean of the ratios), and the `worst` with its network.
    - `nominal`: for each codec, network and quality, the codec's divergence divided by that of the first
      reference at the same quality.

    Raises ValueError if `headerless` meets a codec that is not JPEG.
    """
    for name, some in measurements.items():
        if headerless and any(one.scan_bytes is None for one in some):
            raise ValueError(f"{name} writes no JPEG, which headerless needs: leave out one of them")
    settings = {name: [_setting(one) for one in some] for name, some in measurements.items()}
    rate = "scan_bytes" if headerless else "bytes"
    signs = {"divergence": -1, **{key: sign for own in scores.values() for key, sign in own.items()}}
    having = {
        metric: [name for name in originals if metric == "divergence" or metric in scores[name]]
        for metric in signs
    }
    pairs = [(name, reference) for reference in references for name in settings if name != reference]
    return {
        "rate": rate,
        "clean": {name: _estimates(_samples(_values(read))) for name, read in originals.items()},
        "settings": [
            {
                "codec": name,
                "quality": one.quality,
                "scan_bytes": None,
                **_estimates(one.own),
                "bits_per_pixel": 8 * float(one.own["bytes"][0]) / pixels,
                "networks": {network: _estimates(samples) for network, samples in one.networks.items()},
            }
            for name, some in settings.items()
            for one in some
        ],
        "comparisons": [
            row
            for metric, sign in signs.items()
            for row in _Comparison(settings, references[0], qualities, rate, metric, sign).rows(
                pairs, having[metric]
            )
        ],
        "nominal": list(_nominal(settings, references[0], qualities)),
    }


def _values(read: Readings) -> dict[str, ArrayLike]:
    return {"divergence": read.divergence, **read.metrics, "agreement": read.agrees}


def _samples(values: Mapping[str, ArrayLike]) -> dict[str, Samples]:
    return dict(zip(values, means(values.values()).T, strict=True))


def _setting(one: Measurement) -> _Setting:
    sizes = {"bytes": one.bytes} | ({} if one.scan_bytes is None else {"scan_bytes": one.scan_bytes})
    networks = {name: _samples(_values(read)) for name, read in one.readings.items()}
    return _Setting(one.quality, _samples({**sizes, "psnr": one.psnr}), networks)


@dataclass(frozen=True)
class _Comparison:
    """Compares codecs at the metric of the first reference at given qualities."""

    settings: Settings
    anchor: str
    qualities: Sequence[float]
    rate: str
    metric: str
    sign: int

    def rows(self, pairs: Sequence[tuple[str, str]], networks: Sequence[str]) -> Iterator[dict[str, Any]]:
        for name, reference in pairs:
            both = [one for one in networks if self._read(name, one) and self._read(reference, one)]
            changes = {}
            for network in both:
                row, changes[network] = self._row(name, reference, network)
                yield row
            if len(both) > 1:
                yield self._mean(name, reference, changes)

    def _read(self, codec: str, network: str) -> list[_Setting]:
        return [one for one in self.settings[codec] if network in one.networks]

    def _curve(self, codec: str, network: str) -> Curve:
        read = self._read(codec, network)
        return Curve(
            np.stack([one.own[self.rate] for one in read], axis=1),
            np.stack([self._goodness(one, network) for one in read], axis=1),
        )

    def _goodness(self, one: _Setting, network: str) -> Samples:
        return shaped(one.networks[network][self.metric], self.metric, self.sign)

    def _row(self, codec: str, reference: str, network: str) -> tuple[dict[str, Any], list[Samples]]:
        """A row of `comparisons`, and the logarithms of its ratios of bytes for each quality."""
        curve, other, anchor = (self._curve(name, network) for name in (codec, reference, self.anchor))
        points, ratios = [], []
        for one in self._read(self.anchor, network):
            if one.quality not in self.qualities:
                continue
            target, log_bytes = anchor.within(self._goodness(one, network)), np.log(one.own[self.rate])
            ratios.append(log_ratio(curve, other, target))
            with np.errstate(invalid="ignore"):
                there, here = (self._natural(each.goodness_at(log_bytes)) for each in (curve, other))
                change = there - here
            points.append(
                {
                    "quality": one.quality,
                    self.metric: _estimate(self._natural(target)),
                    self.rate: _estimate(_exp(curve.log_bytes_at(target))),
                    "bytes_change": _estimate(per_cent(ratios[-1])),
                    "metric_change": _estimate(change),
                }
            )
        row = {
            "codec": codec,
            "reference": reference,
            "network": network,
            "metric": self.metric,
            "bd_rate": _estimate(per_cent(mean_log_ratio(curve, other))),
            "points": points,
        }
        return row, ratios

    def _natural(self, values: Samples) -> Samples:
        """Turn goodness back into the metric."""
        if self.metric == "divergence":
            return _exp(-values)
        return self.sign * values

    def _mean(self, codec: str, reference: str, changes: Mapping[str, list[Samples]]) -> dict[str, Any]:
        points = []
        for quality, ratios in zip(sorted(self.qualities), zip(*changes.values(), strict=True), strict=True):
            known = {name: own for name, own in zip(changes, ratios, strict=True) if not np.isnan(own[0])}
            worst = max(known, key=lambda name: known[name][0], default=None)
            with np.errstate(invalid="ignore"):
                mean = np.mean(ratios, axis=0)
            points.append(
                {
                    "quality": quality,
                    "bytes_change": _estimate(per_cent(mean)),
                    "worst": worst and {"network": worst, **_estimate(per_cent(known[worst]))},
                }
            )
        return {
            "codec": codec,
            "reference": reference,
            "network": None,
            "metric": self.metric,
            "points": points,
        }


def _nominal(settings: Settings, anchor: str, qualities: Sequence[float]) -> Iterator[dict[str, Any]]:
    """The rows of `nominal`."""
    at_anchor = {one.quality: one for one in settings[anchor]}
    for name, some in settings.items():
        for one in some:
            if name == anchor or one.quality not in qualities:
                continue
            for network, values in one.networks.items():
                base = at_anchor[one.quality].networks[network]["divergence"]
                ratio = values["divergence"] / np.maximum(base, 1e-12)
                yield {"codec": name, "network": network, "quality": one.quality, "ratio": _estimate(ratio)}


def _exp(logarithms: Samples) -> Samples:
    """The exponential. Infinite values stay infinite."""
    return np.where(np.isneginf(logarithms), -np.inf, np.exp(logarithms))


def _estimates(samples: Mapping[str, Samples]) -> dict[str, Any]:
    return {name: _estimate(values) for name, values in samples.items()}


def _estimate(samples: Samples) -> dict[str, float | None]:
    estimate = Estimate.of(samples)
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: float(f"{x:.6g}") if math.isfinite(x) else None for name, x in numbers.items()}
