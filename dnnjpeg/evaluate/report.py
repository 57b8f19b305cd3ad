"""An evaluation as a JSON document: every setting, and every codec against the references."""

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
    own: dict[str, Samples]  # bytes, scan_bytes where there are, psnr
    networks: dict[str, dict[str, Samples]]  # by network: what it reads


Settings = Mapping[str, Sequence[_Setting]]


def report(
    measurements: Mapping[str, Sequence[Measurement]],
    originals: Mapping[str, Readings],
    references: Sequence[str],
    qualities: Sequence[float],
    *,
    pixels: float,
    labelled: bool,
    headerless: bool,
) -> dict[str, Any]:
    """What was measured, and what follows from it, as JSON.

    measurements: by codec, `references` among them; not every network need have read every setting.
    originals: by network, what it reads in the originals.
    qualities: of the first reference, at which codecs are compared; each is among its settings.
    pixels: of the mean picture. labelled: whether pictures have labels.
    headerless: compare entropy-coded data in place of whole files.

    An estimate is {value, low, high}, with a 95 % interval; null is what lies beyond the settings measured.

    - `clean`: by network, its estimates of divergence and loss (cross-entropy; both in nat), top1, top5 and
      agreement with what it reads in the original (0..1).
    - `settings`: by codec and quality, the means over the pictures: bytes, scan_bytes (entropy-coded data,
      null for what is not JPEG), bits_per_pixel, psnr (dB), and `networks`, as `clean`.
    - `comparisons`: by metric (divergence, then with labels loss and top1), codec, reference and network:
      bd_rate, the mean change of bytes at equal metric (%), and `points`, by quality of the first reference:
      its metric; the bytes in which the codec is as good; how many more these are than the reference's
      (bytes_change, %); how much larger the codec's metric is than the reference's at the point's bytes
      (metric_change). Where several networks read both codecs, a row with the network null has the mean of
      their bytes_change (the geometric mean of the ratios), and the `worst` of them with its network.
    - `nominal`: by codec, network and quality: the divergence of the codec's setting of that quality, in
      parts of the first reference's.

    Raises ValueError for headerless sizes of a codec that has none.
    """
    for name, some in measurements.items():
        if headerless and any(one.scan_bytes is None for one in some):
            raise ValueError(f"{name} writes no JPEG: without headers it cannot be compared")
    settings = {name: [_setting(one, labelled) for one in some] for name, some in measurements.items()}
    rate = "scan_bytes" if headerless else "bytes"
    pairs = [(name, reference) for reference in references for name in settings if name != reference]
    return {
        "rate": rate,
        "clean": {name: _estimates(_samples(_values(read, labelled))) for name, read in originals.items()},
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
            for metric in (("divergence", "loss", "top1") if labelled else ("divergence",))
            for row in _Comparison(settings, references[0], qualities, rate, metric).rows(pairs, originals)
        ],
        "nominal": list(_nominal(settings, references[0], qualities)),
    }


def _values(read: Readings, labelled: bool) -> dict[str, ArrayLike]:
    to_labels = {"loss": read.loss, "top1": read.top1, "top5": read.top5} if labelled else {}
    return {"divergence": read.divergence, **to_labels, "agreement": read.agrees}


def _samples(values: Mapping[str, ArrayLike]) -> dict[str, Samples]:
    return dict(zip(values, means(values.values()).T, strict=True))


def _setting(one: Measurement, labelled: bool) -> _Setting:
    sizes = {"bytes": one.bytes} | ({} if one.scan_bytes is None else {"scan_bytes": one.scan_bytes})
    networks = {name: _samples(_values(read, labelled)) for name, read in one.readings.items()}
    return _Setting(one.quality, _samples({**sizes, "psnr": one.psnr}), networks)


@dataclass(frozen=True)
class _Comparison:
    """Codecs compared at the metric that the first reference has at some of its qualities."""

    settings: Settings
    anchor: str
    qualities: Sequence[float]
    rate: str
    metric: str

    def rows(
        self, pairs: Sequence[tuple[str, str]], networks: Mapping[str, Readings]
    ) -> Iterator[dict[str, Any]]:
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
        return shaped(one.networks[network][self.metric], self.metric)

    def _row(self, codec: str, reference: str, network: str) -> tuple[dict[str, Any], list[Samples]]:
        """The row, and by quality the logarithms of its ratios of bytes."""
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
        """Goodness as the metric again."""
        if self.metric == "divergence":
            return _exp(-values)
        return values if self.metric == "top1" else -values

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
    """What codecs lose at a quality of that number."""
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
    """What is beyond the settings stays so."""
    return np.where(np.isneginf(logarithms), -np.inf, np.exp(logarithms))


def _estimates(samples: Mapping[str, Samples]) -> dict[str, Any]:
    return {name: _estimate(values) for name, values in samples.items()}


def _estimate(samples: Samples) -> dict[str, float | None]:
    estimate = Estimate.of(samples)
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: float(f"{x:.6g}") if math.isfinite(x) else None for name, x in numbers.items()}
