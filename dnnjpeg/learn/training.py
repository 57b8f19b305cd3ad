"""Train a network, alone or with a JPEG layer before it, from scratch or to fine-tune it.

A picture is cropped and mirrored. If points are given, it is then encoded as a real file and decoded. It
passes the layer, if there is one, and the network. Adam trains the layer, without weight decay. SGD trains
the weights.
"""

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.cache import digest
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.learn.batches import Pictures, augment, check_labels, cut, pixels, read, recompress
from dnnjpeg.learn.jpegdl import JPEGLayer
from dnnjpeg.learn.recipe import Epoch, Recipe, best_epoch
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.readings import compare
from dnnjpeg.table.point import OperatingPoint

_MOMENTUM = 0.9
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def train(
    network: Network,
    learning: Dataset,
    validation: Dataset,
    recipe: Recipe,
    *,
    layer: JPEGLayer | None = None,
    points: Sequence[OperatingPoint] = (),
    state: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
) -> list[Epoch]:
    """Train the network's module, and the layer, in place. Returns all epochs.

    Module and layer end with their weights of the `best_epoch`. The network's digest stays that of the
    weights before.

    learning, validation: squares at least as large as the network's input, with labels (except for
        "distill"). Validation pictures are cropped to their centre.
    points: if given, each picture is encoded at one of these points, chosen at random, and decoded by Pillow.
    state: file that keeps the state after each epoch. If the file exists, the training continues from it,
        with the same result as without the interruption. Give network and layer as they were at the start.
    on_epoch: called after each epoch, and for each epoch in `state`.

    Raises ValueError if labels are missing or are not the network's, if pictures are too small, if "bn" meets
    a network without batch norms, if there is a price without a layer of one round, if the state belongs to
    another training, or if logits are not finite.
    """
    training = _Training(network, learning, validation, recipe, layer, tuple(points))
    file = None if state is None else Path(state)
    if file is not None and file.exists():
        training.restore(file)
    for epoch in training.epochs:
        on_epoch(epoch)
    while not training.epochs or training.epochs[-1].epoch < recipe.epochs:
        epoch = training.advance()
        if file is not None:
            training.save(file)
        on_epoch(epoch)
    training.take_best()
    return training.epochs


