"""The criterion, which says what networks must still read in a file, and the networks that check it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dnnjpeg.checks import check_quality
from dnnjpeg.files.view import View, upright
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.outputs import Output, by_shape, each, take, tensors
from dnnjpeg.networks.task import Task, agreements, distances
from dnnjpeg.networks.tasks import Classification

BATCH = 25  # pictures of which gradients are taken together
SOFTNESS = 0.5  # of the minimum of several margins


@dataclass(frozen=True)
class Criterion:
    """What networks must still read in a file.

    text: the criterion.
        "same": the same answer. `Task.same` says how much of it must agree: of a classifier, the first class.
        "accuracy=X%": as same, in at least X % of the pictures.
        "distance=X": the task's distance from the original is less than X.
        "price=X": no bound. Minimise mean distance + X x bytes.
        Only for classifiers:
        "top1": the same class first. Top-1 accuracy stays the same, whatever the labels are.
        "top5": the same five classes first, in any order. Top-5 accuracy stays the same.
        "divergence=X": KL(original || file) of the class probabilities is less than X nat.
        "quality=X": no bound. X is the average quality; pictures that are hard to read get a higher one.
    places: number of classes that must stay first, else 0.
    same: whether the answer must stay the same.
    bound, price, quality: the X of each kind, else 0. share: that of accuracy, else 1.
    """

    text: str
    places: int = 0
    same: bool = False
    bound: float = 0.0
    price: float = 0.0
    quality: float = 0.0
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Make a criterion from its text. Raises ValueError."""
        if text in ("top1", "top5"):
            return cls(text, places=int(text[3:]))
        if share := re.fullmatch(r"accuracy=([0-9]{1,2}(?:\.[0-9]+)?)%", text):
            return cls(text, same=True, share=float(share[1]) / 100)
        if text == "same":
            return cls(text, same=True)
        found = re.fullmatch(r"(distance|divergence|price|quality)=([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)", text)
        number = float(found[2]) if found else 0.0
        if found is None or not 0 < number < math.inf:
            raise ValueError(
                f"keep is {text!r}, expected same, distance=X, accuracy=X% or price=X, or for classifiers "
                "top1, top5, divergence=X or quality=X, with X above 0, as accuracy=99%, divergence=0.3, "
                "price=1e-4 or quality=75"
            )
        if found[1] == "quality":
            return cls(text, quality=check_quality(number))
        return cls(text, price=number) if found[1] == "price" else cls(text, bound=number)

    @property
    def is_bound(self) -> bool:
        """Whether a file either meets or fails the criterion."""
        return bool(self.places or self.same or self.bound)

    def check(self, network: Network) -> None:
        """Raise ValueError if the criterion is for classifiers, and the network is none."""
        is_general = self.text.startswith(("same", "distance", "accuracy", "price"))
        if not is_general and not isinstance(network.task, Classification):
            raise ValueError(
                f"keep is {self.text!r}, which is for classifiers, and the task of {network.name} is "
                f"{network.task.name}: use same, distance=X, accuracy=X% or price=X"
            )

    def margin(self, task: Task, read: Output, clean: Output) -> Tensor:
        """The margin by which files meet a criterion that is a bound, float [N]. Below 0, files fail it.

        For top1 and top5, it is the difference of logits between the classes that must be first and all
        others. For a distance, it is the share of the bound that is left. It is differentiable in `read`.

        read, clean: outputs for the files and for the originals.
        """
        if self.bound:
            return 1 - task.distance(read, clean) / self.bound
        if self.places:
            assert isinstance(task, Classification)
            return task.first(read, clean, self.places)
        return task.margin(read, clean)


@dataclass(frozen=True)
class Reading:
    """What networks read in a file, compared with what they read in its original.

    met: whether the file meets a criterion that is a bound, for all networks.
    divergence: the mean of the networks' distances from the original; of classifiers KL(original || file),
        nat. agrees: the mean of how much of the answer is the same; of classifiers the share of the networks
        that name the same class first. Both are of the networks that were asked.
    """

    met: bool
    divergence: float
    agrees: float


