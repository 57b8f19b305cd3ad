"""Non-zeros as the ring kernel reads them: a list a pixel, of the channels of a block.

This is CPO for the machine: every non-zero is kept once, under its column, and which outputs overlap there follows
from the column. Channels take the place of rows within a list, because that is what vectors are wide in. As in CPO
a non-zero has a value and an index; as in CPS one pattern of bits can tell the indices of neighbours, here of 16 to
128 channels.
"""

from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from dnnjpeg.jit import callback, inlined
from dnnjpeg.simd import (
    address,
    compress,
    count_ones,
    fetch_add,
    lanes_of,
    load,
    load_where,
    mask_bits,
    reinterpret,
    store,
)
from dnnjpeg.sparse.geometry import Memory
from dnnjpeg.sparse.threads import run
from dnnjpeg.sparse.transpose import transpose

LANES = 16
_NUMBERS = np.arange(LANES, dtype=np.uint16)
_JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "next", "threads", "nonzeros",  # rows taken, threads that have begun, non-zeros found
            "source", "values", "indices", "cells", "scratch",  # addresses
            "rows", "height", "width", "channels", "block", "blocks", "patterns",
            "image_bytes", "row_bytes", "pixel_bytes", "channel_bytes",  # from one to the next of the source
            "value_bytes", "cell_bytes", "scratch_bytes",  # from one list of a row to the next; of a thread
        )
    ]
)  # fmt: skip


@inlined
def pack_row(source, pixel_bytes, width, channels, values, indices, cells, block, patterns):
    """Lists of the non-zeros in a row of pixels, `channels` float32 each; all addresses. Returns how many.

    Writes up to 64 bytes more than the lists take.
    """
    groups = (channels + LANES - 1) // LANES
    tail = lanes_of(np.uint64((1 << (channels - LANES * (groups - 1))) - 1), "i1x16")
    numbers = load(address(_NUMBERS), "u16x16")
    count = 0
    if not patterns:
        store(cells, np.int32(0))
    for x in range(width):
        at = source + x * pixel_bytes
        pattern = cells + x * (block // 8)
        word = np.uint64(0)
        if patterns and block > 64:
            store(pattern + 8, word)
        for group in range(groups):
            if group + 1 < groups:
                v = load(at + 64 * group, "f32x16")
            else:
                v = load_where(at + 64 * group, tail, "f32x16")
            nonzero = (reinterpret(v, "u32x16") << 1) != 0  # NaN is one, -0 is not
            bits = mask_bits(nonzero)
            store(values + 4 * count, compress(v, nonzero))
            if patterns:
                word |= bits << np.uint64(LANES * (group & 3))
                store(pattern + 8 * (group >> 2), word)
                if group & 3 == 3:
                    word = np.uint64(0)
            else:
                store(indices + 2 * count, compress(numbers + np.uint16(LANES * group), nonzero))
            count += np.int64(count_ones(bits))
        if not patterns:
            store(cells + 4 * (x + 1), np.int32(count))
    return count


def _compress(jobs):
    job = numba.carray(jobs, 1)
    at = address(job)
    job = job[0]
    scratch = job.scratch + fetch_add(at + 8, 1) * job.scratch_bytes
    while True:
        row = fetch_add(at, 1)
        if row >= job.rows:
            break
        image = row // job.height
        source = job.source + image * job.image_bytes + (row - image * job.height) * job.row_bytes
        nonzeros = 0
        for b in range(job.blocks):
            channels = min(job.block, job.channels - b * job.block)
            start = source + b * job.block * job.channel_bytes
            pixel_bytes = job.pixel_bytes
            if job.channel_bytes != 4:
                pixel_bytes = job.block * 4
                for c in range(0, channels, LANES):
                    for x in range(0, job.width, LANES):
                        transpose(
                            start + c * job.channel_bytes + 4 * x, job.channel_bytes,
                            min(LANES, channels - c), min(LANES, job.width - x),
                            scratch + x * pixel_bytes + 4 * c, pixel_bytes,
                        )  # fmt: skip
                start = scratch
            segment = row * job.blocks + b
            nonzeros += pack_row(
                start, pixel_bytes, job.width, channels,
                job.values + segment * job.value_bytes, job.indices + segment * (job.value_bytes // 2),
                job.cells + segment * job.cell_bytes, job.block, job.patterns,
            )  # fmt: skip
        fetch_add(at + 16, nonzeros)


@cache
def _code() -> Any:
    return callback(_compress, _JOB)


class Lists:
    """Lists of the non-zeros of N x H x W pixels, in blocks of channels.

    block: channels of a list: 16, 32, 64 or 128.
    patterns: tell a list's channels by a pattern of bits, in place of a number for each.
    """

    __slots__ = ("addresses", "block", "cell_bytes", "memory_", "nonzeros", "patterns", "shape", "value_bytes")

    def __init__(self, shape: tuple[int, int, int, int], block: int, patterns: bool) -> None:
        batch, channels, height, width = shape
        self.shape, self.block, self.patterns = shape, block, patterns
        self.nonzeros = -1  # not known yet
        segments = batch * height * -(-channels // block)
        self.value_bytes = 4 * width * block + 64
        self.cell_bytes = (width * block // 8 + 8) if patterns else 4 * (width + 1)
        sizes = [segments * self.value_bytes, 0 if patterns else segments * (self.value_bytes // 2)]
        self.memory_ = torch.empty(sum(sizes) + segments * self.cell_bytes + 64, dtype=torch.uint8)
        start = self.memory_.data_ptr()
        self.addresses = (start, start + sizes[0], start + sum(sizes))  # values, indices, cells

    @property
    def zeros(self) -> float:
        """Share of the elements that are zero."""
        total = self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]
        return 1 - self.nonzeros / total

    def memory(self) -> Memory:
        """What is used; the room for denser input is reserved, and not touched."""
        batch, channels, height, width = self.shape
        segments = batch * height * -(-channels // self.block)
        if self.patterns:
            patterns = segments * width * (self.block // 8)
            return Memory(self.nonzeros + -(-patterns // 4), 4 * self.nonzeros + patterns)
        cells = segments * (width + 1)
        return Memory(2 * self.nonzeros + cells, 6 * self.nonzeros + 4 * cells)


def pack(x: Tensor, block: int, patterns: bool, threads: int = 1) -> Lists:
    """Lists of the non-zeros of `x`, float32 N x C x H x W on the CPU, channels last or not."""
    batch, channels, height, width = x.shape
    strides = [4 * stride for stride in x.stride()]
    if strides[1] != 4 and strides[3] != 4:
        x = x.contiguous()
        strides = [4 * stride for stride in x.stride()]
    if channels == 1:
        strides[1] = 4
    lists = Lists((batch, channels, height, width), block, patterns)
    rows = batch * height
    threads = min(threads, max(1, rows // 4))
    job = np.empty(len(_JOB), np.int64)
    scratch_bytes = 0 if strides[1] == 4 else 4 * block * (-(-width // LANES) * LANES)
    scratch = torch.empty(scratch_bytes * threads, dtype=torch.uint8)
    job[:] = (
        0, 0, 0, x.data_ptr(), *lists.addresses, scratch.data_ptr(), rows, height, width, channels,
        block, -(-channels // block), patterns, strides[0], strides[2], strides[3], strides[1],
        lists.value_bytes, lists.cell_bytes, scratch_bytes,
    )  # fmt: skip
    run(_code(), job.ctypes.data, threads)
    lists.nonzeros = int(job[2])
    return lists
