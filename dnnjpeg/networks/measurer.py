"""Measuring: pictures are encoded as real files, decoded, and read by networks. Results are cached.

Learning and evaluation both measure this way, and share the cache.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from dnnjpeg.files.cache import Arrays, Cache, digest, key
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.files.view import Picture, Pictures
from dnnjpeg.jpeg.inspect import inspect
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.outputs import Outputs, each, from_arrays, to_arrays
from dnnjpeg.networks.readings import Readings, compare, decode

_PROBES = 8  # pictures whose files are part of the key, in case the encoder changes
_CHUNK = 100  # pictures encoded, decoded and read at a time, which bounds memory

Write = Callable[[Picture], bytes]
Describe = Callable[
    [Pictures, Pictures], Arrays
]  # from originals and decoded pictures to arrays with a row for each


@dataclass(frozen=True)
class Measured:
    """Measurements of one setting: arrays with a value for each of N pictures."""

    bytes: NDArray[np.int64]  # of the whole file
    scan_bytes: NDArray[np.int64] | None  # of its entropy-coded data; None if it is not JPEG
    readings: dict[str, Readings]  # by name of network
    details: Arrays  # the result of `describe`


class Measurer:
    """Measures settings of encoders on pictures with networks.

    dataset: the pictures.
    networks: networks by the names that they have in results.
    cache: keeps results. A key depends on pictures, labels, network, name of the encoder, and the files of
        the first eight pictures. So an interrupted run continues, and a repeated one is free.
    batch: pictures that a network sees at a time. None: a fast number.
    autocast: run the networks in bfloat16. Outputs stay float32.

    Raises LabelError if labels are not a network's. Raises ValueError if outputs are not finite.
    """

    clean: dict[str, Outputs]  # the outputs for the originals
    originals: dict[str, Readings]  # the originals, compared with themselves

    def __init__(
        self,
        dataset: Dataset,
        networks: Mapping[str, Network],
        cache: Cache | None = None,
        *,
        batch: int | None = None,
        autocast: bool = False,
    ) -> None:
        self.dataset, self.networks, self._cache = dataset, networks, cache
        self.batch, self.autocast = batch, autocast
        self._pictures = key(dataset.identity, PIL.__version__)
        self._labels = None if dataset.labels is None else digest(dataset.labels)
        self.clean = {name: self._clean(network) for name, network in networks.items()}
        self.originals = {
            name: compare(x, x, dataset.labels, networks[name].task) for name, x in self.clean.items()
        }

    def measure(
        self,
        write: Write,
        name: object,
        networks: Collection[str] | None = None,
        describe: Describe | None = None,
    ) -> Measured:
        """Encode, decode and read all pictures. What the cache holds is not repeated.

        write: the encoder.
        name: name of the encoder with all its settings. Its `repr` is part of the key.
        networks: names of the networks that read the files. None: all.
        describe: computes further arrays. Its `__qualname__` is part of the key.

        Raises ValueError that names the picture, if the encoder refuses one.
        """
        asked = list(self.networks if networks is None else networks)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            count = len(self.dataset)
            probes = list(pool.map(lambda i: self._write(write, i), range(min(_PROBES, count))))
            here = key(self._pictures, name, *probes)
            names = {one: self._readings_keys(here, one) for one in asked}
            details = "" if describe is None else key(here, describe.__qualname__)
            places = [here, *itertools.chain(*names.values()), *filter(None, [details])]
            known = {place: self._load(place) for place in places}
            missing = [one for one in asked if not all(known[place] for place in names[one])]
            if missing or not all(known.values()):
                files, described, found = self._measure(write, probes, missing, describe, pool)
                known[here] = files
                if details:
                    known[details] = described
                for one in missing:
                    bare = Readings(found[one].divergence, found[one].agrees)
                    for place, readings in zip(names[one], (bare, found[one]), strict=False):
                        known[place] = readings.arrays()
                for one, arrays in known.items():
                    self._save(one, arrays)
        return Measured(
            known[here]["bytes"],
            known[here].get("scan_bytes"),
            {one: Readings.of(known[names[one][-1]]) for one in asked},
            known[details] if details else {},
        )

    def _measure(
        self,
        write: Write,
        probes: Sequence[bytes],
        networks: Sequence[str],
        describe: Describe | None,
        pool: ThreadPoolExecutor,
    ) -> tuple[Arrays, Arrays, dict[str, Readings]]:
        """Sizes of the files, arrays of `describe`, and the readings of some networks."""
        data = list(probes)
        described: list[Arrays] = []
        found: dict[str, list[Readings]] = {name: [] for name in networks}
        count = len(self.dataset)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            data += pool.map(lambda i: self._write(write, i), range(len(data), stop))
            if not networks and describe is None:
                continue
            pictures = list(pool.map(decode, data[start:stop]))
            if describe is not None:
                described.append(describe(self.dataset.pictures[start:stop], pictures))
            for name, parts in found.items():
                parts.append(self._compare(name, pictures, slice(start, stop)))
        rows = {name: np.concatenate([part[name] for part in described]) for name in (described or [{}])[0]}
        return _sizes(data), rows, {name: Readings.join(parts) for name, parts in found.items()}

    def _write(self, write: Write, index: int) -> bytes:
        try:
            return write(self.dataset.pictures[index])
        except ValueError as error:
            raise ValueError(f"{self.dataset.names[index]}: {error}") from error

    def _compare(self, name: str, pictures: Pictures, which: slice) -> Readings:
        network, clean, labels = self.networks[name], self.clean[name], self.dataset.labels
        originals = clean[which] if isinstance(clean, list) else each(lambda array: array[which], clean)
        target = None if labels is None else labels[which]
        return compare(self._read(network, pictures), originals, target, network.task)

    def _read(self, network: Network, pictures: Pictures) -> Outputs:
        with torch.autocast(network.device.type, torch.bfloat16, enabled=self.autocast):
            return network.read(pictures, self.batch)

    def _clean(self, network: Network) -> Outputs:
        name = self._network_key(network, self._pictures)
        if kept := self._load(name):
            return from_arrays(kept, len(self.dataset))
        outputs = self._read(network, self.dataset.pictures)
        self._save(name, to_arrays(outputs))
        return outputs

    def _readings_keys(self, here: str, name: str) -> list[str]:
        """Keys of the readings without labels, and of those with labels if there are any."""
        kinds = [None] if self._labels is None else [None, self._labels]
        network = self.networks[name]
        return [self._network_key(network, here, labels, network.task.identity) for labels in kinds]

    def _network_key(self, network: Network, *parts: object) -> str:
        return key(network.identity, self.autocast, str(network.device), *parts)

    def _load(self, name: str) -> Arrays:
        return self._cache.load(name) if self._cache else {}

    def _save(self, name: str, arrays: Arrays) -> None:
        if self._cache:
            self._cache.save(name, arrays)


def by_name(networks: Sequence[Network]) -> dict[str, Network]:
    """Networks by name. If two share a name, the spec is used; if they share it, too, spec and digest."""
    names, specs = (Counter(getattr(one, kind) for one in networks) for kind in ("name", "spec"))

    def label(one: Network) -> str:
        if names[one.name] == 1:
            return one.name
        return one.spec if specs[one.spec] == 1 else f"{one.spec} {one.digest}"

    return {label(one): one for one in networks}


def _sizes(files: Sequence[bytes]) -> Arrays:
    sizes = {"bytes": np.array([len(data) for data in files], np.int64)}
    if all(data.startswith(b"\xff\xd8") for data in files):
        sizes["scan_bytes"] = np.array([inspect(data).scan_bytes for data in files], np.int64)
    return sizes
