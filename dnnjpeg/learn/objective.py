"""What a table is learned for: the loss of frozen networks on compressed pictures, and the bytes it takes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.cache import Arrays, Cache, digest, key
from dnnjpeg.codec.encoder import encode
from dnnjpeg.dataset import Dataset
from dnnjpeg.inspection import inspect
from dnnjpeg.learn.codec import to_coefficients
from dnnjpeg.models import Network
from dnnjpeg.point import OperatingPoint
from dnnjpeg.readings import Readings, compare, decode

_CHUNK = 200  # pictures encoded, decoded and read at a time: bounds memory, whatever the data set's size
_PROBES = 8  # pictures whose files tell one state of the encoder from another
_MIN_SCALE = 0.05  # nat; a network that knows its pictures by heart must not outweigh all others


@dataclass(frozen=True)
class Measurement:
    """Real files of one operating point, by picture, so that two can be compared in pairs.

    bytes: int64 N, of whole files, or of their scans where the objective counts these. loss: float64 N, the
    objective's. agrees: float64 N, share of the networks whose first class is that of the clean picture.
    top1: float64 N, share of those whose first class is the label, or None without labels. pixels: of one
    picture. moved, lost: float64 3 x 64, mean squared errors of the coefficients of Y, Cb and Cr at the
    picture's resolution, that remain and that became zero.
    """

    bytes: NDArray[np.int64]
    loss: NDArray[np.float64]
    agrees: NDArray[np.float64]
    top1: NDArray[np.float64] | None
    pixels: int
    moved: NDArray[np.float64]
    lost: NDArray[np.float64]

    def record(self) -> dict[str, Any]:
        """The means, as the `measured` of an OperatingPoint."""
        record: dict[str, Any] = {
            "bpp": round(8 * float(self.bytes.mean()) / self.pixels, 5),
            "bytes": round(float(self.bytes.mean()), 2),
            "loss": round(float(self.loss.mean()), 6),
            "agreement": round(float(self.agrees.mean()), 5),
            "images": len(self.bytes),
        }
        return record if self.top1 is None else record | {"top1": round(float(self.top1.mean()), 5)}


class Objective:
    """The mean loss of frozen networks on the pictures of a data set.

    With labels the loss of a picture is the cross-entropy to its label, without them the divergence of the
    network's prediction from its clean one, KL(clean || read); in nat. Of several networks it is the mean of
    the losses, each divided by its scale: its clean cross-entropy (at least 0.05 nat), or 1 for the
    divergence. One network's scale is 1.

    networks: one or several `Network`s on one device.
    use_labels: None takes labels where the data set has them.
    batch: pictures a network sees at a time, by default as many as are fast.
    autocast: run the networks in bfloat16; logits and losses stay float32.
    headerless: count a file's entropy-coded data only, as where tables are sent once for many pictures.
    cache: where readings of real files are kept, by network and picture: what other objectives measured on
        the same pictures, of more networks or fewer, is not measured again.

    Raises ValueError for a data set that nothing can be learned from: no pictures, labels asked for and
    missing, labels of one class or outside the classes of a network, logits that are not finite, a clean
    accuracy no better than chance.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        dataset: Dataset,
        use_labels: bool | None = None,
        *,
        batch: int | None = None,
        autocast: bool = False,
        headerless: bool = False,
        cache: Cache | None = None,
    ) -> None:
        if not networks:
            raise ValueError("networks is empty, expected at least one")
        if len(dataset) == 0:
            raise ValueError(f"{dataset.source} has no pictures")
        if use_labels and dataset.labels is None:
            raise ValueError(
                f"{dataset.source} has no labels: give them, or learn from the networks' own predictions"
            )
        self.networks = tuple(networks)
        self.dataset = dataset
        self.labels = dataset.labels if use_labels in (None, True) else None
        self.batch = batch or networks[0].batch
        self.autocast = autocast
        self.headerless = headerless
        self.cache = cache
        self.device = networks[0].device
        self._pictures = key(dataset.pictures.shape, digest(dataset.pictures), PIL.__version__)
        self._labels = None if self.labels is None else digest(self.labels)
        self.clean = tuple(map(self._clean, networks))
        readings = [compare(clean, clean, self.labels) for clean in self.clean]
        self.clean_top1: tuple[float, ...] | None = None
        self.scales = (1.0,) * len(networks)
        if self.labels is not None:
            for network, clean in zip(networks, self.clean, strict=True):
                _check_labels(self.labels, clean, network.name, dataset.source)
            self.clean_top1 = tuple(float(reading.top1.mean()) for reading in readings)
            if len(networks) > 1:
                self.scales = tuple(max(float(reading.loss.mean()), _MIN_SCALE) for reading in readings)

    def __len__(self) -> int:
        return len(self.dataset)

    def pixels(self, index: NDArray[np.int64]) -> Tensor:
        """The clean pictures of these numbers: N x 3 x H x W float32, 0..255, on the networks' device."""
        batch = torch.from_numpy(self.dataset.pictures[index]).to(self.device)
        return batch.permute(0, 3, 1, 2).float()

    def batches(self, count: int) -> Iterator[slice]:
        """0..count in steps of `batch`."""
        return (slice(start, start + self.batch) for start in range(0, count, self.batch))

    def gradient(self, pixels: Tensor, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Loss of each picture, and its gradient with respect to the picture's pixels.

        pixels: N x 3 x H x W float, 0..255: what a decoder made of the pictures `index`.
        Returns float32 N and N x 3 x H x W, neither with a graph. Graphs are freed network by network.
        Raises ValueError where a loss is not finite.
        """
        losses = torch.zeros(len(pixels), device=self.device)
        gradients = torch.zeros_like(pixels, dtype=torch.float32)
        for part in self.batches(len(pixels)):
            leaf = pixels[part].detach().float().requires_grad_()
            for which in range(len(self.networks)):
                with torch.enable_grad():
                    loss = self._loss(which, leaf, index[part])
                    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
                losses[part] += loss.detach()
                gradients[part] += gradient
        if not bool(torch.isfinite(losses).all()):
            raise ValueError("a network returns NaN or infinity for a compressed picture")
        return losses, gradients

    def _loss(self, which: int, pixels: Tensor, index: NDArray[np.int64]) -> Tensor:
        logits = self.logits(which, pixels)
        if self.labels is not None:
            labels = torch.from_numpy(self.labels[index]).to(self.device)
            loss = F.cross_entropy(logits, labels, reduction="none")
        else:
            clean = torch.from_numpy(self.clean[which][index]).to(self.device)
            pointwise = F.kl_div(
                logits.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none"
            )
            loss = pointwise.sum(1)
        return loss / (self.scales[which] * len(self.networks))

    def _read(self, network: Network, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return network.read(pictures, self.batch)

    def logits(self, which: int, pixels: Tensor) -> Tensor:
        """Float32 logits of one network, N x classes, differentiable in the pixels."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.networks[which](pixels).float()

    def measure(self, point: OperatingPoint) -> Measurement:
        """Encode every picture, decode the file, and read it; as far as the cache does not know."""
        write = partial(self._encode, point)
        probes = map(write, self.dataset.pictures[:_PROBES])
        name = key(self._pictures, point.subsampling, point.tables, point.hardness, *probes)
        names = [
            self._key(network, name, self._labels, *Readings.__dataclass_fields__)
            for network in self.networks
        ]
        files = self._load(name)
        found = [self._load(one) for one in names]
        missing = [which for which, arrays in enumerate(found) if not arrays]
        if missing or not files:
            files, logits = self._measure(write, missing)
            self._save(name, files)
        for which in missing:
            found[which] = asdict(compare(logits[which], self.clean[which], self.labels))
            self._save(names[which], found[which])
        readings = [Readings(**arrays) for arrays in found]
        losses = [reading.divergence if self.labels is None else reading.loss for reading in readings]
        scaled = [loss / scale for loss, scale in zip(losses, self.scales, strict=True)]
        height, width = self.dataset.pictures.shape[1:3]
        return Measurement(
            files["scan_bytes" if self.headerless else "bytes"],
            np.mean(scaled, axis=0),
            np.mean([reading.agrees for reading in readings], axis=0),
            None if self.labels is None else np.mean([reading.top1 for reading in readings], axis=0),
            height * width,
            files["moved"],
            files["lost"],
        )

    def size(self, point: OperatingPoint, picture: NDArray[np.uint8]) -> int:
        """Bytes of a picture, H x W x 3, as a baseline file, or as a stream without tables if headerless."""
        fixed: dict[str, Any] = {"optimize": False, "streamtype": 2} if self.headerless else {}
        return len(encode(picture, table=point, signature=False, **fixed))

    def _encode(self, point: OperatingPoint, picture: NDArray[np.uint8]) -> bytes:
        if self.headerless:  # tables of both kinds are sent once: the Huffman tables are the standard ones
            return encode(picture, table=point, optimize=False, signature=False)
        return encode(picture, table=point, progressive="auto", signature=False)

    def _measure(
        self, write: Callable[[NDArray[np.uint8]], bytes], which: Sequence[int]
    ) -> tuple[Arrays, dict[int, NDArray[np.float32]]]:
        """What the files are like, and the logits of some of the networks."""
        data: list[bytes] = []
        damage = np.zeros((2, 3, 64))
        logits: dict[int, list[NDArray[np.float32]]] = {one: [] for one in which}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self), _CHUNK):
                clean = self.dataset.pictures[start : start + _CHUNK]
                files = list(pool.map(write, clean))
                pictures = np.stack(list(pool.map(decode, files)))
                data += files
                for part in self.batches(len(files)):
                    damage += self._damage(clean[part], pictures[part])
                for one, parts in logits.items():
                    parts.append(self._read(self.networks[one], pictures))
        moved, lost = damage / len(self)
        arrays: Arrays = {
            "bytes": np.array([len(file) for file in data], np.int64),
            "scan_bytes": np.array([inspect(file).scan_bytes for file in data], np.int64),
            "moved": moved,
            "lost": lost,
        }
        return arrays, {one: np.concatenate(parts) for one, parts in logits.items()}

    def _damage(self, clean: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Squared errors of coefficients that were moved and lost, 2 x 3 x 64, summed over pictures."""
        damage = np.zeros((2, 3, 64))
        both = [
            to_coefficients(torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float())
            for pictures in (clean, decoded)
        ]
        for c, (z, y) in enumerate(zip(*both, strict=True)):
            error = (y - z).square()
            # rounding to pixels leaves a lost coefficient not quite zero
            lost = error * (y.abs() < 0.25 * z.abs())
            for kind, part in enumerate((error - lost, lost)):
                damage[kind, c] = part.mean(1).sum(0).cpu().double().numpy()
        return damage

    def _clean(self, network: Network) -> NDArray[np.float32]:
        name = self._key(network, self._pictures)
        if not (kept := self._load(name)):
            kept = {"logits": self._read(network, self.dataset.pictures)}
            self._save(name, kept)
        return kept["logits"]

    def _key(self, network: Network, *parts: object) -> str:
        return key(network.identity, self.autocast, str(self.device), *parts)

    def _load(self, name: str) -> Arrays:
        return self.cache.load(name) if self.cache else {}

    def _save(self, name: str, arrays: Arrays) -> None:
        if self.cache:
            self.cache.save(name, arrays)


def _check_labels(labels: NDArray[np.int64], clean: NDArray[np.float32], name: str, source: str) -> None:
    count, classes = clean.shape
    kinds = np.unique(labels)
    if len(kinds) == 1:
        raise ValueError(f"all {count} pictures of {source} have label {kinds[0]}, expected several classes")
    predicted = clean.argmax(1)
    correct = int((predicted == labels).sum())
    # What the same labels in any other order would give. Of few pictures three standard deviations may be all
    # there are: half the way from chance to perfect convinces too.
    shares = [np.bincount(kind, minlength=classes) / count for kind in (labels, predicted)]
    chance = count * float(shares[0] @ shares[1])
    if correct <= min(chance + 3 * chance**0.5, (chance + count) / 2):
        raise ValueError(
            f"{name} names the label of {correct} of {count} clean pictures of {source}, and chance would "
            f"name {chance:.0f}: are these labels of other pictures, or in another order than its classes?"
        )
