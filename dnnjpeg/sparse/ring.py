"""The fast execution of CPO and CPS: sums in registers, lists of non-zeros, weights laid out as they are met.

For a block of filters and a few output rows: for a block of channels, for a kernel row: sweep over the input
rows (`sweep`). The sums lie in scratch memory that stays in the cache; a finished block gets the residual and
the ReLU, and leaves as a map, as lists for the next layer, or as both.
"""

from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from dnnjpeg.jit import callback, inlined
from dnnjpeg.simd import address, fetch_add, lanes_of, load, load_where, select, splat, store, store_where
from dnnjpeg.sparse import memory
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES, Format, Lists, Packer, pack_row
from dnnjpeg.sparse.sweep import sweep
from dnnjpeg.sparse.threads import Job, record, run
from dnnjpeg.sparse.tiling import Tiling
from dnnjpeg.sparse.transpose import transpose

ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 6}
SCRATCH = 128 << 10  # bytes of sums, so that they stay in the second cache beside weights and lists
SPLIT = 7  # output rows that are worth a thread, as each reads all weights
_JOB = record(
    "next", "threads", "nonzeros",  # tasks taken, threads that have begun, non-zeros handed on
    "tasks", "batch", "relu",
    "values", "indices", "cells", "out", "residual", "scratch",  # addresses; 0 for none
    "to_values", "to_indices", "to_cells",  # of the output's lists
    "value_bytes", "cell_bytes", "first_layout",
    "to_block", "to_blocks", "to_patterns", "to_value_bytes", "to_cell_bytes",
    "weights", "bias", "height", "width", "block", "blocks", "kernel_rows", "stride", "pad_y", "pad_x",
    "out_height", "out_width", "filters", "rows", "row_blocks", "scratch_bytes",
)  # fmt: skip


@inlined
def _finish_vector(at, place, lanes, part, out, residual, relu, keep):
    v = load(at, "f32x16")
    if residual:
        v = v + (load_where(residual + place, lanes, "f32x16") if part else load(residual + place, "f32x16"))
    if relu:
        v = select(v < 0.0, splat(0.0, "f32x16"), v)  # NaN stays
        if relu == 6:
            v = select(v > 6.0, splat(6.0, "f32x16"), v)
    if out:
        if part:
            store_where(out + place, v, lanes)
        else:
            store(out + place, v)
    if keep:
        store(at, v)


