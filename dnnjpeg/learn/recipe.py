"""The settings of a training, and the results of its epochs."""

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
    """Settings of `dnnjpeg.learn.training.train`.

    epochs: passes over the pictures.
    batch: pictures a step. Pictures that do not fill the last step of an epoch are left out of this epoch.
    lr, decay: learning rate and weight decay of the weights. The optimizer is SGD with Nesterov momentum 0.9.
    layer_lr: learning rate of the layer's parameters, by Adam. 0 leaves the layer unchanged.
    schedule: how both rates fall. "cosine": to 0, in each step. "steps": divided by ten after 5/8, 3/4 and
        7/8 of the epochs.
    price: price x mean bytes of the layer's files is added to the loss, in nat a byte.
    pad: black pixels added around a picture before it is cropped at random to the network's size.
    flip: mirror pictures at random, half of them.
    finetune: None trains in training mode. The other values keep the running statistics of batch norms fixed,
        and dropout off. "all" trains all weights. "bn" trains only the weights of batch norms. "distill"
        trains all weights to minimise the divergence from the untrained network's predictions for the
        original pictures. It needs no labels.
    bfloat16: run the network in bfloat16. This takes half the time on processors with AVX512-BF16.
    seed: seed of all random numbers, except for the network's first weights.

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
        """The factor of the learning rates after a share (0..1) of the training."""
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        return 0.1 ** sum(share >= milestone for milestone in _MILESTONES)


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch.

    epoch: number of the epoch, from 1. Fine-tuning also has the number 0, the network before training.
    loss: mean loss of the steps in nat, with price x bytes. None for number 0.
    val_loss, val_top1: loss in nat and top-1 (0..1) on the validation pictures. The layer is in the form of
        training. For "distill": divergence from, and agreement with, the predictions for the originals.
    seconds: time that the epoch took.
    bytes: mean estimated bytes of the layer's files, if there is a price.
    step: geometric mean of the layer's steps, for each table of its first round.
    """

    epoch: int
    loss: float | None
    val_loss: float
    val_top1: float
    seconds: float
    bytes: float | None
    step: tuple[float, ...] | None


def best_epoch(log: Sequence[Epoch], recipe: Recipe, pictures: int) -> Epoch:
    """The epoch whose weights are kept.

    log: all epochs.
    pictures: number of validation pictures.

    For fine-tuning, it is the epoch with the least validation loss. Otherwise, it is the last epoch whose
    top-1 is at most one standard error below the best. The best may be the best by chance, and the learning
    rates fall to the end.
    """
    if recipe.finetune:
        return min(log, key=lambda epoch: epoch.val_loss)
    most = max(epoch.val_top1 for epoch in log)
    error = math.sqrt(most * (1 - most) / pictures)
    return next(epoch for epoch in reversed(log) if epoch.val_top1 >= most - error)