class _Training:
    def __init__(
        self,
        network: Network,
        learning: Dataset,
        validation: Dataset,
        recipe: Recipe,
        layer: JPEGLayer | None,
        points: tuple[OperatingPoint, ...],
    ) -> None:
        self.network, self.module, self.layer = network, network.module, layer
        self.learning, self.recipe, self.points = learning, recipe, points
        self.size, self.is_distilled = network.preprocess.size, recipe.finetune == "distill"
        cut(learning.squares[:1], self.size)
        self.val = cut(validation.squares, self.size)
        clean = network.read(self.val)
        for part in (learning, validation):
            if not self.is_distilled:
                check_labels(network, part)
        if recipe.price and (layer is None or len(layer.log_steps()) > 1):
            raise ValueError(
                f"price is {recipe.price}, and needs a layer with one round: give one, or price 0"
            )
        self.val_labels = clean.argmax(1) if self.is_distilled else validation.labels
        self.val_clean = clean
        if points:
            self.val = recompress(self.val, points)
        self.teacher = replace(network, module=deepcopy(self.module).eval()) if self.is_distilled else None
        weights = _trained(self.module, recipe.finetune)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.SGD(weights, recipe.lr, _MOMENTUM, weight_decay=recipe.decay, nesterov=True)
        ]
        if layer is not None:
            layer.to(network.device)
            self.optimizers.append(torch.optim.Adam(layer.parameters(), recipe.layer_lr))
        self.rates = [recipe.lr, recipe.layer_lr]
        self.epochs: list[Epoch] = []
        self.best: list[dict[str, Tensor]] = []
        learned = [] if layer is None else [name for name, _ in layer.named_parameters()]
        before = [
            (name, digest(tensor.cpu().numpy()))
            for part in self._parts()
            for name, tensor in part.state_dict().items()
        ]
        data = [
            (part.identity, part.labels is not None and digest(part.labels))
            for part in (learning, validation)
        ]
        self.identity = repr((recipe, network.identity, learned, before, data, points))

    def advance(self) -> Epoch:
        """Train for one epoch. The first call of a fine-tuning only measures the network (epoch 0)."""
        recipe, began = self.recipe, time.monotonic()
        number = self.epochs[-1].epoch if self.epochs else 0
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, number]).generate_state(1)[0]))
        if recipe.finetune and not self.epochs:
            return self._judge(0, None, [], began)
        self.module.train(recipe.finetune is None)
        losses, sizes = [], []
        count = max(len(self.learning) // recipe.batch, 1)
        for step, (pictures, labels) in enumerate(self._batches(number)):
            share = (number + step / count) / recipe.epochs
            for optimizer, rate in zip(self.optimizers, self.rates, strict=False):
                optimizer.param_groups[0]["lr"] = rate * recipe.fade(share)
                optimizer.zero_grad()
            loss, size = self._loss(pictures, labels, np.random.default_rng([recipe.seed, number, step, 1]))
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in self.optimizers:
                optimizer.step()
            if self.layer is not None:
                self.layer.clamp_()
            losses.append(loss.detach())
            sizes.append(size)
        return self._judge(number + 1, float(torch.stack(losses).mean()), sizes, began)

    def _judge(self, number: int, loss: float | None, sizes: list[float], began: float) -> Epoch:
        """Measure the results of an epoch, and keep its weights if it is the best so far."""
        self.module.eval()
        form = "soft" if self.layer is None else self.layer.form
        try:
            logits = read(self.network, self.val, self.layer, form)
        except ValueError as error:
            raise ValueError(
                f"{error} after epoch {number}: give learning rates below {self.rates}"
            ) from None
        readings = compare(logits, self.val_clean, self.val_labels)
        val_loss = float((readings.divergence if self.is_distilled else readings.loss).mean())
        val_top1 = float(readings.top1.mean())
        epoch = Epoch(
            number,
            None if loss is None else round(loss, 5),
            round(val_loss, 5),
            round(val_top1, 5),
            round(time.monotonic() - began, 2),
            round(float(np.mean(sizes)), 1) if self.recipe.price and sizes else None,
            None if self.layer is None else _mean_steps(self.layer),
        )
        self.epochs.append(epoch)
        if best_epoch(self.epochs, self.recipe, len(self.val)) is epoch:
            self.best = [deepcopy(part.state_dict()) for part in self._parts()]
        return epoch

    def _batches(self, number: int) -> Iterator[tuple[Pictures, NDArray[np.int64] | None]]:
        """The batches of an epoch: augmented pictures, and their labels."""
        recipe, count = self.recipe, len(self.learning)
        generator = np.random.default_rng([recipe.seed, number])
        order = generator.permutation(count)
        size = min(recipe.batch, count)
        for start in range(0, count - size + 1, size):
            index = order[start : start + size]
            pictures = augment(self.learning.squares[index], self.size, recipe.pad, recipe.flip, generator)
            yield pictures, None if self.learning.labels is None else self.learning.labels[index]

    def _loss(
        self, pictures: Pictures, labels: NDArray[np.int64] | None, generator: np.random.Generator
    ) -> tuple[Tensor, float]:
        """The loss of a batch, and the mean bytes of the layer's files (0 without a price)."""
        device, layer, price = self.network.device, self.layer, self.recipe.price
        files = recompress(pictures, self.points, generator) if self.points else pictures
        inputs = behind = pixels(files, device)
        size = torch.zeros((), device=device)
        with torch.set_grad_enabled(self.recipe.layer_lr > 0):  # a layer left as it is needs no gradients
            if layer is not None:
                behind = layer(inputs)
            if layer is not None and price:
                size = layer.bits(inputs).mean() / 8
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = self.network(behind)
            if self.teacher is not None:
                with torch.no_grad():
                    target = self.teacher(pixels(pictures, device)).log_softmax(1)
        if self.teacher is not None:
            loss = F.kl_div(logits.log_softmax(1), target, reduction="batchmean", log_target=True)
        else:
            loss = F.cross_entropy(logits, torch.from_numpy(labels).to(device))
        return loss + price * size, float(size.detach())

    def _parts(self) -> list[nn.Module]:
        return [self.module, *([] if self.layer is None else [self.layer])]

    def take_best(self) -> None:
        for part, state in zip(self._parts(), self.best, strict=True):
            part.load_state_dict(state)
        self.module.eval().requires_grad_(False)

    def save(self, file: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": self.identity,
                "epochs": [asdict(epoch) for epoch in self.epochs],
                "best": self.best,
                "parts": [part.state_dict() for part in self._parts()],
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
            buffer,
        )
        write_atomic(file, buffer.getvalue())

    def restore(self, file: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(file, map_location=self.network.device, weights_only=True)
            identity = state["identity"]
        except Exception as error:
            raise ValueError(f"{file} is not the state of a training: delete it to start again") from error
        if identity != self.identity:
            raise ValueError(
                f"{file} is the state of another training: give the network and the options of that "
                "training, or delete the file"
            )
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.best = state["best"]
        for part, kept in zip(self._parts(), state["parts"], strict=True):
            part.load_state_dict(kept)
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)


def _trained(module: nn.Module, finetune: str | None) -> list[nn.Parameter]:
    """The weights that are trained. All others get requires_grad=False."""
    norms = [part for part in module.modules() if isinstance(part, _NORMS) and part.affine]
    if finetune == "bn" and not norms:
        raise ValueError(
            "the network has no batch norms (they may be folded into its convolutions), and finetune 'bn' "
            "needs them: use 'all'"
        )
    module.requires_grad_(finetune != "bn")
    weights = [weight for part in norms for weight in part.parameters()] if finetune == "bn" else []
    for weight in weights:
        weight.requires_grad_()
    return weights or list(module.parameters())


def _mean_steps(layer: JPEGLayer) -> tuple[float, ...]:
    return tuple(round(step, 3) for step in layer.log_steps()[0].detach().mean(1).exp().tolist())
