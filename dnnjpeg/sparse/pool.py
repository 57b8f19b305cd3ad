"""Pooling, channels last: the largest numbers of windows, or the means of whole maps."""

import math
from functools import cache
from typing import Any

import numba
import numpy as np
import torch

from dnnjpeg.machine.jit import callback, inlined
from dnnjpeg.machine.simd import (
    address,
    lanes_of,
    load,
    load_scalar,
    load_where,
    select,
    splat,
    store,
    store_where,
)
from dnnjpeg.sparse.compiled import Compiled
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.threads import CALL, Job, number, record, take

_JOB = record(
    *CALL,
    "tasks",  # rows of the output
    "height", "width", "channels", "out_height", "out_width",
    "rows", "columns", "stride_y", "stride_x", "pad_y", "pad_x",  # of a window
    "scale",  # address of what sums are multiplied with
)  # fmt: skip


@inlined
def _larger(v, value):
    return select(v == v, select(v > value, v, value), v)  # NaN stays


def _kernel(largest: bool) -> Any:
    """The body of the kernel. largest: take the largest number of a window, not the sum."""
    start = -math.inf if largest else 0.0

    def pool(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        pixel = 4 * job.channels
        vectors = (job.channels + LANES - 1) // LANES
        tail = job.channels % LANES
        lanes = lanes_of(np.uint64((1 << tail) - 1), "i1x16")
        scale = load_scalar(job.scale, "f32")
        owner = me = number(at, job)
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            image, row = divmod(task, job.out_height)
            y = row * job.stride_y - job.pad_y
            first, last = max(0, y), min(job.height, y + job.rows)
            out = job.out + task * job.out_width * pixel
            for column in range(job.out_width):
                x = column * job.stride_x - job.pad_x
                left, right = max(0, x), min(job.width, x + job.columns)
                for n in range(vectors):
                    whole = tail == 0 or n < vectors - 1
                    value = splat(start, "f32x16")
                    for line in range(first, last):
                        place = job.source + ((image * job.height + line) * job.width + left) * pixel + 64 * n
                        for _ in range(left, right):
                            v = load(place, "f32x16") if whole else load_where(place, lanes, "f32x16")
                            value = _larger(v, value) if largest else value + v
                            place += pixel
                    if not largest:
                        value = value * scale
                    if whole:
                        store(out + 64 * n, value)
                    else:
                        store_where(out + 64 * n, value, lanes)
                out += pixel

    return pool


@cache
def _code(largest: bool) -> Any:
    return callback(_kernel(largest), _JOB)


class Pool(Compiled):
    """A pooling layer. It adds no residual and has no activation.

    geometry: its windows, with as many groups as channels.
    largest: take the largest number of a window. Otherwise the mean, and there is no padding.
    """

    def __init__(self, geometry: Geometry, largest: bool) -> None:
        (rows, columns), channels = geometry.kernel, geometry.channels
        super().__init__(geometry, torch.empty(channels, 1, rows, columns), None)
        self.code = _code(largest)
        self._scale = torch.tensor([1 / (rows * columns)])

    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        geometry = self.geometry
        (height, width), (rows, columns) = geometry.output, geometry.kernel
        (stride_y, stride_x), (pad_y, pad_x) = geometry.stride, geometry.padding
        threads = threads if height > 1 else 1
        job = Job(
            _JOB, threads, tasks=batch * height, height=geometry.height, width=geometry.width,
            channels=geometry.channels, out_height=height, out_width=width, rows=rows, columns=columns,
            stride_y=stride_y, stride_x=stride_x, pad_y=pad_y, pad_x=pad_x, scale=self._scale.data_ptr(),
        )  # fmt: skip
        return job, threads
