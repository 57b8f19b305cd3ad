"""What networks must still read in a file: the criterion, and the networks that judge by it."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from dnnjpeg.checks import check_quality
from dnnjpeg.files.view import View
from dnnjpeg.networks.load import Network

BATCH = 25  # pictures of which gradients are taken together
SOFTNESS = 0.5  # of the minimum of several margins


@dataclass(frozen=True)
class Criterion:
    """What a reading must have in common with that of the original.

    text: "top1": the class that is first; "top5": the five classes that are first, in any order. These keep
        top-1 and top-5 accuracy whatever the labels are. "divergence=X": the probabilities of the classes,
        but for less than X nat of KL(original || file). "price=X": nothing, but a byte of the file weighs as
        much as X nat of the networks' mean divergence. "quality=X": nothing, but the usual picture has this
        quality, and one that the networks find harder to read has more. "accuracy=X%": as top1, in at least
        X % of the pictures.
    places: how many classes must stay first; or bound: X, of a divergence; or price: X; or quality: X. 0 for
        the others.
    """

    text: str
    places: int = 0
    bound: float = 0.0
    price: float = 0.0
    quality: float = 0.0
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The criterion that `text` names. Raises ValueError."""
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
        """Whether it says of each file what must be read in it."""
        return bool(self.places or self.bound)

    def margin(self, logits: Tensor, clean: Tensor) -> Tensor:
        """By how much a criterion that is a bound is kept (above 0) or broken, [N]: by how many logits the
        classes that must be first are ahead of all others, or the share of the bound that is left.
        Differentiable in the logits.

        logits, clean: of the files and of the originals, N x classes.
        """
        if self.places:
            first = clean >= clean.topk(self.places).values[:, -1:]
            last = logits.masked_fill(~first, math.inf).amin(1)
            return last - logits.masked_fill(first, -math.inf).amax(1)
        return 1 - divergence(logits, clean) / self.bound


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || logits) of N x classes logits each, nat, [N]."""
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
    """Networks, what each of them read in N originals, and the criterion by which they judge files."""

    def __init__(
        self, networks: Sequence[Network], criterion: Criterion, originals: Sequence[NDArray[np.uint8]]
    ) -> None:
        """originals: what `view` shows. Raises ValueError for logits that are not finite, and for a criterion
        that a network cannot break.
        """
        self.networks, self.criterion = networks, criterion
        self.clean = [torch.from_numpy(network.read(originals)) for network in networks]
        for network, clean in zip(networks, self.clean, strict=True):
            if clean.shape[1] <= criterion.places:
                raise ValueError(
                    f"{network.name} has {clean.shape[1]} classes: {criterion.text} keeps nothing"
                )

    def read(
        self, which: Sequence[int], files: Sequence[NDArray[np.uint8]], *, by_all: bool = False
    ) -> list[Reading]:
        """What the networks read in files; `which`: numbers of their originals.

        With a criterion that is a bound, a network is asked only about the files that all networks before it
        have passed, unless `by_all`.
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
        """The least margin among the networks, and its gradient by the pixels, [N, 3, size, size].

        The gradient is that of a smooth minimum: what helps one network is not to spoil another.
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
    """What networks are shown of a picture: RGB, upright as its EXIF says, cut to a `View`."""
    with suppress(Exception):  # EXIF that cannot be read turns no picture
        ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(View(size).show(image.convert("RGB")))
