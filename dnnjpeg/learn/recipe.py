"""How a training goes, and what each of its epochs has come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dnnjpeg.checks import check_integer, is_number

_MILESTONES = 5 / 8, 3 / 4, 7 / 8  # of the epochs, where "steps" divides rates by ten (150, 180, 210 of 240)
_SCHEDULES = ("cosine", "steps")
_FINETUNE = (None, "all", "bn", "distill")


@dataclass(frozen=True)
class Recipe:
    """How `dnnjpeg.learn.training.train` trains.

    epochs, batch: passes over the pictures, and pictures a step. A pass leaves out what does not fill a step.
    lr, decay: of the weights, by SGD with Nesterov momentum 0.9.
    layer_lr: of the logarithms of steps and hardness, or of steps as published, by Adam. 0 leaves the layer
        as it is.
    schedule: of both rates: "cosine" to zero, by step, or "steps", divided by ten at 5/8, 3/4 and 7/8.
    price: what a byte of the layer's files is worth, in nat: price x mean bytes is added to the loss.
    pad: pixels of black around pictures before they are cut at random. Larger pictures than the network's are
        cut as well.
    flip: mirror every other picture.
    finetune: None trains from where the network is, in training mode. "all" and "bn" keep its running
        statistics and dropout off, and train all weights, or those of batch norms alone. "distill" trains all
        weights on the divergence from what the network read, before it was trained, in the pictures as they
        were before files and layer: labels are not used.
    bfloat16: run the network in it: on processors with AVX512-BF16, half the time.
    seed: of all that is drawn, apart from the network's first weights.

    Raises ValueError that names the field.
    """

    epochs: int = 40
    batch: int = 64
    lr: float = 0.05
    decay: float = 5e-4
    layer_lr: float = 0.03
    schedule: Literal["cosine", "steps"] = "cosine"
    price: float = 0.0
    pad: int = 4
    flip: bool = True
    finetune: Literal["all", "bn", "distill"] | None = None
    bfloat16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("pad", 0), ("seed", 0)):
            check_integer(getattr(self, name), name, least, 2**63 - 1)
        for name in ("lr", "decay", "layer_lr", "price"):
            if not is_number(value := getattr(self, name)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}, expected a number of at least 0")
        for name, choices in (("schedule", _SCHEDULES), ("finetune", _FINETUNE)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")

    def fade(self, share: float) -> float:
        """What is left of the rates after a share of the training."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        return 0.1 ** sum(share >= milestone for milestone in _MILESTONES)


@dataclass(frozen=True)
class Epoch:
    """One pass, or with the number 0 and no loss, a network that is fine-tuned as it was before.

    loss: mean over the pass's steps, nat, with `price` x bytes where there is a price.

    val_loss, val_top1: on the validation pictures, the layer as it is in training; for "distill" the
    divergence from, and agreement with, what the network read in the originals. bytes: mean of the layer's
    estimated files, where there is a price. step: geometric mean of its steps, by table of its first round.
    """

    epoch: int
    loss: float | None
    val_loss: float
    val_top1: float
    seconds: float
    bytes: float | None
    step: tuple[float, ...] | None


def best_epoch(log: Sequence[Epoch], recipe: Recipe, pictures: int) -> Epoch:
    """The one that is kept, of a log with so many validation pictures.

    Of a fine-tuned network that with the least loss on them. Else the last that has no fewer right than the
    best, but for one standard error: by so much the best may be so by chance, and rates go down to the end.
    """
    if recipe.finetune:
        return min(log, key=lambda epoch: epoch.val_loss)
    most = max(epoch.val_top1 for epoch in log)
    error = math.sqrt(most * (1 - most) / pictures)
    return next(epoch for epoch in reversed(log) if epoch.val_top1 >= most - error)
