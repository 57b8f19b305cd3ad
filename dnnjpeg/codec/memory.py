"""Working memory that is used again: fresh pages cost more than the coding that fills them."""

from threading import Lock
from typing import Any

import numpy as np

RETAINED = 192 << 20  # bytes of address space kept for the next picture

_free: list[np.ndarray] = []
_lock = Lock()


class _Lease:
    """Owner of a block; gives it back when the last array on it is gone."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: np.ndarray):
        self.block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        with _lock:
            _free.append(self.block)
            held = 0
            for i, block in enumerate(_free):
                held += block.size
                if held > RETAINED:
                    del _free[i]
                    break


def empty(count: int, dtype: Any) -> np.ndarray:
    """One-dimensional array of `count` elements, contents undefined, as `numpy.empty` makes it."""
    size = count * np.dtype(dtype).itemsize
    with _lock:
        fits = [block.size for block in _free if size <= block.size <= 2 * size + (1 << 20)]
        if fits:
            block = _free.pop([block.size for block in _free].index(min(fits)))
        else:
            # rounded up by an eighth at the most, so that pictures of about one size share blocks
            grain = 1 << max(size.bit_length() - 4, 16)
            block = np.empty(-(-size // grain) * grain, np.uint8)
    return np.asarray(_Lease(block)).view(dtype)[:count]
