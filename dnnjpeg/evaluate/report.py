"""An evaluation as a JSON document: every setting, and every codec against the references."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dnnjpeg.evaluate.curves import Curve, log_ratio, mean_log_ratio, per_cent
from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.evaluate.statistics import Estimate, Samples, means
from dnnjpeg.readings import Readings


@dataclass(frozen=True)
class _Setting:
    quality: float
    own: dict[str, Samples]  # bytes, scan_bytes where there are, psnr
    networks: dict[str, dict[str, Samples]]  # by network: what it reads


def report(
    measurements: Mapping[str, Sequence[Measurement]],
    clean: Mapping[str, Readings],
    references: Sequence[str],
    *,
    side: int,
    labelled: bool,
    headerless: bool,
) -> dict[str, Any]:
    """What was measured, and what follows from it, as JSON.

    measurements: by codec, `references` among them; the settings of the first reference are the points at
        which codecs are compared.
    clean: by network, what it reads in the originals.
    side: of the square pictures. labelled: whether they have labels; without, the loss is the divergence.
    headerless: compare entropy-coded data in place of whole files.

    An estimate is {value, low, high}, with a 95 % interval; null is what lies beyond the settings measured.

    - `clean`: by network, its estimates of loss and divergence (nat), top1, top5 and agreement with what it
      reads in the original (0..1).
    - `settings`: by codec and quality, the means over the pictures: bytes, scan_bytes (entropy-coded data,
      null for what is not JPEG), bits_per_pixel, psnr (dB), and `networks`, as `clean`.
    - `comparisons`: by codec, reference, network and metric (loss or divergence, and top1): bd_rate, the mean
      change of bytes at equal metric (%), and `points`, by quality of the first reference: its metric; the
      bytes in which the codec is as good; how many more these are than the reference's (bytes_change, %); how
      much larger the codec's metric is than the reference's at the point's bytes (metric_change).

    Raises ValueError for headerless sizes of a codec that has none.
    """
    for name, some in measurements.items():
        if headerless and any(one.scan_bytes is None for one in some):
            raise ValueError(f"{name} writes no JPEG: without headers it cannot be compared")
    settings = {name: [_setting(one, labelled) for one in some] for name, some in measurements.items()}
    rate = "scan_bytes" if headerless else "bytes"
    return {
        "rate": rate,
        "clean": {name: _estimates(_samples(_values(read, labelled))) for name, read in clean.items()},
        "settings": [
            {
                "codec": name,
                "quality": one.quality,
                "scan_bytes": None,
                **_estimates(one.own),
                "bits_per_pixel": 8 * float(one.own["bytes"][0]) / side**2,
                "networks": {network: _estimates(samples) for network, samples in one.networks.items()},
            }
            for name, some in settings.items()
            for one in some
        ],
        "comparisons": [
            row
            for network in clean
            for metric in (("loss", "top1") if labelled else ("divergence",))
            for row in _comparisons(settings, references, rate, network, metric)
        ],
    }


def _values(read: Readings, labelled: bool) -> dict[str, ArrayLike]:
    to_labels = {"loss": read.loss, "top1": read.top1, "top5": read.top5} if labelled else {}
    return {**to_labels, "divergence": read.divergence, "agreement": read.agrees}


def _samples(values: Mapping[str, ArrayLike]) -> dict[str, Samples]:
    return dict(zip(values, means(values.values()).T, strict=True))


def _setting(one: Measurement, labelled: bool) -> _Setting:
    sizes = {"bytes": one.bytes} | ({} if one.scan_bytes is None else {"scan_bytes": one.scan_bytes})
    networks = {name: _samples(_values(read, labelled)) for name, read in one.readings.items()}
    return _Setting(one.quality, _samples({**sizes, "psnr": one.psnr}), networks)


def _comparisons(
    settings: Mapping[str, Sequence[_Setting]],
    references: Sequence[str],
    rate: str,
    network: str,
    metric: str,
) -> Iterator[dict[str, Any]]:
    """Every codec against every reference, for one metric of one network."""
    sign = 1 if metric == "top1" else -1  # a curve's goodness is the larger the better

    def goodness(one: _Setting) -> Samples:
        return sign * one.networks[network][metric]

    curves = {
        name: Curve(
            np.stack([one.own[rate] for one in some], axis=1),
            np.stack([goodness(one) for one in some], axis=1),
        )
        for name, some in settings.items()
    }
    anchor = curves[references[0]]
    for reference in references:
        for name, curve in curves.items():
            if name == reference:
                continue
            points = []
            for one in settings[references[0]]:
                target, log_bytes = anchor.within(goodness(one)), np.log(one.own[rate])
                with np.errstate(invalid="ignore"):
                    change = curve.goodness_at(log_bytes) - curves[reference].goodness_at(log_bytes)
                points.append(
                    {
                        "quality": one.quality,
                        metric: _estimate(sign * target),
                        rate: _estimate(np.exp(curve.log_bytes_at(target))),
                        "bytes_change": _estimate(per_cent(log_ratio(curve, curves[reference], target))),
                        "metric_change": _estimate(sign * change),
                    }
                )
            yield {
                "codec": name,
                "reference": reference,
                "network": network,
                "metric": metric,
                "bd_rate": _estimate(per_cent(mean_log_ratio(curve, curves[reference]))),
                "points": points,
            }


def _estimates(samples: Mapping[str, Samples]) -> dict[str, Any]:
    return {name: _estimate(values) for name, values in samples.items()}


def _estimate(samples: Samples) -> dict[str, float | None]:
    estimate = Estimate.of(samples)
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: float(f"{x:.6g}") if math.isfinite(x) else None for name, x in numbers.items()}
