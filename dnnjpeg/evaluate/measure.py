"""Measure one codec at one quality."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.evaluate.codecs import Codec
from dnnjpeg.files.cache import Arrays
from dnnjpeg.files.view import Picture, Pictures
from dnnjpeg.networks.measurer import Measurer
from dnnjpeg.networks.readings import Readings

_EXACT = 100.0  # dB, for a lossless picture, so that the mean over pictures stays finite


@dataclass(frozen=True)
class Measurement:
    """Measurements of one codec at one quality: arrays with a value for each of N pictures."""

    codec: str
    quality: float
    bytes: NDArray[np.int64]  # of the whole file
    scan_bytes: NDArray[np.int64] | None  # of its entropy-coded data; None if it is not JPEG
    psnr: NDArray[np.float64]  # dB over the three channels, at most 100; NaN if the file has another size
    readings: dict[str, Readings]  # by name of network


def measure(
    measurer: Measurer, codec: Codec, quality: float, networks: Collection[str] | None = None
) -> Measurement:
    """Measure a codec on all pictures of the measurer.

    networks: names of the networks that read the files. None: all.

    Raises ValueError if the codec refuses a picture.
    """
    write = partial(codec.encode, quality=quality)
    found = measurer.measure(write, codec.key(quality), networks, psnr)
    return Measurement(
        codec.name, quality, found.bytes, found.scan_bytes, found.details["psnr"], found.readings
    )


def psnr(originals: Pictures, decoded: Pictures) -> Arrays:
    """Peak signal-to-noise ratios in dB, one for each picture."""
    return {"psnr": np.array([_psnr(*pair) for pair in zip(originals, decoded, strict=True)])}


def _psnr(original: Picture, decoded: Picture) -> float:
    if original.shape != decoded.shape:
        return np.nan
    error = np.mean(np.square(decoded.astype(np.float32) - original), dtype=np.float64)
    return min(float(10 * np.log10(255**2 / error)), _EXACT) if error else _EXACT
