"""What our dense kernels have in common: how they are called, and the code that ends a tile."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from llvmlite import ir
from numba.core import cgutils
from torch import Tensor

from dnnjpeg.machine.vector import Vector, call, fill, named
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.threads import Job, run

_LIMITS = {"none": (-float("inf"), float("inf")), "relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}
LIMITS = {name: torch.tensor(pair) for name, pair in _LIMITS.items()}  # to which an activation clips
_I64, _I32 = ir.IntType(64), ir.IntType(32)


class Compiled(ABC):
    """A dense layer with packed weights and a compiled kernel.

    Raises ValueError if weights or bias do not fit the geometry.
    """

    code: Any  # a `jit.callback`, whose job begins with `threads.CALL`
    scratch = 0  # bytes of a thread

    def __init__(self, geometry: Geometry, weights: Tensor, bias: Tensor | None) -> None:
        geometry.check_weights(weights, bias)
        self.geometry, self.output = geometry, (geometry.filters, *geometry.output)
        self._bias = torch.zeros(-(-geometry.filters // LANES) * LANES)
        if bias is not None:
            self._bias[: geometry.filters] = bias
        self._jobs: dict[tuple[int, int], tuple[Job, int]] = {}  # by batch and threads, with those used

    @abstractmethod
    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        """The job for so many pictures, and the number of threads that are worth it."""

    def job(self, batch: int, threads: int) -> tuple[Job, int]:
        """The job for so many pictures, and its number of threads, up to `threads`."""
        found = self._jobs.get((batch, threads))
        if found is None:
            found = self._jobs[batch, threads] = self._divided(batch, threads)
        return found

    def __call__(
        self, x: Tensor, threads: int = 1, *, residual: Tensor | None = None, activation: str = "none"
    ) -> Tensor:
        """The output, channels last, for float32 N x C x H x W.

        residual: float32 tensor of the output's shape, added before the activation.
        activation: "none", "relu" or "relu6".

        Raises ValueError for other inputs.
        """
        batch = self.geometry.check(x)
        x = x.contiguous(memory_format=torch.channels_last)
        shape = (batch, *self.output)
        if residual is not None:
            if residual.shape != shape or residual.dtype is not torch.float32:
                raise ValueError(
                    f"the residual is {residual.dtype} {tuple(residual.shape)}, expected float32 {shape}"
                )
            residual = residual.contiguous(memory_format=torch.channels_last)
        out = torch.empty(shape, memory_format=torch.channels_last)
        job, used = self.job(batch, threads)
        given = job.copy(
            x.data_ptr(),
            out.data_ptr(),
            0 if residual is None else residual.data_ptr(),
            LIMITS[activation].data_ptr(),
            workspace.scratch(self.scratch * used) if self.scratch else 0,
        )
        run(self.code, given, used)
        return out


class Stripped(Compiled):
    """A dense layer that can be computed a few rows at a time."""

    is_pointwise = False  # whether an output reads the input at its place only

    @abstractmethod
    def strip(self, begin: int, end: int, ring: int | None = None) -> tuple[Job, int]:
        """The job for some rows of a picture's outputs, in one thread, and where its source begins, in bytes.

        ring: rows that are kept of the input. Row n is in the place of row n % ring. None: all.
        """


def pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return b.inttoptr(address, kind.as_pointer())


def load(b: ir.IRBuilder, kind: Vector, at: ir.Value, lanes: ir.Value | None) -> ir.Value:
    """Load the lanes of a mask, or all if there is none."""
    at = pointer(b, at, kind.ir)
    if lanes is None:
        return b.load(at, align=4)
    operands = [at, _I32(4), lanes, ir.Constant(kind.ir, None)]
    return call(b, f"{named('masked.load', kind)}.p0", kind.ir, operands)


def save(b: ir.IRBuilder, kind: Vector, value: ir.Value, at: ir.Value, lanes: ir.Value | None) -> None:
    at = pointer(b, at, kind.ir)
    if lanes is None:
        b.store(value, at, align=4)
    else:
        call(b, f"{named('masked.store', kind)}.p0", ir.VoidType(), [value, at, _I32(4), lanes])


def _clipped(b: ir.IRBuilder, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """The value within low..high. NaN stays."""
    value = b.select(b.fcmp_ordered("<", value, low), low, value)
    return b.select(b.fcmp_ordered(">", value, high), high, value)


def finish(
    b: ir.IRBuilder, kind: Vector, sums: Iterable[ir.Value], fields: list[ir.Value], lanes: ir.Value | None
) -> None:
    """Add the residual to the sums of neighbouring outputs, clip and store them.

    fields:
        low, high: limits of the outputs, NaN stays
        out, residual: address of the first output, and of what is added to it (0: nothing)
        pixel: bytes from one output to the next
    """
    low, high, out, residual, pixel = fields
    slots = [cgutils.alloca_once_value(b, value) for value in sums]
    with b.if_then(b.icmp_unsigned("!=", residual, _I64(0))):
        for i, slot in enumerate(slots):
            other = load(b, kind, b.add(residual, b.mul(_I64(i), pixel)), lanes)
            b.store(b.fadd(b.load(slot), other), slot)
    least, most = (fill(b, value, kind) for value in (low, high))
    for i, slot in enumerate(slots):
        at = b.add(out, b.mul(_I64(i), pixel))
        save(b, kind, _clipped(b, b.load(slot), least, most), at, lanes)
