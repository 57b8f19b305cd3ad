"""Work in the processes that torchrun started, or in a single process."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes of torchrun, if torchrun started this one. They communicate by gloo."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    # This module's functions keep the group that exists when the module is imported. Optimizers import the
    # module: after init_process_group, the group's threads would live on and could abort the process at exit.
    import torch.distributed.nn.functional  # noqa: F401

    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that prints and writes files for all."""
    return int(os.environ.get("RANK", 0)) == 0


def by_first(compute: Callable[[], T]) -> T:
    """Call `compute` in the first process. Returns its result in all processes."""
    if not distributed.is_initialized():
        return compute()
    box: list[Any] = [compute() if is_first() else None]
    distributed.broadcast_object_list(box)
    return box[0]
