"""One codec at one quality, measured."""

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

_EXACT = 100.0  # dB, of a picture that comes back as it was: the mean over pictures stays finite


@dataclass(frozen=True)
class Measurement:
    """One codec at one quality: a value a picture, arrays of length N."""

    codec: str
    quality: float
    bytes: NDArray[np.int64]  # of the whole file
    scan_bytes: NDArray[np.int64] | None  # of its entropy-coded data; None for what is not JPEG
    psnr: NDArray[np.float64]  # dB over the three channels, at most 100; NaN of a file of another size
    readings: dict[str, Readings]  # by name of network


def measure(
    measurer: Measurer, codec: Codec, quality: float, networks: Collection[str] | None = None
) -> Measurement:
    """All pictures of the measurer, read by some of its networks; None: by all.

    Raises ValueError for a picture that the codec refuses.
    """
    write = partial(codec.encode, quality=quality)
    found = measurer.measure(write, codec.key(quality), networks, psnr)
    return Measurement(
        codec.name, quality, found.bytes, found.scan_bytes, found.details["psnr"], found.readings
    )


def psnr(originals: Pictures, decoded: Pictures) -> Arrays:
    """Peak signal-to-noise ratios, a number a picture."""
    return {"psnr": np.array([_psnr(*pair) for pair in zip(originals, decoded, strict=True)])}


def _psnr(original: Picture, decoded: Picture) -> float:
    if original.shape != decoded.shape:
        return np.nan
    error = np.mean(np.square(decoded.astype(np.float32) - original), dtype=np.float64)
    return min(float(10 * np.log10(255**2 / error)), _EXACT) if error else _EXACT
