"""Depthwise convolution: one filter for each channel, channels last, 16 channels at a time.

A few neighbouring outputs of a row are computed together, in registers. So every input is read once for all
of them. Inputs outside the map are read from a row of zeros.
"""

from functools import cache, partial
from itertools import product
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic
from torch import Tensor

from dnnjpeg.machine.jit import callback
from dnnjpeg.machine.simd import address, lanes_of, load_scalar
from dnnjpeg.machine.vector import call, named, vector
from dnnjpeg.sparse.compiled import Stripped, finish, load
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.threads import CALL, Job, number, record, take

OUTPUTS = 4  # computed together, away from the border
_I64 = ir.IntType(64)
_JOB = record(
    *CALL,
    "tasks",  # rows
    "weights", "bias", "zeros", "height", "width", "channels", "out_height", "out_width",
    "pad_y", "pad_x",
    "first", "last",  # outputs of a row from `first` on, and before `last`, read nothing outside
    "wrap", "ring_bytes",  # the row from which on the input is so many bytes earlier
)  # fmt: skip


@intrinsic(prefer_literal=True)
def _outputs(
    typingctx: Any, rows: Any, columns: Any, stride: Any, count: Any, size: Any, border: Any, args: Any
) -> Any:
    """Compute `count` neighbouring outputs of `size` channels, kernel of rows x columns. `args` is a tuple:

    source: address of the picture at these channels
    y, x: position of the first input that the first output reads
    height, width, row_bytes: size of the input; its pixels are as far apart as those of the output
    wrap, ring_bytes: the row from which on the input is so many bytes earlier
    zeros: address of a row of zeros
    weights, bias: addresses, float32[rows][columns][16] and float32[size]
    low, high, out, residual, pixel: see `compiled.finish`
    lanes: mask of the existing channels. It is last, and left out if all exist.

    border: inputs may be outside the map at the left or right.
    """
    kernel_rows, kernel_columns, step, outputs, channels, at_border = (
        literal.literal_value for literal in (rows, columns, stride, count, size, border)
    )
    kind = vector(f"f32x{channels}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        fields = [b.extract_value(values[-1], i) for i in range(len(args))]
        source, y, x, height, width, row_bytes, wrap, ring_bytes, zeros, weights, bias = fields[:11]
        pixel = fields[15]
        lanes = fields[16] if len(fields) > 16 else None
        starts = []
        for row in range(kernel_rows):
            line = b.add(y, _I64(row))
            there = b.icmp_unsigned("<", line, height)
            start = b.add(source, b.mul(line, row_bytes))
            start = b.select(b.icmp_signed("<", line, wrap), start, b.sub(start, ring_bytes))
            starts.append(b.select(there, start, zeros))
        sums = [load(b, kind, bias, None)] * outputs
        for row, column in product(range(kernel_rows), range(kernel_columns)):
            weight = b.add(weights, _I64((row * kernel_columns + column) * LANES * 4))
            weight = load(b, kind, weight, None)
            for k in range(outputs):
                place = b.add(x, _I64(k * step + column))
                at = b.add(starts[row], b.mul(place, pixel))
                if at_border:
                    at = b.select(b.icmp_unsigned("<", place, width), at, zeros)
                inputs = load(b, kind, at, lanes)
                sums[k] = call(b, named("fma", kind), kind.ir, [inputs, weight, sums[k]])
        finish(b, kind, sums, fields[11:16], lanes)
        return context.get_dummy_value()

    return types.none(rows, columns, stride, count, size, border, args), codegen


def _kernel(rows: int, columns: int, stride_y: int, stride_x: int, tail: int) -> Any:
    """The body of the kernel for one shape of filters.

    tail: channels that are left when 16 are taken at a time.
    """
    taps = rows * columns

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        pixel = 4 * job.channels
        row_bytes = job.width * pixel
        vectors = (job.channels + LANES - 1) // LANES
        lanes = lanes_of(np.uint64((1 << tail) - 1), "i1x16")
        low, high = load_scalar(job.limits, "f32"), load_scalar(job.limits + 4, "f32")
        owner = me = number(at, job)
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            image, row = divmod(task, job.out_height)
            source = job.source + image * job.height * row_bytes
            out = job.out + task * job.out_width * pixel
            residual = job.residual + task * job.out_width * pixel if job.residual else 0
            y = row * stride_y - job.pad_y
            column = 0
            while column < job.out_width:
                inside = job.first <= column and column + OUTPUTS <= job.last
                x = column * stride_x - job.pad_x
                for n in range(vectors):
                    args = (
                        source + 64 * n, y, x, job.height, job.width, row_bytes, job.wrap,
                        job.ring_bytes, job.zeros, job.weights + n * taps * 64, job.bias + 64 * n, low, high,
                        out + 64 * n, residual + 64 * n if residual else 0, pixel,
                    )  # fmt: skip
                    if tail == 0 or n < vectors - 1:
                        if inside:
                            _outputs(rows, columns, stride_x, OUTPUTS, 16, False, args)
                        else:
                            _outputs(rows, columns, stride_x, 1, 16, True, args)
                    elif tail == 8:
                        if inside:
                            _outputs(rows, columns, stride_x, OUTPUTS, 8, False, args)
                        else:
                            _outputs(rows, columns, stride_x, 1, 8, True, args)
                    elif inside:
                        _outputs(rows, columns, stride_x, OUTPUTS, 16, False, (*args, lanes))
                    else:
                        _outputs(rows, columns, stride_x, 1, 16, True, (*args, lanes))
                done = OUTPUTS if inside else 1
                column += done
                out += done * pixel
                residual += done * pixel if residual else 0

    return convolve


@cache
def _code(rows: int, columns: int, stride_y: int, stride_x: int, tail: int) -> Any:
    return callback(_kernel(rows, columns, stride_y, stride_x, tail), _JOB)


class Depthwise(Stripped):
    """A depthwise layer with packed weights and a compiled kernel.

    geometry: geometry with as many groups as channels and filters.
    weights: float32 channels x 1 x Kh x Kw.
    bias: float32 channels, or None for zero.

    Raises ValueError if weights or bias do not fit the geometry.
    """

    def __init__(self, geometry: Geometry, weights: Tensor, bias: Tensor | None) -> None:
        if not geometry.groups == geometry.channels == geometry.filters:
            raise ValueError(f"{geometry} has not as many groups as channels and filters")
        super().__init__(geometry, weights, bias)
        channels, (rows, columns) = geometry.channels, geometry.kernel
        self.code = _code(rows, columns, *geometry.stride, channels % LANES)
        vectors = -(-channels // LANES)
        packed = torch.zeros(vectors * LANES, rows * columns)
        packed[:channels] = weights.detach().reshape(channels, -1)
        self._weights = packed.reshape(vectors, LANES, -1).transpose(1, 2).contiguous()
        self._zeros = torch.zeros(geometry.width * channels)
        (height, width), (pad_y, pad_x), (first, last) = geometry.output, geometry.padding, geometry.inside
        self._job = partial(
            Job,
            _JOB,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), zeros=self._zeros.data_ptr(),
            height=geometry.height, width=geometry.width, channels=geometry.channels,
            out_height=height, out_width=width, pad_y=pad_y, pad_x=pad_x, first=first, last=last,
            wrap=geometry.height, ring_bytes=0,
        )  # fmt: skip

    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        return self._job(threads, tasks=batch * self.output[1]), threads

    def strip(self, begin: int, end: int, ring: int | None = None) -> tuple[Job, int]:
        geometry = self.geometry
        ring, row_bytes = ring or geometry.height, 4 * geometry.channels * geometry.width
        pad_y = geometry.padding[0] - begin * geometry.stride[0]
        first = max(0, -pad_y) // ring * ring  # the row in the first place, where it begins
        fields = {"wrap": first + ring, "ring_bytes": ring * row_bytes, "pad_y": pad_y}
        return self._job(1, tasks=end - begin, out_height=end - begin, **fields), -first * row_bytes
