"""Tasks: what a network's output means, and how far two outputs are apart."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dnnjpeg.networks.outputs import Output, Outputs, each, shapes, tensors

_ROUNDING = 1e-4  # distances below minus this are not rounding
_SAME = 1e-6  # so that an agreement of exactly `same` passes


class LabelError(ValueError):
    """Labels do not belong to a network's classes."""


class Task:
    """What an output means. A subclass defines `distance` and `agrees`. The other methods are optional.

    An output is a tensor, or a dict of tensors, float, whose first axis has N pictures. `read` is the output
    for encoded pictures, `clean` that for their originals, of the same shapes.
    """

    name: str  # for messages
    expects: ClassVar[str] = "a tensor or a dict of tensors with N rows"
    same: ClassVar[float] = 1.0  # the agreement that --keep same asks for
    # Metrics at which codecs are compared: 1 if more is better, -1 if less is.
    scores: ClassVar[Mapping[str, int]] = {}

    def distance(self, read: Output, clean: Output) -> Tensor:
        """How far the outputs are apart, float [N], at least 0, and 0 for equal outputs.

        It must be differentiable in `read` for the methods j4d and sensitivity.
        """
        raise NotImplementedError(f"the task {self.name} has no distance")

    def agrees(self, read: Output, clean: Output) -> Tensor:
        """How much of the answer is the same, [N], 0..1."""
        raise NotImplementedError(f"the task {self.name} has no agrees")

    def metrics(self, read: Output, target: Tensor) -> dict[str, Tensor]:
        """Metrics by name, [N] each. target: the labels of the pictures."""
        return {}

    def sample_target(self, clean: Output, generator: np.random.Generator) -> Tensor:
        """Targets that are drawn from the output for the originals, for the method sensitivity."""
        raise ValueError(f"the task {self.name} has no sample_target, which sensitivity needs: use slopes")

    def surprise(self, read: Output, target: Tensor) -> Tensor:
        """A loss, [N]. Its mean squared gradient over sampled targets is the curvature of the distance."""
        raise ValueError(f"the task {self.name} has no surprise, which sensitivity needs: use slopes")

    def margin(self, read: Output, clean: Output) -> Tensor:
        """The margin by which `--keep same` is met, [N]. Below 0, it fails."""
        return self.agrees(read, clean) - self.same + _SAME

    def output(self, raw: Any) -> Any:
        """The output in what a module returns."""
        return dict(raw) if isinstance(raw, Mapping) else raw

    def fits(self, output: Output) -> bool:
        """Whether an output has the form that the task expects."""
        return True

    def check(self, output: Output, last_operation: Callable[[], str]) -> None:
        """Raise ValueError if an output is not what it must be, for example probabilities for logits."""

    def check_labels(self, labels: np.ndarray[Any, Any], clean: Outputs, name: str, source: str) -> None:
        """Raise LabelError if the labels cannot be those of the pictures."""

    @property
    def identity(self) -> tuple[object, ...]:
        """All that distances depend on."""
        kind = type(self)
        return kind.__module__, kind.__qualname__, sorted(vars(self).items())


def distances(task: Task, read: Output, clean: Output) -> Tensor:
    """The checked `distance` of a task, [N], at least 0. Raises ValueError that says what is wrong."""
    found, count = task.distance(read, clean), len(tensors(read)[0])
    if not isinstance(found, Tensor) or found.shape != (count,):
        given = shapes(found)
        raise ValueError(f"distance of the task {task.name} returns {given}, expected one number a picture")
    if not bool(torch.isfinite(found).all()):
        raise ValueError(f"distance of the task {task.name} returns NaN or infinity")
    if bool((found < -_ROUNDING).any()):
        raise ValueError(
            f"distance of the task {task.name} returns {float(found.min()):.3g}, expected at least 0"
        )
    return found.clamp(min=0)


def agreements(task: Task, read: Output, clean: Output) -> Tensor:
    """The checked `agrees` of a task, [N]. Raises ValueError that says what is wrong."""
    found, count = task.agrees(read, clean), len(tensors(read)[0])
    if not isinstance(found, Tensor) or found.shape != (count,):
        given = shapes(found)
        raise ValueError(f"agrees of the task {task.name} returns {given}, expected one number a picture")
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(f"agrees of the task {task.name} returns {found.tolist()}, expected 0..1")
    return found


def try_task(task: Task, output: Output) -> None:
    """Try a task on the outputs for two pictures. Raises ValueError that says what is wrong."""
    other = each(lambda value: value.flip(0), output)
    for read in (other, output):
        distances(task, read, output)
        agreements(task, read, output)
    if (most := float(distances(task, output, output).max())) > _ROUNDING:
        raise ValueError(f"distance of the task {task.name} is {most:.3g} for equal outputs, expected 0")


def load_task(spec: str) -> Task:
    """Make a task: classification, embedding, dense, detection, tokens, or FILE.py:CLASS.

    A file is executed. Its class is a subclass of `Task`, and is made without arguments. Raises OSError if
    the file cannot be opened, and ValueError if the spec names no task.
    """
    from dnnjpeg.networks import tasks

    if spec in tasks.TASKS:
        return tasks.TASKS[spec]()
    origin, _, name = spec.rpartition(":")
    if not origin.endswith(".py") or not name:
        raise ValueError(f"no task is named {spec!r}, expected {', '.join(tasks.TASKS)} or FILE.py:CLASS")
    source = Path(origin).read_bytes()
    # The content is part of the name, and so of the keys of all that is measured by it.
    label = f"dnnjpeg task {Path(origin).resolve()} {hashlib.sha256(source).hexdigest()[:16]}"
    found = importlib.util.spec_from_file_location(label, origin)
    assert found is not None and found.loader is not None
    home = importlib.util.module_from_spec(found)
    sys.modules[label] = home
    try:
        exec(compile(source, origin, "exec"), vars(home))
        task = getattr(home, name)()
    except Exception as error:
        raise ValueError(f"{spec} cannot be made: {type(error).__name__}: {error}") from error
    return as_task(task, spec)


def as_task(value: Any, name: str) -> Task:
    """The task that a network or a file names: a `Task`, or the text of one."""
    if isinstance(value, str):
        return load_task(value)
    if not isinstance(value, Task):
        raise ValueError(f"{name} is {type(value).__name__}, expected a dnnjpeg.networks.task.Task")
    if not hasattr(value, "name"):
        value.name = type(value).__name__
    return value