@inlined
def _finish(job, j, image, first, pixels, scratch, blocks):
    """Sums of a block of filters over `pixels` pixels from number `first` on: residual, ReLU, map."""
    begin = j * blocks * LANES
    out = 0 if job.first_layout else job.out
    residual, relu = job.residual, job.relu
    keep = (residual or relu) and (job.first_layout or job.to_cells)
    whole = min(blocks, (job.filters - begin) // LANES)
    left = job.filters - begin - whole * LANES
    lanes = lanes_of(np.uint64((1 << max(0, min(left, LANES - 1))) - 1), "i1x16")
    pixel_bytes = 4 * job.filters
    place = (image * job.out_height * job.out_width + first) * pixel_bytes + 4 * begin
    if out or residual or relu:
        for p in range(pixels):
            at = scratch + p * blocks * 64
            for n in range(whole):
                _finish_vector(at + 64 * n, place + 64 * n, lanes, False, out, residual, relu, keep)
            if whole < blocks and left > 0:
                _finish_vector(at + 64 * whole, place + 64 * whole, lanes, True, out, residual, relu, keep)
            place += pixel_bytes
    if job.out and job.first_layout:
        plane = 4 * job.out_height * job.out_width
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
def _hand_on(job, at, j, image, r0, r1, scratch, blocks):
    """The rows r0..r1-1 of a finished block of filters as lists."""
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
            indices = job.to_indices + segment * (job.to_value_bytes >> 1)
            cells = job.to_cells + segment * job.to_cell_bytes
            if job.to_patterns:
                nonzeros += pack_row(
                    source, blocks * 64, job.out_width, channels, values, indices, cells, job.to_block, True
                )
            else:
                nonzeros += pack_row(
                    source, blocks * 64, job.out_width, channels, values, indices, cells, job.to_block, False
                )
    fetch_add(at + 16, nonzeros)


def _kernel(width: int, stride: int, ring_rows: int, blocks: int, pattern: int) -> Any:
    """The body of the kernel for a `sweep.Ring`."""

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        scratch = job.scratch + fetch_add(at + 8, 1) * job.scratch_bytes
        groups = job.kernel_rows // ring_rows
        slice_bytes = job.block * ring_rows * width * blocks * 64
        row_bytes = job.out_width * blocks * 64
        while True:
            task = fetch_add(at, 1)
            if task >= job.tasks:
                break
            j, rest = divmod(task, job.batch * job.row_blocks)
            image, part = divmod(rest, job.row_blocks)
            r0 = part * job.rows
            r1 = min(job.out_height, r0 + job.rows)
            pixels = (r1 - r0) * job.out_width
            for p in range(pixels):
                for n in range(blocks):
                    store(scratch + (p * blocks + n) * 64, load(job.bias + (j * blocks + n) * 64, "f32x16"))
            weights = job.weights + j * job.blocks * groups * slice_bytes
            lines = (slice_bytes // 64 + pixels - 1) // pixels
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
                            segment = (image * job.height + row) * job.blocks + b
                            sweep(
                                width, stride, ring_rows, blocks, pattern, first, count,
                                (
                                    job.cells + segment * job.cell_bytes,
                                    job.values + segment * job.value_bytes,
                                    job.indices + segment * (job.value_bytes // 2), weights,
                                    scratch + target * row_bytes, row_bytes,
                                    job.width, job.out_width, job.pad_x, ahead, lines,
                                ),
                            )  # fmt: skip
                        ahead += lines * job.out_width * 64
                    weights += slice_bytes
            _finish(job, j, image, r0 * job.out_width, pixels, scratch, blocks)
            if job.to_cells:
                _hand_on(job, at, j, image, r0, r1, scratch, blocks)

    return convolve


@cache
def _code(width: int, stride: int, ring_rows: int, blocks: int, pattern: int) -> Any:
    return callback(_kernel(width, stride, ring_rows, blocks, pattern), _JOB)


class RingConvolution:
    """A layer made ready: weights packed for a tiling, kernel compiled.

    weights: float32 filters x channels x Kh x Kw. bias: float32 filters, or None for zero.
    activation: of the output: none, relu or relu6.
    """

    def __init__(
        self,
        geometry: Geometry,
        weights: Tensor,
        bias: Tensor | None,
        tiling: Tiling,
        *,
        activation: str = "none",
        threads: int = 1,
        batch: int = 1,
    ) -> None:
        self.geometry, self.tiling, self.threads = geometry, tiling, threads
        self._activation = activation
        (kernel_rows, width), (stride_y, stride_x) = geometry.kernel, geometry.stride
        blocks, ring_rows, block = tiling.filters, tiling.ring_rows, tiling.block
        height, out_width = geometry.output
        self._code = _code(width, stride_x, ring_rows, blocks, block if tiling.patterns else 0)
        self._weights = _packed(weights, tiling)
        parts = -(-geometry.filters // (LANES * blocks))
        self._bias = torch.zeros(parts * LANES * blocks)
        if bias is not None:
            self._bias[: geometry.filters] = bias
        rows = max(1, min(height, SCRATCH // (out_width * blocks * LANES * 4)))
        row_blocks = -(-height // rows)
        if height >= SPLIT * threads:  # a thread reads mostly what it has packed itself
            row_blocks = max(row_blocks, threads)
        row_blocks = _shares(row_blocks, height, parts * batch, threads)
        rows = -(-height // row_blocks)
        row_blocks = -(-height // rows)
        self._scratch_bytes = rows * out_width * blocks * LANES * 4
        self._row_blocks, self._parts = row_blocks, parts
        self.output = (geometry.filters, height, out_width)
        self._job = Job(
            _JOB,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), height=geometry.height,
            width=geometry.width, block=block, blocks=-(-geometry.channels // block), kernel_rows=kernel_rows,
            stride=stride_y, pad_y=geometry.padding[0], pad_x=geometry.padding[1], out_height=height,
            out_width=out_width, filters=geometry.filters, rows=rows, row_blocks=row_blocks,
            scratch_bytes=self._scratch_bytes,
        )  # fmt: skip
        self._packers: dict[int, Packer] = {}
        self._formats: dict[tuple[int, Tiling], Format] = {}

    def compress(self, x: Tensor) -> Lists:
        """Lists of an input, float32 N x C x H x W, channels last or not."""
        batch = x.shape[0]
        packer = self._packers.get(batch)
        if packer is None:
            geometry, tiling = self.geometry, self.tiling
            form = Format(
                batch, geometry.channels, geometry.height, geometry.width, tiling.block, tiling.patterns
            )
            packer = self._packers[batch] = Packer(form, self.threads)
        return packer(x)

    def convolve(
        self,
        lists: Lists,
        *,
        channels_last: bool = True,
        residual: Tensor | None = None,
        activation: str | None = None,
        onward: Tiling | None = None,
        dense: bool = True,
    ) -> tuple[Tensor | None, Lists | None]:
        """The output, float32 N x filters x rows x columns, and its lists for a layer with the tiling
        `onward`.

        residual: added before the ReLU; channels last, of the output's shape.
        activation: in place of the layer's.
        onward: its block must divide the filters in registers, see `Tiling.can_feed`.
        dense: without it the output is only made as lists.
        """
        form, block = lists.format, lists.block
        batch = form.batch
        out = following = None
        if dense:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            out = torch.empty((batch, *self.output), memory_format=layout)
        onto = (0,) * 3
        steps = (0,) * 5
        if onward is not None:
            following = Lists(self._format(batch, onward))
            to, start = following.format, following.block.address
            onto = (start, start + to.indices, start + to.cells)
            blocks = -(-self.geometry.filters // to.block)
            steps = (to.block, blocks, int(to.patterns), to.value_bytes, to.cell_bytes)
        job = self._job.copy(
            0, 0, 0, self._parts * batch * self._row_blocks, batch,
            ACTIVATIONS[activation or self._activation],
            block.address, block.address + form.indices, block.address + form.cells,
            0 if out is None else out.data_ptr(), 0 if residual is None else residual.data_ptr(),
            memory.scratch(self._scratch_bytes * self.threads),
            *onto, form.value_bytes, form.cell_bytes, not channels_last, *steps,
        )  # fmt: skip
        run(self._code, job, self.threads)
        if following is not None:
            following.nonzeros = job[2]
        return out, following

    def _format(self, batch: int, onward: Tiling) -> Format:
        form = self._formats.get((batch, onward))
        if form is None:
            form = Format(batch, *self.output, onward.block, onward.patterns)
            self._formats[batch, onward] = form
        return form

    def reads(self, lists: Lists) -> bool:
        """Whether lists are of this layer's form."""
        form, tiling = lists.format, self.tiling
        return form.block == tiling.block and form.patterns == tiling.patterns


def _shares(row_blocks: int, height: int, each: int, threads: int) -> int:
    """At least so many blocks of rows, of which each thread has as many, or many."""
    possible = range(row_blocks, height + 1)
    return next((n for n in possible if n * each % threads == 0 or n * each >= 8 * threads), row_blocks)


def _packed(weights: Tensor, tiling: Tiling) -> Tensor:
    """[filter block][channel block][kernel row group][channel][kernel row in the ring][Kw][filter]."""
    filters, channels, rows, width = weights.shape
    many, block, ring_rows = LANES * tiling.filters, tiling.block, tiling.ring_rows
    parts, blocks = -(-filters // many), -(-channels // block)
    full = torch.zeros(parts * many, blocks * block, rows, width)
    full[:filters, :channels] = weights.detach()
    full = full.reshape(parts, many, blocks, block, rows // ring_rows, ring_rows, width)
    return full.permute(0, 2, 4, 3, 5, 6, 1).contiguous()
