"""Working memory that is used again. Fresh pages cost more time than the coding that fills them.

A process keeps up to 192 MiB of it, or what the environment variable DNNJPEG_KEEP_MIB says.
"""

import os
from typing import Any

import numpy as np

VARIABLE = "DNNJPEG_KEEP_MIB"

# Blocks, with what numpy asks of an owner, by identity in the order in which they came back. Every access is
# one step of the interpreter, for a lock would be asked for again by a lease that the garbage collector ends
# meanwhile. A copy of the dict is such a step. A list of its items is not: tuples may start the collector.
Block = tuple[np.ndarray, dict[str, Any]]
_free: dict[int, Block] = {}


def _retained() -> int:
    """Bytes that are kept for the next picture. Raises ValueError for a variable that is no number."""
    text = os.environ.get(VARIABLE, "192")
    if not text.isdecimal():
        raise ValueError(f"the environment variable {VARIABLE} is {text!r}, expected MiB as a whole number")
    return int(text) << 20


RETAINED = _retained()


def _taken(size: int) -> Block | None:
    """Take the block that came back last, as it is in the caches, of those that are large enough and not much
    too large.
    """
    most = 2 * size + (1 << 20)
    for key, (block, _) in reversed(_free.copy().items()):
        if size <= len(block) <= most:  # len, not size: numpy takes twice as long to say that
            taken = _free.pop(key, None)
            # another thread may have taken it since, and a smaller one have got its identity
            return taken if taken is not None and len(taken[0]) >= size else None
    return None


def borrow(size: int) -> Block:
    """A uint8 array of at least `size` elements, with undefined contents. Return it with `give_back`."""
    block = _taken(size)
    if block is None:
        # rounded up by an eighth at the most, so that pictures of about one size share blocks
        grain = 1 << max(size.bit_length() - 4, 16)
        fresh = np.empty(-(-size // grain) * grain, np.uint8)
        block = fresh, fresh.__array_interface__
    return block


def give_back(block: Block) -> None:
    """Return a block, which nobody uses any more."""
    _free[id(block)] = block
    kept = _free.copy()
    held = sum([len(array) for array, _ in kept.values()])
    for key, (array, _) in kept.items():
        if held <= RETAINED:
            break
        _free.pop(key, None)
        held -= len(array)


def release_memory() -> None:
    """Give the memory that is kept for the next pictures back to the system."""
    _free.clear()


class _Lease:
    """The owner of a block. It gives the block back when the last array on it is deleted."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: Block):
        self.block = block
        self.__array_interface__ = block[1]

    def __del__(self) -> None:
        if _free is not None and give_back is not None:  # the interpreter is not ending
            give_back(self.block)


def empty(count: int, dtype: Any) -> np.ndarray:
    """A one-dimensional array like `numpy.empty(count, dtype)`, on a block that returns by itself.

    It is slower than `borrow`, but needs no `give_back`.
    """
    block = borrow(count * np.dtype(dtype).itemsize)
    return np.asarray(_Lease(block)).view(dtype)[:count]
