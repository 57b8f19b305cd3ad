"""The tasks that dnnjpeg has: classification, embedding, dense, detection and tokens."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.networks.detection import Detection
from dnnjpeg.networks.outputs import Output, Outputs, single
from dnnjpeg.networks.task import LabelError, Task


class _Logits(Task):
    """A task whose output is one tensor of logits, also where a model of transformers returns more."""

    def output(self, raw: Any) -> Any:
        return getattr(raw, "logits", raw)


class Classification(_Logits):
    """N x classes logits. Distance: KL(clean || read), nat. Agrees: the largest logit is the same."""

    name = "classification"
    expects = "N x classes"
    scores: ClassVar[Mapping[str, int]] = {"loss": -1, "top1": 1}

    def distance(self, read: Output, clean: Output) -> Tensor:
        return _divergence(single(read), single(clean), 1)

    def agrees(self, read: Output, clean: Output) -> Tensor:
        return single(read).argmax(1) == single(clean).argmax(1)

    def metrics(self, read: Output, target: Tensor) -> dict[str, Tensor]:
        """loss: cross-entropy, nat; top1, top5: the label is the largest, or among the five largest.

        If two classes have equal logits, the first counts as the larger, as in `argmax`.
        """
        logits = single(read)
        label = _labels(target, *logits.shape)[:, None]
        own = logits.gather(1, label)
        before = torch.arange(logits.shape[1], device=logits.device) < label
        rank = ((logits > own) | ((logits == own) & before)).sum(1)
        return {"loss": self.surprise(logits, label[:, 0]), "top1": rank < 1, "top5": rank < 5}

    def sample_target(self, clean: Output, generator: np.random.Generator) -> Tensor:
        return _drawn(single(clean), 1, generator)

    def surprise(self, read: Output, target: Tensor) -> Tensor:
        return F.cross_entropy(single(read), target, reduction="none")

    def margin(self, read: Output, clean: Output) -> Tensor:
        return self.first(read, clean, 1)

    def first(self, read: Output, clean: Output, places: int) -> Tensor:
        """The difference of logits between the classes that must be first and all others, [N]."""
        logits, original = single(read), single(clean)
        first = original >= original.topk(places).values[:, -1:]
        last = logits.masked_fill(~first, math.inf).amin(1)
        return last - logits.masked_fill(first, -math.inf).amax(1)

    def fits(self, output: Output) -> bool:
        return isinstance(output, Tensor) and output.ndim == 2

    def check(self, output: Output, last_operation: Callable[[], str]) -> None:
        logits = single(output).numpy()
        if logits.shape[1] < 2:
            raise ValueError("it returns one value, expected a logit for each class")
        if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
            raise ValueError("it returns probabilities, expected logits: leave out the softmax")
        if (logits >= 0).all() and (logits <= 1).all() and "sigmoid" in last_operation().lower():
            raise ValueError("it returns probabilities, expected logits: leave out the sigmoid")

    def check_labels(self, labels: np.ndarray[Any, Any], clean: Outputs, name: str, source: str) -> None:
        logits = single(clean)
        count, classes = logits.shape
        kinds = np.unique(labels)
        if len(kinds) == 1:
            raise LabelError(
                f"all {count} pictures of {source} have label {kinds[0]}, expected several classes"
            )
        predicted = logits.argmax(1)
        correct = int((predicted == labels).sum())
        # What the same labels in any other order would give. Of few pictures three standard deviations may
        # be all there are: half the way from chance to perfect convinces too.
        shares = [np.bincount(kind, minlength=classes) / count for kind in (labels, predicted)]
        chance = count * float(shares[0] @ shares[1])
        if correct <= min(chance + 3 * chance**0.5, (chance + count) / 2):
            raise LabelError(
                f"{name} finds the label of {correct} of {count} clean pictures of {source}, and chance "
                f"would find {chance:.0f}: check that the labels belong to these pictures, and that they "
                "number the classes as the network does"
            )


class Embedding(Task):
    """N x features. Distance: 1 - cosine. Agrees: the cosine, at least 0."""

    name = "embedding"
    expects = "N x features"
    same = 0.95

    def distance(self, read: Output, clean: Output) -> Tensor:
        # half the squared distance of the unit vectors: exactly 0 for equal ones
        return (F.normalize(single(read)) - F.normalize(single(clean))).square().sum(1) / 2

    def agrees(self, read: Output, clean: Output) -> Tensor:
        return (1 - self.distance(read, clean)).clamp(0, 1)

    def sample_target(self, clean: Output, generator: np.random.Generator) -> Tensor:
        return torch.from_numpy(generator.normal(size=single(clean).shape)).float()

    def surprise(self, read: Output, target: Tensor) -> Tensor:
        return (F.normalize(single(read)) * target).sum(1)

    def fits(self, output: Output) -> bool:
        return isinstance(output, Tensor) and output.ndim == 2


class Dense(_Logits):
    """N x channels x H x W. Several channels are logits of classes, one is a map of numbers (depth, text).

    Distance: the mean over pixels of KL(clean || read), or of |read - clean|. Agrees: the share of the pixels
    with the same class, or on the same side of the middle of the original's range.
    """

    name = "dense"
    expects = "N x channels x height x width"
    same = 0.99

    def distance(self, read: Output, clean: Output) -> Tensor:
        one, other = single(read), single(clean)
        if one.shape[1] == 1:
            return (one - other).abs().mean((1, 2, 3))
        return _divergence(one, other, 1).mean((1, 2))

    def agrees(self, read: Output, clean: Output) -> Tensor:
        one, other = single(read), single(clean)
        if one.shape[1] > 1:
            return (one.argmax(1) == other.argmax(1)).float().mean((1, 2))
        middle = (other.amin((2, 3), keepdim=True) + other.amax((2, 3), keepdim=True)) / 2
        return ((one > middle) == (other > middle)).float().mean((1, 2, 3))

    def sample_target(self, clean: Output, generator: np.random.Generator) -> Tensor:
        values = single(clean)
        if values.shape[1] == 1:
            return torch.from_numpy(generator.normal(size=values.shape)).float()
        return _drawn(values, 1, generator)

    def surprise(self, read: Output, target: Tensor) -> Tensor:
        values = single(read)
        if values.shape[1] == 1:
            return (values * target).sum((1, 2, 3)) / math.sqrt(values[0].numel())
        loss = F.cross_entropy(values, target, reduction="none")
        return loss.sum((1, 2)) / math.sqrt(loss[0].numel())

    def fits(self, output: Output) -> bool:
        return isinstance(output, Tensor) and output.ndim == 4


class Tokens(_Logits):
    """N x positions x vocabulary, logits of the next token under a fixed prompt.

    Distance: the mean over positions of KL(clean || read), nat. Agrees: the share of equal first tokens.
    """

    name = "tokens"
    expects = "N x positions x vocabulary"

    def distance(self, read: Output, clean: Output) -> Tensor:
        return _divergence(single(read), single(clean), 2).mean(1)

    def agrees(self, read: Output, clean: Output) -> Tensor:
        return (single(read).argmax(2) == single(clean).argmax(2)).float().mean(1)

    def sample_target(self, clean: Output, generator: np.random.Generator) -> Tensor:
        return _drawn(single(clean), 2, generator)

    def surprise(self, read: Output, target: Tensor) -> Tensor:
        loss = F.cross_entropy(single(read).transpose(1, 2), target, reduction="none")
        return loss.sum(1) / math.sqrt(loss.shape[1])

    def fits(self, output: Output) -> bool:
        return isinstance(output, Tensor) and output.ndim == 3


TASKS: dict[str, type[Task]] = {
    kind.name: kind for kind in (Classification, Embedding, Dense, Detection, Tokens)
}


def _drawn(logits: Tensor, axis: int, generator: np.random.Generator) -> Tensor:
    """Classes of an axis, drawn from the softmax: the largest of the logits plus Gumbel noise."""
    values = logits.numpy()
    return torch.from_numpy((values + generator.gumbel(size=values.shape)).argmax(axis))


def _divergence(logits: Tensor, clean: Tensor, axis: int) -> Tensor:
    """KL(clean || logits) in nat, over the classes of an axis."""
    log_clean = clean.log_softmax(axis)
    return (log_clean.exp() * (log_clean - logits.log_softmax(axis))).sum(axis)


def _labels(target: Tensor, count: int, classes: int) -> Tensor:
    if target.shape != (count,) or target.is_floating_point() or target.dtype == torch.bool:
        kind = str(target.dtype).removeprefix("torch.")
        raise ValueError(f"labels are {kind} of shape {tuple(target.shape)}, expected {count} integers")
    wrong = ((target < 0) | (target >= classes)).nonzero()[:, 0]
    if len(wrong):
        raise LabelError(
            f"labels[{wrong[0]}] is {target[wrong[0]]} ({len(wrong)} of {count} are out of range), expected "
            f"0..{classes - 1}: check that the labels belong to this network's {classes} classes"
        )
    return target.long()
