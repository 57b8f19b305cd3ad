"""Readings: a network's output for encoded pictures, compared with its output for the originals."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from dnnjpeg.files.cache import Arrays
from dnnjpeg.networks.outputs import Output, Outputs, by_shape, each, length, row_of, shapes, take, tensors
from dnnjpeg.networks.task import LabelError, Task, agreements, distances
from dnnjpeg.networks.tasks import Classification

__all__ = ["LabelError", "Readings", "compare", "decode"]


@dataclass(frozen=True, eq=False)
class Readings:
    """Comparisons of N pictures: arrays with a value for each.

    A metric of the task can be read as an attribute, too: `readings.top1`.
    """

    divergence: NDArray[np.float64]  # the task's distance from the original >= 0; of a classifier in nat
    agrees: NDArray[Any]  # how much is read as in the original, 0..1; of a classifier a bool
    metrics: Arrays = field(default_factory=dict)  # those of the task, if there are labels

    def __getattr__(self, name: str) -> NDArray[Any]:
        try:
            return self.__dict__["metrics"][name]
        except KeyError:
            raise AttributeError(f"there is no metric {name!r}") from None

    def arrays(self) -> Arrays:
        """All arrays by name. `Readings.of` turns them back."""
        return {"divergence": self.divergence, "agrees": self.agrees, **self.metrics}

    @classmethod
    def of(cls, arrays: Arrays) -> Self:
        """Readings from their arrays."""
        own = dict(arrays)
        return cls(own.pop("divergence"), own.pop("agrees"), own)

    @classmethod
    def join(cls, parts: "Sequence[Readings]") -> Self:
        """The readings of all pictures, from those of some after the other."""
        arrays = [part.arrays() for part in parts]
        return cls.of({name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]})


def compare(
    logits: Outputs | ArrayLike,
    clean: Outputs | ArrayLike,
    labels: ArrayLike | None = None,
    task: Task | None = None,
) -> Readings:
    """Compare the outputs for encoded pictures with those for the originals, and with labels.

    logits: outputs for the encoded pictures, finite. For classification, N x classes.
    clean: outputs for the originals, of the same shapes.
    labels: what the task's `metrics` takes, N rows: for classification, integers 0..classes - 1. Or None.
    task: what the outputs mean. None: classification.

    Computed in float64. Raises ValueError that names the argument, and LabelError for labels out of range.
    """
    task = task or Classification()
    read, original = _outputs(logits), _outputs(clean)
    for i in range(length(original)) if list in (type(read), type(original)) else ():
        given, expected = (shapes(row_of(outputs, i)) for outputs in (read, original))
        if given != expected:
            raise ValueError(
                f"the output for picture {i} is {given}, and that for its original {expected}: a codec that "
                "changes the size of pictures needs networks that crop"
            )
    target = None if labels is None else torch.from_numpy(np.asarray(labels))
    count = length(original)
    groups = list(by_shape(original, np.arange(count)))
    if target is not None and len(groups) > 1 and len(target) != count:
        raise ValueError(f"labels have {len(target)} rows, expected {count}")
    found = [
        _compare(
            _checked(read, "logits", i, task),
            _checked(original, "clean", i, task),
            target if target is None or len(groups) == 1 else target[i],
            task,
        )
        for i in groups
    ]
    if len(groups) == 1:
        return found[0]
    places = np.argsort(np.concatenate(groups))
    return Readings.of({name: array[places] for name, array in Readings.join(found).arrays().items()})


def _compare(read: Output, clean: Output, target: Tensor | None, task: Task) -> Readings:
    given, expected = ([tuple(part.shape) for part in tensors(output)] for output in (clean, read))
    if given != expected:
        raise ValueError(f"clean has the shape {given[0]}, expected that of logits, {expected[0]}")
    metrics = {} if target is None else task.metrics(read, target)
    divergence, agrees = distances(task, read, clean), agreements(task, read, clean)
    return Readings(divergence.numpy(), agrees.numpy(), each(Tensor.numpy, metrics))


def _outputs(values: Any) -> Outputs:
    """Outputs of networks as they are, and nested lists of numbers as an array."""
    if isinstance(values, dict) or (isinstance(values, list) and isinstance(values[0], np.ndarray | dict)):
        return values
    return np.asarray(values)


def _checked(outputs: Any, name: str, index: NDArray[np.int64], task: Task) -> Output:
    output: Output = (
        each(torch.from_numpy, outputs) if not isinstance(outputs, list) else take(outputs, index)
    )
    output = each(Tensor.double, output)
    if not task.fits(output):
        raise ValueError(f"{name} has the shape {tuple(tensors(output)[0].shape)}, expected {task.expects}")
    for value in tensors(output):
        faulty = (~value.isfinite()).reshape(len(value), -1).any(1).nonzero()
        if len(faulty):
            raise ValueError(f"{name}[{index[faulty[0, 0]]}] is not finite")
    return output


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a file by Pillow: uint8 H x W x 3, RGB. Grey becomes RGB. Raises OSError."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))
