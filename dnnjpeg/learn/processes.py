"""The processes that torchrun started, this one among them; or this one alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Join those of torchrun, if it started this one: they exchange a few hundred numbers a step, by gloo."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    # Functions there keep the group of the moment at which they are defined as a default. Optimizers import
    # them: after the next line the group's threads would live on, and could abort the process at its end.
    import torch.distributed.nn.functional  # noqa: F401

    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that speaks and writes for all."""
    return int(os.environ.get("RANK", 0)) == 0


def by_first(compute: Callable[[], T]) -> T:
    """What the first process computes, in all of them."""
    if not distributed.is_initialized():
        return compute()
    box: list[Any] = [compute() if is_first() else None]
    distributed.broadcast_object_list(box)
    return box[0]
