"""The compiled part of the ring convolution: from lists of non-zeros to a map, to lists, or to both.

The loops are: a block of filters and a few output rows; a block of channels; a kernel row; a sweep over the
input rows (`sweep`). The sums are in scratch memory that stays in the cache. The last sweep leaves them
there, or writes them to the map if only the ReLU is left to do.
"""

from functools import cache
from typing import Any

import numba
import numpy as np

from dnnjpeg.machine.jit import callback, inlined
from dnnjpeg.machine.simd import (
    address,
    fetch_add,
    lanes_of,
    load,
    load_where,
    select,
    splat,
    store,
    store_where,
)
from dnnjpeg.sparse.lists import LANES, pack_row
from dnnjpeg.sparse.sweep import sweep
from dnnjpeg.sparse.threads import CALL, COUNT, number, record, take
from dnnjpeg.sparse.transpose import transpose

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 6}
JOB = record(
    *CALL,
    "nonzeros",  # that are handed on
    "to_values",  # address; 0 for none
    "tasks", "groups", "relu", "direct", "first_layout",
    "indices", "cells", "value_bytes", "cell_bytes",  # see `lists.Format`
    "to_indices", "to_cells", "to_value_bytes", "to_cell_bytes", "to_block", "to_blocks", "to_patterns",
    "weights", "bias", "height", "width", "block", "blocks", "kernel_rows", "stride", "pad_y", "pad_x",
    "out_height", "out_width", "filters", "filter_blocks", "rows", "row_blocks", "scratch_bytes",
    "out_row_bytes", "out_pixel_bytes",  # from one to the next of an output with channels last
)  # fmt: skip


@inlined
def _clamped(v, relu):
    if relu:
        v = select(v < 0.0, splat(0.0, "f32x16"), v)  # NaN stays
        if relu == 6:
            v = select(v > 6.0, splat(6.0, "f32x16"), v)
    return v


@inlined
def _finish_vector(at, place, lanes, part, out, residual, relu, keep):
    v = load(at, "f32x16")
    if residual:
        v = v + (load_where(residual + place, lanes, "f32x16") if part else load(residual + place, "f32x16"))
        v = _clamped(v, relu)
        if keep:
            store(at, v)
    if out:
        if part:
            store_where(out + place, v, lanes)
        else:
            store(out + place, v)


