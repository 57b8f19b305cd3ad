"""The objective of learning a table: the loss of frozen networks on compressed pictures, and the bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.encoder import encode
from dnnjpeg.files.cache import Cache
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.networks.measurer import Measurer, by_name
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.outputs import Output, each, take
from dnnjpeg.networks.tasks import Classification
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.point import OperatingPoint, point_key


@dataclass(frozen=True)
class Losses:
    """Measurements of one operating point on N pictures, from real files.

    bytes: int64 N, size of the whole file, or of its entropy-coded data if the objective is headerless.
    losses: float64 N for each network's name, in the unit of its task's distance: of classifiers in nat.
    agrees: float64 N, mean of how much the networks read as on the clean picture; of classifiers the share
        whose top-1 class is the same.
    top1: float64 N, share of the networks whose top-1 class is the label. None without labels, or if a
        network is no classifier.
    pixels: mean number of pixels of a picture.
    """

    bytes: NDArray[np.int64]
    losses: dict[str, NDArray[np.float64]]
    agrees: NDArray[np.float64]
    top1: NDArray[np.float64] | None
    pixels: float

    @property
    def loss(self) -> NDArray[np.float64]:
        """float64 N, the mean loss of the networks."""
        return np.mean(list(self.losses.values()), axis=0)

    def beside(self, other: "Losses") -> "Losses":
        """The measurements of both, which are of different pictures."""
        count, more = len(self.bytes), len(other.bytes)
        return Losses(
            np.concatenate([self.bytes, other.bytes]),
            {name: np.concatenate([loss, other.losses[name]]) for name, loss in self.losses.items()},
            np.concatenate([self.agrees, other.agrees]),
            None if self.top1 is None or other.top1 is None else np.concatenate([self.top1, other.top1]),
            (count * self.pixels + more * other.pixels) / (count + more),
        )

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

    The loss of a picture is the distance that the network's task gives between the outputs for the clean and
    for the compressed picture: for a classifier the divergence KL(clean || compressed). The other loss is for
    classifiers: the cross-entropy with the label, minus the network's mean cross-entropy on the clean
    pictures. Both are 0 on average if compression changes nothing. The loss of several networks is their
    mean. Labels add top-1 to the measurements, and do not change the distance.

    networks: one or several `Network`s on one device.
    dataset: the pictures, in the size in which they are stored.
    loss: "divergence", or "cross-entropy", which needs labels.
    batch: pictures that a network sees at a time. The default is a fast number.
    autocast: run the networks in bfloat16. Outputs and losses stay float32.
    headerless: count only entropy-coded data, for tables that are sent once for many pictures.
    cache: keeps measurements of real files, by network and picture. Other objectives use them, too.

    Raises ValueError if there are no networks or no pictures, if labels are needed and missing, if the
    cross-entropy is asked of a network that is no classifier, or if outputs are not finite. Raises LabelError
    if all labels are equal, if a label is no class of a network, or if a network's top-1 on the clean
    pictures is no better than chance.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        dataset: Dataset,
        loss: Literal["divergence", "cross-entropy"] = "divergence",
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
        if loss not in ("divergence", "cross-entropy"):
            raise ValueError(f"loss is {loss!r}, expected 'divergence' or 'cross-entropy'")
        if loss == "cross-entropy" and dataset.labels is None:
            raise ValueError(
                f"{dataset.source} has no labels, and the cross-entropy needs them: give labels, or use the "
                "divergence"
            )
        others = [network for network in networks if not isinstance(network.task, Classification)]
        if loss == "cross-entropy" and others:
            raise ValueError(
                f"loss is 'cross-entropy', and the task of {others[0].name} is {others[0].task.name}: use "
                "the divergence"
            )
        named = by_name(networks)
        self.networks = tuple(named.values())
        self.dataset = dataset
        self.loss = loss
        self.batch = batch or networks[0].batch
        self.autocast = autocast
        self.headerless = headerless
        self.cache = cache
        self.device = networks[0].device
        self._measurer = Measurer(dataset, named, cache, batch=batch, autocast=autocast)
        self.clean = tuple(self._measurer.clean[name] for name in named)
        self._names = tuple(named)
        originals = [self._measurer.originals[name] for name in named]
        self.clean_top1: tuple[float, ...] | None = None
        self._clean_loss = (0.0,) * len(named)  # by network
        if dataset.labels is not None:
            for network, clean in zip(self.networks, self.clean, strict=True):
                network.task.check_labels(dataset.labels, clean, network.name, dataset.source)
            if not others:
                self.clean_top1 = tuple(float(read.top1.mean()) for read in originals)
        if loss == "cross-entropy":
            self._clean_loss = tuple(float(read.loss.mean()) for read in originals)

    def __len__(self) -> int:
        return len(self.dataset)

    def groups(self, index: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Load clean pictures in groups of one size, at most `batch` at a time.

        index: int64, numbers of the pictures.
        Yields the numbers of a group, int64 N, and its pixels, float32 N x 3 x H x W, 0..255, on the
        networks' device.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i in index.tolist():
            by_size.setdefault(self.dataset.pictures[i].shape, []).append(i)
        for numbers in by_size.values():
            for start in range(0, len(numbers), self.batch):
                some = numbers[start : start + self.batch]
                stack = np.stack([self.dataset.pictures[i] for i in some])
                pixels = torch.from_numpy(stack).to(self.device).permute(0, 3, 1, 2).float()
                yield np.array(some, np.int64), pixels

    def gradient(
        self, pixels: Tensor, index: NDArray[np.int64], only: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss of each picture, and its gradient with respect to the pixels.

        pixels: float N x 3 x H x W, 0..255, the decoded pictures.
        index: int64 N, numbers of the same pictures in the data set.
        only: the network of this number adds its part, and the others nothing.
        Returns float32 N and float32 N x 3 x H x W, without a graph. Memory holds the graph of one network at
        a time. Raises ValueError if a loss is not finite.
        """
        losses = torch.zeros(len(pixels), device=self.device)
        gradients = torch.zeros_like(pixels, dtype=torch.float32)
        for start in range(0, len(pixels), self.batch):
            part = slice(start, start + self.batch)
            leaf = pixels[part].detach().float().requires_grad_()
            for which in range(len(self.networks)) if only is None else (only,):
                with torch.enable_grad():
                    loss = self._loss(which, leaf, index[part])
                    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
                losses[part] += loss.detach()
                gradients[part] += gradient
        if not bool(torch.isfinite(losses).all()):
            raise ValueError("a network returns NaN or infinity for a compressed picture")
        return losses, gradients

    def losses(self, which: int, pixels: Tensor, index: NDArray[np.int64]) -> Tensor:
        """The loss of each picture for the network number `which`, float32 N, without gradients.

        The arguments are those of `gradient`. Raises ValueError if a loss is not finite.
        """
        with torch.inference_mode():
            parts = [
                self._loss(which, pixels[start : start + self.batch], index[start : start + self.batch])
                for start in range(0, len(pixels), self.batch)
            ]
        losses = torch.cat(parts).float()
        if not bool(torch.isfinite(losses).all()):
            raise ValueError("a network returns NaN or infinity for a compressed picture")
        return losses

    def _loss(self, which: int, pixels: Tensor, index: NDArray[np.int64]) -> Tensor:
        output, task = self.output(which, pixels), self.networks[which].task
        if self.loss == "cross-entropy":
            assert self.dataset.labels is not None
            labels = torch.from_numpy(self.dataset.labels[index]).to(self.device)
            loss = task.surprise(output, labels) - self._clean_loss[which]
        else:
            clean = take(self.clean[which], index)
            loss = task.distance(output, each(lambda value: value.to(self.device), clean))
        return loss / len(self.networks)

    def output(self, which: int, pixels: Tensor) -> Output:
        """The output of the network number `which`: float32, differentiable in the pixels."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return self.networks[which](pixels)

    def measure(self, point: OperatingPoint) -> Losses:
        """Encode every picture, decode the file, and run the networks on it, unless the result is cached."""
        # Where tables are sent once, the Huffman tables are the standard ones.
        options = EncodeOptions(optimize=False if self.headerless else None, signature=False)
        write = partial(encode, table=point, **vars(options))
        found = self._measurer.measure(write, point_key(point, options))
        readings = [found.readings[name] for name in self._names]
        losses = {
            name: read.divergence if self.loss == "divergence" else read.loss - clean
            for name, read, clean in zip(self._names, readings, self._clean_loss, strict=True)
        }
        sizes = found.scan_bytes if self.headerless else found.bytes
        assert sizes is not None
        return Losses(
            sizes,
            losses,
            np.mean([read.agrees for read in readings], axis=0),
            None if self.clean_top1 is None else np.mean([read.top1 for read in readings], axis=0),
            self.dataset.pixels,
        )

    def size(self, point: OperatingPoint, picture: NDArray[np.uint8]) -> int:
        """Bytes of a picture, uint8 H x W x 3, as a baseline file; if headerless, without the tables."""
        fixed: dict[str, Any] = {"optimize": False, "abbreviated": True} if self.headerless else {}
        return len(encode(picture, table=point, signature=False, **fixed))
