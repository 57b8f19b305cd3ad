"""Working memory that is used again: pages fresh from the system cost more than the coding that fills them."""

from threading import Lock
from typing import Any

import numpy as np

RETAINED = 192 << 20  # bytes of address space kept for the next picture

_free: list[np.ndarray] = []
_lock = Lock()


class _Lease:
    """Owner of a block; gives it back when the last array on it is gone."""

    def __init__(self, block: np.ndarray):
        self.block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        with _lock:
            if sum(block.size for block in _free) + self.block.size <= RETAINED:
                _free.append(self.block)


def empty(count: int, dtype: Any) -> np.ndarray:
    """One-dimensional array of `count` elements, contents undefined, as `numpy.empty` makes it."""
    size = max(count * np.dtype(dtype).itemsize, 1 << 16)
    with _lock:
        fits = [i for i, block in enumerate(_free) if block.size >= size]
        block = _free.pop(min(fits, key=lambda i: _free[i].size)) if fits else None
    if block is None:
        # pictures of about one size share blocks
        block = np.empty(1 << (size - 1).bit_length(), np.uint8)
    return np.asarray(_Lease(block)).view(dtype)[:count]
