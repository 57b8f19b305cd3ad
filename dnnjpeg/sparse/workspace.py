"""Working memory that is used again, so that the next layer finds it in the cache."""

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
    """A block of at least `size` bytes, contents undefined; `give` it back."""
    try:
        block = _free.pop()
    except IndexError:
        return _new(size)
    return block if block.size >= size else _new(size)


def give(block: Block) -> None:
    """Let others use it."""
    _free.append(block)


def scratch(size: int) -> int:
    """Address of at least `size` bytes that are the calling thread's until it asks again."""
    block: Any = getattr(_own, "block", None)
    if block is None or block.size < size:
        block = _own.block = _new(size)
    return block.address
