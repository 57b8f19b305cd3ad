"""Memory of the kernels: packed weights, and working memory that is used again and stays in the cache.

It is on large pages where the system has them (Linux with "madvise"). Weights of a network would lie on
thousands of small pages, more than a processor knows the places of.
"""

import mmap
import threading
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dnnjpeg.sparse.threads import LINE

_PAGE = 2 << 20  # bytes of a large page
_CHUNK = 4 * _PAGE  # for the weights of several layers


class Block(NamedTuple):
    """Memory, 64-byte aligned."""

    size: int
    address: int
    tensor: Tensor  # that owns it


_free: list[Block] = []  # taken and given back in one step of the interpreter each
_own = threading.local()
_lock = threading.Lock()
_rest = torch.empty(0, dtype=torch.uint8)  # of the last chunk


def _pages(size: int) -> Tensor:
    """Zeros, uint8, on large pages if there are any."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -tensor.data_ptr() % _PAGE
    return tensor[begin : begin + size]


def packed(tensor: Tensor) -> Tensor:
    """A contiguous copy of a float32 tensor, 64-byte aligned, for as long as a layer lives."""
    global _rest
    size = 4 * tensor.numel()
    whole = -(-size // LINE) * LINE
    with _lock:
        if len(_rest) < whole:
            _rest = _pages(max(whole, _CHUNK))
        place, _rest = _rest[:size], _rest[whole:]
    return place.view(torch.float32).view(tensor.shape).copy_(tensor)


def _new(size: int) -> Block:
    size = -(-size // 4096) * 4096
    tensor = torch.empty(size, dtype=torch.uint8) if size < _PAGE else _pages(size)
    return Block(size, tensor.data_ptr(), tensor)


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
