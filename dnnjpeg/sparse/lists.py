"""Lists of non-zeros for the ring kernel: one list for each pixel and block of channels.

The idea is that of CPO. Every non-zero is stored once, under its column, and the column gives the outputs
that it contributes to. A list holds channels, where CPO holds rows, because vectors extend over channels. As
in CPO, a non-zero has a value and an index. As in CPS, a pattern of bits can replace the indices, here for 16
to 128 channels.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
from torch import Tensor

from dnnjpeg.machine.jit import callback, inlined
from dnnjpeg.machine.simd import (
    address,
    compress,
    fetch_add,
    lanes_of,
    load,
    load_where,
    mask_bits,
    reinterpret,
    store,
)
from dnnjpeg.machine.words import count_ones
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.geometry import Memory
from dnnjpeg.sparse.threads import CALL, COUNT, Job, number, record, run, take
from dnnjpeg.sparse.transpose import transpose

LANES = 16
SHARED = 30_000  # elements that are worth a second thread
_NUMBERS = np.arange(LANES, dtype=np.uint16)
_JOB = record(
    *CALL,
    "nonzeros",  # that are found
    "image_bytes", "row_bytes", "pixel_bytes", "channel_bytes",  # from one to the next of the source
    "rows", "height", "width", "channels", "block", "blocks",
    "indices", "cells", "value_bytes", "cell_bytes",  # see `Format`
    "scratch_bytes",  # of a thread
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """The memory layout of lists of N x H x W pixels: values, indices, cells.

    Each row of a block of channels has a fixed place, large enough for a row without zeros. So all threads
    know where to write.
    """

    batch: int
    channels: int
    height: int
    width: int
    block: int  # channels of a list: 16, 32, 64 or 128
    patterns: bool  # a list's channels are told by a pattern of bits, in place of a number for each
    turned: bool = False  # what are rows and columns here are columns and rows of the picture

    def __post_init__(self) -> None:
        rows = self.batch * self.height * -(-self.channels // self.block)
        value_bytes = 4 * self.width * self.block + 64
        cell_bytes = self.width * self.block // 8 + 8 if self.patterns else 4 * (self.width + 1)
        indices = rows * value_bytes
        cells = indices if self.patterns else indices + rows * (value_bytes // 2)
        for name, value in {
            "rows": rows,  # a block of channels has its own
            "value_bytes": value_bytes,  # from a row's values to the next's; indices take half of it
            "cell_bytes": cell_bytes,
            "indices": indices,  # where these begin
            "cells": cells,  # where the patterns, or the ends of the lists, begin
            "bytes": cells + rows * cell_bytes + 64,
            "elements": self.batch * self.channels * self.height * self.width,
        }.items():
            object.__setattr__(self, name, value)

    rows = value_bytes = cell_bytes = indices = cells = bytes = elements = 0

    def places(self) -> dict[str, int]:
        """Offsets for the kernels, from the address of the values."""
        return {name: getattr(self, name) for name in ("indices", "cells", "value_bytes", "cell_bytes")}


class Lists:
    """The non-zeros of an input, as lists. nonzeros: their number."""

    __slots__ = ("block", "format", "nonzeros")

    def __init__(self, format: Format) -> None:
        self.format, self.nonzeros = format, 0
        self.block = workspace.take(format.bytes)

    def __del__(self) -> None:
        workspace.give(self.block)

    @property
    def zeros(self) -> float:
        """Share of the elements that are zero."""
        return 1 - self.nonzeros / self.format.elements

    def memory(self) -> Memory:
        """The memory in use. Memory for denser input is reserved, but not touched."""
        form = self.format
        if form.patterns:
            patterns = form.rows * form.width * (form.block // 8)
            return Memory(self.nonzeros + -(-patterns // 4), 4 * self.nonzeros + patterns)
        ends = form.rows * (form.width + 1)
        return Memory(2 * self.nonzeros + ends, 6 * self.nonzeros + 4 * ends)


@inlined
def _nonzero(v):
    """A mask of the non-zero lanes. NaN is non-zero, -0 is zero."""
    return (reinterpret(v, "u32x16") << 1) != 0


@inlined
def _append(v, values, count):
    """Append the non-zeros of a vector. Returns the new count, and the mask of the non-zeros."""
    nonzero = _nonzero(v)
    bits = mask_bits(nonzero)
    store(values + 4 * count, compress(v, nonzero))
    return count + np.int64(count_ones(bits)), bits


@inlined
def _append_indexed(v, group, values, indices, count, numbers):
    store(indices + 2 * count, compress(numbers + np.uint16(LANES * group), _nonzero(v)))
    count, _ = _append(v, values, count)
    return count


@inlined
def pack_row(source, pixel_bytes, width, channels, values, indices, cells, block, patterns):
    """Write the lists of a row of pixels with `channels` float32 each. Returns the number of non-zeros.

    All pointers are addresses. Up to 64 bytes are written after the lists.
    """
    if patterns and channels == block and pixel_bytes == 4 * block:  # all pixels as one: they are neighbours
        channels = block = block * width
        width = 1
    groups = channels // LANES
    tail = channels - LANES * groups
    lanes = lanes_of(np.uint64((1 << tail) - 1), "i1x16")
    numbers = load(address(_NUMBERS), "u16x16")
    count = 0
    if not patterns:
        store(cells, np.int32(0))
    for x in range(width):
        at = source + x * pixel_bytes
        if patterns:
            pattern = cells + x * (block >> 3)
            for pair in range(groups >> 1):
                count, low = _append(load(at + 128 * pair, "f32x16"), values, count)
                count, high = _append(load(at + 128 * pair + 64, "f32x16"), values, count)
                store(pattern + 4 * pair, np.uint32(low | high << np.uint64(16)))
            for group in range(groups & -2, block >> 4):
                bits = np.uint64(0)
                if group < groups:
                    count, bits = _append(load(at + 64 * group, "f32x16"), values, count)
                elif group == groups and tail:
                    count, bits = _append(load_where(at + 64 * group, lanes, "f32x16"), values, count)
                store(pattern + 2 * group, np.uint16(bits))
        else:
            for group in range(groups):
                v = load(at + 64 * group, "f32x16")
                count = _append_indexed(v, group, values, indices, count, numbers)
            if tail:
                v = load_where(at + 64 * groups, lanes, "f32x16")
                count = _append_indexed(v, groups, values, indices, count, numbers)
            store(cells + 4 * (x + 1), np.int32(count))
    return count


def _packer(patterns: bool) -> Any:
    def pack_rows(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        owner = me = number(at, job)
        scratch = job.scratch + me * job.scratch_bytes
        nonzeros = 0
        while True:
            row, owner = take(at, job, job.rows, me, owner)
            if row < 0:
                break
            image = row // job.height
            source = job.source + image * job.image_bytes + (row - image * job.height) * job.row_bytes
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
                    job.out + segment * job.value_bytes,
                    job.out + job.indices + segment * (job.value_bytes >> 1),
                    job.out + job.cells + segment * job.cell_bytes, job.block, patterns,
                )  # fmt: skip
        fetch_add(at + COUNT, nonzeros)

    return pack_rows


@cache
def _code(patterns: bool) -> Any:
    return callback(_packer(patterns), _JOB)


class Packer:
    """Makes lists of one format, with a number of threads."""

    def __init__(self, format: Format, threads: int = 1) -> None:
        self.format = format
        self.code = _code(format.patterns)
        self._threads = min(threads, max(1, format.batch * format.height // 4))
        if format.elements < SHARED:
            self._threads = 1
        self._scratch = 4 * format.block * (-(-format.width // LANES) * LANES)
        self._job = Job(
            _JOB,
            self._threads,
            rows=format.batch * format.height, height=format.height, width=format.width,
            channels=format.channels, block=format.block, blocks=-(-format.channels // format.block),
            scratch_bytes=self._scratch, **format.places(),
        )  # fmt: skip

    def __call__(self, x: Tensor) -> Lists:
        """The lists of an input, float32 N x C x H x W on the CPU, in any layout."""
        if self.format.turned:
            x = x.mT
        images, channels, rows, pixels = x.stride()
        if channels != 1 and pixels != 1:
            if self.format.channels > 1:
                x = x.contiguous()
                images, channels, rows, pixels = x.stride()
            else:
                channels = 1
        lists = Lists(self.format)
        scratch = 0 if channels == 1 else workspace.scratch(self._scratch * self._threads)
        strides = (4 * images, 4 * rows, 4 * pixels, 4 * channels)
        job = self._job.copy(x.data_ptr(), lists.block.address, 0, 0, scratch, 0, *strides)
        run(self.code, job, self._threads)
        lists.nonzeros = job[len(CALL)]
        return lists

    def of_map(self) -> tuple[Job, int]:
        """The job for a map with channels last, and its number of threads."""
        form = self.format
        pixel, line = 4 * form.channels, 4 * form.channels * (form.height if form.turned else form.width)
        rows, pixels = (pixel, line) if form.turned else (line, pixel)
        values = (0, 0, 0, 0, 0, 0, 4 * form.channels * form.height * form.width, rows, pixels, 4)
        return self._job.with_(*values), self._threads
