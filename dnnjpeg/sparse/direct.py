"""Dense convolution, channels last, straight from the map: no lowered matrix is made.

A tile is a few neighbouring outputs of a row, times a panel of 16 or 32 filters. Its sums stay in registers
while the inputs of a kernel row pass by, which lie side by side. Inputs outside the map are read from a row
of zeros. To a 1x1 convolution, a map is a single row.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic
from torch import Tensor

from dnnjpeg.machine.jit import callback
from dnnjpeg.machine.simd import address, lanes_of, load_scalar
from dnnjpeg.machine.vector import Vector, call, fill, named, prefetch, vector
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.compiled import Stripped, finish, load, pointer
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.panels import BLOCK, UNROLLED, block_bytes, pace, panel_of, tiled
from dnnjpeg.sparse.threads import CALL, Job, number, record, take

SHARED = 250_000  # multiplications that are worth a second thread
_I64 = ir.IntType(64)
_JOB = record(
    *CALL,
    "tasks", "groups", "rows", "columns", "row_blocks", "column_blocks",  # how the output is divided
    "weights", "bias", "zeros", "height", "width", "channels", "filters", "out_height", "out_width",
    "pad_y", "pad_x",
    "first", "last",  # outputs of a row from `first` on, and before `last`, read nothing outside
    "pace",  # at which the next weights are prefetched
)  # fmt: skip


def multiply(
    b: ir.IRBuilder,
    kind: Vector,
    panel: int,
    sums: list[Any],
    weights: Any,
    inputs: list[ir.Value],
    length: ir.Value,
    ahead: Any,
    pace: ir.Value,
) -> None:
    """Add the products of `length` inputs of each output and their weights to the sums.

    panel: filters of a panel, of which the vectors may have fewer.
    sums, weights: variables. The address of the weights moves on.
    inputs: address of the first input of each output.
    ahead, pace: variable, an address to prefetch, and how many bytes it moves on with `UNROLLED` inputs.
    """

    def advance(k: ir.Value, steps: int) -> None:
        at, offset = b.load(weights), b.shl(k, _I64(2))
        for step in range(steps):
            weight = load(b, kind, b.add(at, _I64(step * panel * 4)), None)
            for slot, begin in zip(sums, inputs, strict=True):
                place = b.add(b.add(begin, offset), _I64(4 * step))
                value = fill(b, b.load(pointer(b, place, ir.FloatType()), align=4), kind)
                b.store(call(b, named("fma", kind), kind.ir, [value, weight, b.load(slot)]), slot)
        b.store(b.add(at, _I64(steps * panel * 4)), weights)
        if steps == UNROLLED:
            prefetch(b, b.load(ahead))
            b.store(b.add(b.load(ahead), pace), ahead)

    whole = b.and_(length, _I64(-UNROLLED))
    with cgutils.for_range_slice(b, _I64(0), whole, _I64(UNROLLED), _I64) as (k, _):
        advance(k, UNROLLED)
    with cgutils.for_range_slice(b, whole, length, _I64(1), _I64) as (k, _):
        advance(k, 1)


@intrinsic(prefer_literal=True)
def _tile(
    typingctx: Any,
    rows: Any,
    columns: Any,
    stride: Any,
    count: Any,
    panel: Any,
    size: Any,
    border: Any,
    args: Any,
) -> Any:
    """Compute `count` neighbouring outputs of `size` filters, kernel of rows x columns. `args` is a tuple:

    source: address of the picture
    y, x: position of the first input that the first output reads
    height, width, channels: of the input
    zeros: address of a row of zeros
    weights, bias: addresses, float32[rows][columns][channels][panel] and float32[size]
    low, high, out, residual, pixel: see `compiled.finish`
    ahead, pace: see `multiply`
    lanes: mask of the existing filters. It is last, and left out if all exist.

    border: inputs may be outside the map at the left or right.
    """
    kernel_rows, kernel_columns, step, outputs, packed, filters, at_border = (
        literal.literal_value for literal in (rows, columns, stride, count, panel, size, border)
    )
    kind = vector(f"f32x{filters}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        fields = [b.extract_value(values[-1], i) for i in range(len(args))]
        source, y, x, height, width, channels, zeros, weights, bias = fields[:9]
        in_pixel = b.mul(channels, _I64(4))
        start = load(b, kind, bias, None)
        sums = [cgutils.alloca_once_value(b, start) for _ in range(outputs)]
        cursor, ahead = (cgutils.alloca_once_value(b, value) for value in (weights, fields[14]))
        places = [b.add(x, _I64(i * step)) for i in range(outputs)]
        with cgutils.for_range(b, _I64(kernel_rows), intp=_I64) as row:
            line = b.add(y, row.index)
            there = b.icmp_unsigned("<", line, height)
            begin = b.select(there, b.add(source, b.mul(b.mul(line, width), in_pixel)), zeros)
            if at_border:
                with cgutils.for_range(b, _I64(kernel_columns), intp=_I64) as column:
                    inputs = []
                    for place in places:
                        place = b.add(place, column.index)
                        inside = b.icmp_unsigned("<", place, width)
                        inputs.append(b.select(inside, b.add(begin, b.mul(place, in_pixel)), zeros))
                    multiply(b, kind, packed, sums, cursor, inputs, channels, ahead, fields[15])
            else:
                inputs = [b.add(begin, b.mul(place, in_pixel)) for place in places]
                length = b.mul(channels, _I64(kernel_columns))
                multiply(b, kind, packed, sums, cursor, inputs, length, ahead, fields[15])
        lanes = fields[16] if len(fields) > 16 else None
        finish(b, kind, map(b.load, sums), fields[9:14], lanes)
        return context.get_dummy_value()

    return types.none(rows, columns, stride, count, panel, size, border, args), codegen


def _kernel(
    rows: int, columns: int, stride_y: int, stride_x: int, panel: int, count: int, tail: int, borders: bool
) -> Any:
    """The body of the kernel for one shape of filters.

    panel: filters of a panel.
    count: outputs of a tile.
    tail: filters that are left when a panel is taken at a time.
    borders: whether there is padding at the left or right.
    """
    taps = rows * columns

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        pixel = 4 * job.filters
        panels = (job.filters + panel - 1) // panel
        lanes = lanes_of(np.uint64((1 << tail) - 1), "i1x16")
        low, high = load_scalar(job.limits, "f32"), load_scalar(job.limits + 4, "f32")
        owner = me = number(at, job)
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            block, group = divmod(task, job.groups)
            block, column_block = divmod(block, job.column_blocks)
            image, row_block = divmod(block, job.row_blocks)
            source = job.source + image * job.height * job.width * job.channels * 4
            first_row, first_column = row_block * job.rows, column_block * job.columns
            last_row = min(job.out_height, first_row + job.rows)
            last_column = min(job.out_width, first_column + job.columns)
            for n in range(group * panels // job.groups, (group + 1) * panels // job.groups):
                ahead = job.weights + (n + 1) * taps * job.channels * panel * 4
                for row in range(first_row, last_row):
                    for begin in range(first_column, last_column, count):
                        column = min(begin, job.out_width - count)  # the last tile may overlap
                        place = (image * job.out_height + row) * job.out_width + column
                        place = place * pixel + 4 * panel * n
                        args = (
                            source, row * stride_y - job.pad_y, column * stride_x - job.pad_x,
                            job.height, job.width, job.channels, job.zeros,
                            job.weights + n * taps * job.channels * panel * 4, job.bias + n * panel * 4,
                            low, high, job.out + place, job.residual + place if job.residual else 0, pixel,
                            ahead, job.pace,
                        )  # fmt: skip
                        ahead += job.pace * (taps * job.channels // UNROLLED)
                        inside = not borders or (job.first <= column and column + count <= job.last)
                        if tail == 0 or n < panels - 1:
                            if inside:
                                _tile(rows, columns, stride_x, count, panel, panel, False, args)
                            else:
                                _tile(rows, columns, stride_x, count, panel, panel, True, args)
                        elif tail == 8:
                            if inside:
                                _tile(rows, columns, stride_x, count, panel, 8, False, args)
                            else:
                                _tile(rows, columns, stride_x, count, panel, 8, True, args)
                        elif inside:
                            _tile(rows, columns, stride_x, count, panel, 16, False, (*args, lanes))
                        else:
                            _tile(rows, columns, stride_x, count, panel, 16, True, (*args, lanes))

    return convolve


@cache
def _code(
    rows: int, columns: int, stride_y: int, stride_x: int, panel: int, count: int, tail: int, borders: bool
) -> Any:
    return callback(_kernel(rows, columns, stride_y, stride_x, panel, count, tail, borders), _JOB)


class Direct(Stripped):
    """A dense layer with packed weights and a compiled kernel.

    weights: float32 filters x channels x Kh x Kw.
    bias: float32 filters, or None for zero.

    Raises ValueError if weights or bias do not fit the geometry, or if it has groups.
    """

    def __init__(self, geometry: Geometry, weights: Tensor, bias: Tensor | None) -> None:
        if geometry.groups != 1:
            raise ValueError(f"{geometry} has groups, which the direct kernel cannot compute")
        super().__init__(geometry, weights, bias)
        padded = any(geometry.padding + geometry.ends)
        self.is_pointwise = geometry.kernel == geometry.stride == (1, 1) and not padded
        if self.is_pointwise:
            geometry = replace(geometry, height=1, width=geometry.height * geometry.width)
        self._seen = geometry  # by the kernel
        filters, channels, (rows, columns) = geometry.filters, geometry.channels, geometry.kernel
        self._panel = panel = panel_of(filters)
        panels = -(-filters // panel)
        packed = torch.zeros(panels * panel, channels, rows, columns)
        packed[:filters] = weights.detach()
        packed = packed.reshape(panels, panel, channels, rows, columns)
        self._weights = workspace.packed(packed.permute(0, 3, 4, 2, 1))
        self._zeros = torch.zeros(geometry.width * channels if padded else 0)
        height, width = geometry.output
        borders = geometry.padding[1] + geometry.ends[1] > 0
        self._count = tiled(width, panel)
        self.code = _code(rows, columns, *geometry.stride, panel, self._count, filters % panel, borders)
        pad_y, pad_x = geometry.padding
        first, last = geometry.inside
        self._job = partial(
            Job,
            _JOB,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), zeros=self._zeros.data_ptr(),
            height=geometry.height, width=geometry.width, channels=channels, filters=filters,
            out_height=height, out_width=width, pad_y=pad_y, pad_x=pad_x,
            first=first, last=last,
        )  # fmt: skip

    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        """Tasks are blocks of the output, or of its filters too."""
        geometry = self._seen
        height, width = geometry.output
        threads = threads if batch * height * width * geometry.filters * geometry.taps > SHARED else 1
        size = 4 * geometry.channels * geometry.height * geometry.width
        blocks = -(-size // block_bytes(BLOCK, self._weights))
        groups = 1
        if 4 * self._weights.numel() > size:
            groups = min(threads, -(-geometry.filters // self._panel))
        else:
            blocks = -(-blocks // threads) * threads
        if height == 1:
            rows, columns = 1, -(-width // (blocks * self._count)) * self._count
        else:
            rows, columns = -(-height // blocks), width
        row_blocks, column_blocks = -(-height // rows), -(-width // columns)
        tiles = rows * -(-columns // self._count)
        job = self._job(
            threads, tasks=batch * row_blocks * column_blocks * groups, groups=groups, rows=rows,
            columns=columns, row_blocks=row_blocks, column_blocks=column_blocks,
            pace=pace(self._weights, self._panel, tiles),
        )  # fmt: skip
        return job, threads

    def strip(self, begin: int, end: int, ring: int | None = None) -> tuple[Job, int]:
        geometry = self.geometry
        (_, width), pad_y = geometry.output, geometry.padding[0]
        whole = {"tasks": 1, "groups": 1, "row_blocks": 1, "column_blocks": 1}
        if self.is_pointwise:
            size = (end - begin) * width
            fields = {"width": size, "out_width": size, "rows": 1, "columns": size}
            return self._job(1, **whole, **fields), 4 * geometry.channels * begin * width
        fields = {"out_height": end - begin, "rows": end - begin, "columns": width}
        return self._job(1, **whole, **fields | {"pad_y": pad_y - begin * geometry.stride[0]}), 0
