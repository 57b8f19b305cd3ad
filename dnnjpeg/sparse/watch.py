"""Noticing that the tensors of layers were changed or replaced, at each call."""

from collections.abc import Iterable
from itertools import starmap
from operator import attrgetter, getitem
from typing import Any

from torch import Tensor

Place = tuple[dict[str, Any], str]  # a module's parameters or buffers, and a name
_VERSION = attrgetter("_version")


def tensors_at(places: Iterable[Place]) -> list[Tensor]:
    """The tensors that are there now."""
    found: Iterable[Any] = starmap(getitem, places)
    return [tensor for tensor in found if tensor is not None]


class Watch:
    """What is known of some tensors since the last call."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []  # so that nothing new gets the identity or the memory of the old
        self._counted: list[Tensor] = []  # those whose changes torch counts
        self._identities: list[int] = []
        self._versions: list[int] = []
        self._memory: list[int] = []

    def clear_if_changed(self, tensors: list[Tensor], made: dict[Any, Any]) -> None:
        """Clear what was made of tensors, unless they are the same, in the same memory, and unchanged.

        It is cleared before the change is known: another thread must not use it meanwhile.
        """
        identities, memory = [*map(id, tensors)], [*map(Tensor.data_ptr, tensors)]
        if identities == self._identities and memory == self._memory:
            versions = [*map(_VERSION, self._counted)]
            if versions != self._versions:
                made.clear()
                self._versions = versions
            return
        made.clear()
        self._kept = [*tensors, *(tensor.detach() for tensor in tensors)]
        self._counted = [tensor for tensor in tensors if not tensor.is_inference()]
        self._versions = [*map(_VERSION, self._counted)]
        self._memory, self._identities = memory, identities
