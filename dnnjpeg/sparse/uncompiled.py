"""Keeping torch.compile out of functions that hand addresses of tensors to compiled code."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """As `torch.compiler.disable`, which is loaded only if torch.compile is in use: that takes over a second.

    torch.compile would free tensors as soon as their addresses were taken.
    """
    disabled: Callable[P, R] | None = None

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **options)
        if disabled is None:
            disabled = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return disabled(*args, **options)

    return call