@inlined
def _finish(job, j, image, r0, r1, scratch, blocks):
    """Finish the sums of a block of filters in the rows r0..r1-1: residual, activation, map."""
    begin = j * blocks * LANES
    out, residual = 0 if job.first_layout else job.out, job.residual
    keep = job.first_layout or job.to_values
    whole = min(blocks, (job.filters - begin) // LANES)
    left = job.filters - begin - whole * LANES
    lanes = lanes_of(np.uint64((1 << max(0, min(left, LANES - 1))) - 1), "i1x16")
    plane = 4 * job.out_height * job.out_width
    if out or residual:
        at = scratch
        for y in range(r0, r1):
            place = image * job.filters * plane + y * job.out_row_bytes + 4 * begin
            for _ in range(job.out_width):
                for n in range(whole):
                    _finish_vector(at + 64 * n, place + 64 * n, lanes, False, out, residual, job.relu, keep)
                if whole < blocks and left > 0:
                    _finish_vector(
                        at + 64 * whole, place + 64 * whole, lanes, True, out, residual, job.relu, keep
                    )
                at += blocks * 64
                place += job.out_pixel_bytes
    if job.out and job.first_layout:
        first, pixels = r0 * job.out_width, (r1 - r0) * job.out_width
        for n in range(blocks):
            count = min(LANES, job.filters - begin - LANES * n)
            if count <= 0:
                break
            out = job.out + (image * job.filters + begin + LANES * n) * plane + 4 * first
            for p in range(0, pixels, LANES):
                transpose(
                    scratch + (p * blocks + n) * 64,
                    blocks * 64,
                    min(LANES, pixels - p),
                    count,
                    out + 4 * p,
                    plane,
                )


@inlined
def _fill(row, bias, relu, width, blocks):
    """Fill the sums of a row that reads padding only."""
    for n in range(blocks):
        v = _clamped(load(bias + 64 * n, "f32x16"), relu)
        for x in range(width):
            store(row + (x * blocks + n) * 64, v)


@inlined
def _hand_on(job, at, j, image, r0, r1, scratch, blocks):
    """Make lists of the rows r0..r1-1 of a finished block of filters."""
    nonzeros = 0
    for k in range(blocks * LANES // job.to_block):
        begin = j * blocks * LANES + k * job.to_block
        channels = min(job.to_block, job.filters - begin)
        if channels <= 0:
            break
        for y in range(r0, r1):
            segment = (image * job.out_height + y) * job.to_blocks + begin // job.to_block
            source = scratch + ((y - r0) * job.out_width * blocks * LANES + k * job.to_block) * 4
            values = job.to_values + segment * job.to_value_bytes
            indices = job.to_values + job.to_indices + segment * (job.to_value_bytes >> 1)
            cells = job.to_values + job.to_cells + segment * job.to_cell_bytes
            if job.to_patterns:
                nonzeros += pack_row(
                    source, blocks * 64, job.out_width, channels, values, indices, cells, job.to_block, True
                )
            else:
                nonzeros += pack_row(
                    source, blocks * 64, job.out_width, channels, values, indices, cells, job.to_block, False
                )
    fetch_add(at + COUNT, nonzeros)


def _kernel(width: int, stride: int, ring_rows: int, blocks: int, pattern: int) -> Any:
    """The body of the kernel for a `sweep.Ring`."""

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        owner = me = number(at, job)
        scratch = job.scratch + me * job.scratch_bytes
        groups = job.kernel_rows // ring_rows
        every = (1 << ring_rows) - 1
        relu = 0 if job.residual else job.relu  # else it has to wait
        slice_bytes = job.block * ring_rows * width * blocks * 64
        row_bytes = job.out_width * blocks * 64
        parts = job.tasks // (job.groups * job.filter_blocks)
        before = -1
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            # a group has rows of its own, for all filters: what one thread has packed, or nearly
            group, rest = divmod(task, parts * job.filter_blocks)
            j, rest = divmod(rest, parts)
            image, part = divmod(group * parts + rest, job.row_blocks)
            r0 = part * job.rows
            r1 = min(job.out_height, r0 + job.rows)
            pixels = (r1 - r0) * job.out_width
            bias = job.bias + j * blocks * 64
            if job.direct:
                result_row, result_pixel = job.out_row_bytes, job.out_pixel_bytes
                result = job.out + image * job.out_height * job.out_width * job.filters * 4
                result += r0 * result_row + j * blocks * 64
            else:
                result, result_row, result_pixel = scratch, row_bytes, blocks * 64
            for y in range(r0, r1):
                if not 0 < y * job.stride - job.pad_y + job.kernel_rows < job.height + job.kernel_rows:
                    _fill(scratch + (y - r0) * row_bytes, bias, relu, job.out_width, blocks)
            weights = job.weights + j * job.blocks * groups * slice_bytes
            lines = (slice_bytes // 64 + pixels - 1) // pixels if j != before else 0  # else they are at hand
            before = j
            for b in range(job.blocks):
                for group in range(groups):
                    ahead = weights + slice_bytes
                    if ring_rows == 1:
                        begin, end = r0, r1
                    else:
                        begin = max(0, r0 - job.pad_y)
                        end = min(job.height, r1 - 1 + job.kernel_rows - job.pad_y)
                    for y in range(begin, end):
                        if ring_rows == 1:
                            row, target = y * job.stride + group - job.pad_y, y - r0
                            first, count = 0, 1
                        else:
                            row, target = y, y + job.pad_y - r0
                            first = max(0, y + job.pad_y - r1 + 1)
                            count = min(ring_rows - 1, target) - first + 1
                        if 0 <= row < job.height:
                            begins = ends = 0
                            if b == 0 and (ring_rows > 1 or group == 0 or row == 0):
                                begins = every if row == 0 else 1
                            if b == job.blocks - 1:
                                if row == job.height - 1:
                                    ends = every
                                elif ring_rows > 1 or group == groups - 1:
                                    ends = 1 << (ring_rows - 1)
                            segment = (image * job.height + row) * job.blocks + b
                            sweep(
                                width, stride, ring_rows, blocks, pattern, first, count,
                                (
                                    job.source + job.cells + segment * job.cell_bytes,
                                    job.source + segment * job.value_bytes,
                                    job.source + job.indices + segment * (job.value_bytes // 2), weights,
                                    scratch + target * row_bytes, row_bytes,
                                    job.width, job.out_width, job.pad_x, ahead, lines, begins, bias, ends,
                                    result + target * result_row, result_row, result_pixel, relu,
                                ),
                            )  # fmt: skip
                        ahead += lines * job.out_width * 64
                    weights += slice_bytes
            if not job.direct:
                _finish(job, j, image, r0, r1, scratch, blocks)
            if job.to_values:
                _hand_on(job, at, j, image, r0, r1, scratch, blocks)

    return convolve


@cache
def code(width: int, stride: int, ring_rows: int, blocks: int, pattern: int) -> Any:
    """The kernel for a `sweep.Ring`, to `run` with a `JOB`."""
    return callback(_kernel(width, stride, ring_rows, blocks, pattern), JOB)
