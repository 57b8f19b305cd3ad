"""Measuring: every picture encoded, decoded and read by every network; what is known is kept on disk."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from dnnjpeg.cache import Arrays, Cache, digest
from dnnjpeg.cache import key as key_of
from dnnjpeg.dataset import Dataset
from dnnjpeg.evaluate.codecs import Codec, Picture
from dnnjpeg.inspection import inspect
from dnnjpeg.models import Network
from dnnjpeg.readings import Readings, compare, decode

_PROBES = 8  # pictures whose files tell one state of a codec from another
_EXACT = 100.0  # dB, of a picture that comes back as it was: the mean over pictures stays finite


@dataclass(frozen=True)
class Measurement:
    """One codec at one quality: a value a picture, arrays of length N."""

    codec: str
    quality: float
    bytes: NDArray[np.int64]  # of the whole file
    scan_bytes: NDArray[np.int64] | None  # of its entropy-coded data; None for what is not JPEG
    psnr: NDArray[np.float64]  # dB over the three channels, at most 100
    readings: dict[str, Readings]  # by name of network


class Bench:
    """What codecs are measured on: the pictures, the networks, and what these read in the originals.

    networks: by the name that they have in the results.
    folder: where results are kept, made where it is missing. Each is a file of its own, written whole, so
        that an interrupted evaluation resumes and a repeated one is free; its name is a digest of all that it
        depends on: pictures, labels, network, codec, and the files that the codec makes of the first eight
        pictures. All may be deleted at any time.

    Raises ValueError for labels that are not a network's, and for logits that are not finite.
    """

    dataset: Dataset
    networks: Mapping[str, Network]
    classes: dict[str, int]  # how many each network tells apart
    clean: dict[str, Readings]

    def __init__(self, dataset: Dataset, networks: Mapping[str, Network], folder: Path) -> None:
        self.dataset = dataset
        self.networks = networks
        self._cache = Cache(folder)
        self._pictures = key_of(dataset.pictures.shape, digest(dataset.pictures), PIL.__version__)
        self._labels = None if dataset.labels is None else digest(dataset.labels)
        self._logits = {name: self._clean_logits(network) for name, network in networks.items()}
        self.classes = {name: x.shape[1] for name, x in self._logits.items()}
        self.clean = {name: compare(x, x, dataset.labels) for name, x in self._logits.items()}

    def measure(self, codec: Codec, quality: float) -> Measurement:
        """Encode, decode and read all pictures, as far as it was not done before.

        Raises ValueError for a picture that the codec refuses, or that comes back in another size.
        """
        count = len(self.dataset)
        coded = [self._code(codec, quality, i) for i in range(min(_PROBES, count))]
        key = key_of(self._pictures, codec.name, quality, *(data for data, _ in coded))
        sizes = self._cache.load(key)
        found = {name: self._cache.load(self._readings_key(key, name)) for name in self.networks}
        missing = [name for name, arrays in found.items() if not arrays]
        if missing or not sizes:
            with ThreadPoolExecutor() as pool:
                coded += pool.map(lambda i: self._code(codec, quality, i), range(len(coded), count))
                pictures = np.stack([pixels for _, pixels in coded])
                psnr = np.array(list(pool.map(_psnr, pictures, self.dataset.pictures)))
            sizes = _sizes([data for data, _ in coded]) | {"psnr": psnr}
            self._cache.save(key, sizes)
        for name in missing:
            read = compare(self.networks[name].read(pictures), self._logits[name], self.dataset.labels)
            found[name] = asdict(read)
            self._cache.save(self._readings_key(key, name), found[name])
        readings = {name: Readings(**arrays) for name, arrays in found.items()}
        return Measurement(
            codec.name, quality, sizes["bytes"], sizes.get("scan_bytes"), sizes["psnr"], readings
        )

    def _code(self, codec: Codec, quality: float, index: int) -> tuple[bytes, Picture]:
        """One picture's file, and the pixels that come out of it."""
        picture, name = self.dataset.pictures[index], self.dataset.names[index]
        try:
            data = codec.encode(picture, quality)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        pixels = decode(data)
        if pixels.shape != picture.shape:
            raise ValueError(f"{name}: {codec.name} makes {pixels.shape} of {picture.shape}")
        return data, pixels

    def _clean_logits(self, network: Network) -> NDArray[np.float32]:
        key = key_of(self._pictures, network.identity)
        if not (kept := self._cache.load(key)):
            kept = {"logits": network.read(self.dataset.pictures)}
            self._cache.save(key, kept)
        return kept["logits"]

    def _readings_key(self, key: str, name: str) -> str:
        return key_of(key, self._labels, self.networks[name].identity, *Readings.__dataclass_fields__)


def _psnr(pixels: Picture, original: Picture) -> float:
    error = np.mean(np.square(pixels.astype(np.float32) - original), dtype=np.float64)
    return min(float(10 * np.log10(255**2 / error)), _EXACT) if error else _EXACT


def _sizes(files: list[bytes]) -> Arrays:
    sizes = {"bytes": np.array([len(data) for data in files])}
    if all(data.startswith(b"\xff\xd8") for data in files):
        sizes["scan_bytes"] = np.array([inspect(data).scan_bytes for data in files])
    return sizes
