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
from dnnjpeg.networks.load import Network

BATCH = 25  # pictures of which gradients are taken together
SOFTNESS = 0.5  # of the minimum of several margins


@dataclass(frozen=True)
class Criterion:
    """What networks must still read in a file.

    text: the criterion.
        "top1": the same class first. Top-1 accuracy stays the same, whatever the labels are.
        "top5": the same five classes first, in any order. Top-5 accuracy stays the same.
        "accuracy=X%": as top1, in at least X % of the pictures.
        "divergence=X": KL(original || file) of the class probabilities is less than X nat.
        "price=X": no bound. Minimise mean divergence + X x bytes.
        "quality=X": no bound. X is the average quality; pictures that are hard to read get a higher one.
    places: number of classes that must stay first, else 0.
    bound, price, quality: the X of each kind, else 0. share: that of accuracy, else 1.
    """

    text: str
    places: int = 0
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
            return cls(text, places=1, share=float(share[1]) / 100)
        found = re.fullmatch(r"(divergence|price|quality)=([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)", text)
        number = float(found[2]) if found else 0.0
        if found is None or not 0 < number < math.inf:
            raise ValueError(
                f"keep is {text!r}, expected top1, top5, accuracy=X%, divergence=X, price=X or quality=X "
                "with X above 0, as accuracy=99%, divergence=0.3, price=1e-4 or quality=75"
            )
        if found[1] == "quality":
            return cls(text, quality=check_quality(number))
        return cls(text, bound=number) if found[1] == "divergence" else cls(text, price=number)

    @property
    def is_bound(self) -> bool:
        """Whether a file either meets or fails the criterion."""
        return bool(self.places or self.bound)

    def margin(self, logits: Tensor, clean: Tensor) -> Tensor:
        """The margin by which files meet a criterion that is a bound, float [N]. Below 0, files fail it.

        For top1 and top5, it is the difference of logits between the classes that must be first and all
        others. For a divergence, it is the share of the bound that is left. It is differentiable in the
        logits.

        logits, clean: logits of the files and of the originals, N x classes.
        """
        if self.places:
            first = clean >= clean.topk(self.places).values[:, -1:]
            last = logits.masked_fill(~first, math.inf).amin(1)
            return last - logits.masked_fill(first, -math.inf).amax(1)
        return 1 - divergence(logits, clean) / self.bound


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || logits) in nat, float [N], for logits of shape N x classes."""
    log_clean = clean.log_softmax(1)
    return (log_clean.exp() * (log_clean - logits.log_softmax(1))).sum(1)


@dataclass(frozen=True)
class Reading:
    """What networks read in a file, compared with what they read in its original.

    kept: whether all of them keep a criterion that is a bound.
    divergence: the mean of the networks' KL(original || file), nat. agrees: the share of the networks that
        name the same class first. Both are of the networks that were asked.
    """

    kept: bool
    divergence: float
    agrees: float


class Judges:
    """Networks that check files of N originals by a criterion."""

    def __init__(
        self, networks: Sequence[Network], criterion: Criterion, originals: Sequence[NDArray[np.uint8]]
    ) -> None:
        """originals: results of `view`.

        Raises ValueError if logits are not finite, or if a network has so few classes that it always meets
        the criterion.
        """
        self.networks, self.criterion = networks, criterion
        self.clean = [torch.from_numpy(network.read(originals)) for network in networks]
        for network, clean in zip(networks, self.clean, strict=True):
            if clean.shape[1] <= criterion.places:
                raise ValueError(
                    f"{network.name} has {clean.shape[1]} classes, and {criterion.text} needs more than "
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
        kept = np.ones(len(numbers), np.bool_)
        asked, total, agreeing = (np.zeros(len(numbers)) for _ in range(3))
        for network, clean in zip(self.networks, self.clean, strict=True):
            left = np.arange(len(numbers)) if by_all else np.flatnonzero(kept)
            if not left.size:
                break
            logits = torch.from_numpy(network.read([files[i] for i in left.tolist()]))
            originals = clean[numbers[left]]
            asked[left] += 1
            total[left] += divergence(logits, originals).clamp(min=0).numpy()
            agreeing[left] += (logits.argmax(1) == originals.argmax(1)).numpy()
            if self.criterion.is_bound:
                kept[left] &= (self.criterion.margin(logits, originals) > 0).numpy()
        found = zip(kept.tolist(), (total / asked).tolist(), (agreeing / asked).tolist(), strict=True)
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
                    self.criterion.margin(network(pixels).cpu(), clean[numbers])
                    for network, clean in zip(self.networks, self.clean, strict=True)
                ]
            )
            soft = -SOFTNESS * torch.logsumexp(-margins / SOFTNESS, 0)
            parts += torch.autograd.grad(soft.sum(), pixels)
            least += margins.amin(0).tolist()
        return least, torch.cat(parts)


def view(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The square that networks see, uint8 size x size x 3: turned as the EXIF says, cropped as by `View`."""
    return np.asarray(View(size).show(upright(image).convert("RGB")))