def note_of(criterion: Criterion, networks: Sequence[Network]) -> str:
    """What the comment of a file says about them."""
    return f"{criterion.text} of {', '.join(f'{one.name} {one.digest}' for one in networks)}"


class Judges:
    """Networks that check files of N originals by a criterion."""

    def __init__(
        self, networks: Sequence[Network], criterion: Criterion, originals: Sequence[NDArray[np.uint8]]
    ) -> None:
        """originals: results of `view`.

        Raises ValueError if outputs are not finite, if the criterion is not for a network's task, or if a
        network has so few classes that it always meets the criterion.
        """
        self.networks, self.criterion = networks, criterion
        for network in networks:
            criterion.check(network)
        self.clean = [network.read(originals) for network in networks]
        for network, clean in zip(networks, self.clean, strict=True):
            if criterion.places and (classes := tensors(clean)[0].shape[1]) <= criterion.places:
                raise ValueError(
                    f"{network.name} has {classes} classes, and {criterion.text} needs more than "
                    f"{criterion.places}: use another criterion"
                )

    def read(
        self, which: Sequence[int], files: Sequence[NDArray[np.uint8]], *, by_all: bool = False
    ) -> list[Reading]:
        """What the networks read in files.

        which: numbers of the files' originals.

        If the criterion is a bound, a network reads only the files that meet it for all networks before it,
        unless `by_all`.
        """
        numbers = np.asarray(which, np.int64)
        met = np.ones(len(numbers), np.bool_)
        asked, total, agreeing = (np.zeros(len(numbers)) for _ in range(3))
        for network, clean in zip(self.networks, self.clean, strict=True):
            left = np.arange(len(numbers)) if by_all else np.flatnonzero(met)
            if not left.size:
                break
            outputs = network.read([files[i] for i in left.tolist()])
            for group in by_shape(outputs, np.arange(len(left))):
                read, originals = take(outputs, group), take(clean, numbers[left[group]])
                here = left[group]
                asked[here] += 1
                total[here] += distances(network.task, read, originals).numpy()
                agreeing[here] += agreements(network.task, read, originals).numpy()
                if self.criterion.is_bound:
                    met[here] &= (self.criterion.margin(network.task, read, originals) > 0).numpy()
        found = zip(met.tolist(), (total / asked).tolist(), (agreeing / asked).tolist(), strict=True)
        return [Reading(*one) for one in found]

    def gradients(
        self, which: Sequence[int], files: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[float], Tensor]:
        """The least margin among the networks for each file, and its gradient, [N, 3, size, size].

        The gradient is taken with respect to the pixels, of a smooth minimum over the networks.
        """
        least: list[float] = []
        parts: list[Tensor] = []
        for start in range(0, len(which), BATCH):
            numbers = list(which[start : start + BATCH])
            pixels = torch.from_numpy(np.stack(files[start : start + BATCH])).permute(0, 3, 1, 2).float()
            pixels.requires_grad_()
            margins = torch.stack(
                [
                    self.criterion.margin(
                        network.task, each(Tensor.cpu, network(pixels)), take(clean, numbers)
                    )
                    for network, clean in zip(self.networks, self.clean, strict=True)
                ]
            )
            soft = -SOFTNESS * torch.logsumexp(-margins / SOFTNESS, 0)
            parts += torch.autograd.grad(soft.sum(), pixels)
            least += margins.amin(0).tolist()
        return least, torch.cat(parts)


def view(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    """What networks see, uint8 height x width x 3: turned as the EXIF says, and cropped as by `View(size)`.

    size: None: the whole picture.
    """
    picture = upright(image).convert("RGB")
    return np.asarray(picture if size is None else View(size).show(picture))
