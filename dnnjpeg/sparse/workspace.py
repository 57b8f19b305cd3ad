"""Working memory that is used again, so that it is still in the cache for the next layer."""

import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Block(NamedTuple):
    """Memory, 64-byte aligned."""

    size: int
    address: int
    tensor: Tensor  # that owns it


_free: list[Block] = []  # taken and given back in one step of the interpreter each
_own = threading.local()


def _new(size: int) -> Block:
    tensor = torch.empty(-(-size // 4096) * 4096, dtype=torch.uint8)
    return Block(tensor.numel(), tensor.data_ptr(), tensor)


def take(size: int) -> Block:
    """A block of at least `size` bytes with undefined contents. Return it with `give`."""
    try:
        block = _free.pop()
    except IndexError:
        return _new(size)
    return block if block.size >= size else _new(size)


def give(block: Block) -> None:
    """Return a block."""
    _free.append(block)


def scratch(size: int) -> int:
    """The address of at least `size` bytes for the calling thread, valid until its next call."""
    block: Any = getattr(_own, "block", None)
    if block is None or block.size < size:
        block = _own.block = _new(size)
    return block.address
