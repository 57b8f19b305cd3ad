"""Convolutions that follow each other, run by one compiled call: no Python and no new tensors between them.

What nothing else reads is in an arena, where an output takes the place of those that are no longer needed.
"""

import ctypes
import math
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numba
import torch
from torch import Tensor

from dnnjpeg.machine.jit import callback, inlined
from dnnjpeg.machine.simd import address, load_scalar, store
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.compiled import LIMITS, Compiled
from dnnjpeg.sparse.dense import DenseConv2d
from dnnjpeg.sparse.fast import SHAPES, fits, marked, version
from dnnjpeg.sparse.strips import Part, Strips, strips, together
from dnnjpeg.sparse.threads import LINE, Team, called, meet, record, team

# addresses, except the number of steps and of threads
_CALL = record("steps", "count", "bases", "scratch", "jobs", "most", "met", "code", *Team._fields)
# of a step: code, job, 64-bit words of the job, threads, limits; base and offset of source, output, residual;
# place of the job's copy
_WORDS = 12
Shape = tuple[int, ...]
_NOTHING, _ARENA = (0, 0), 1  # a base, of no address, and that of the arena; then inputs and outputs
_WEIGHT, _BIAS, _MEAN = map(itemgetter, ("weight", "bias", "running_mean"))
_VERSION = attrgetter("_version")


class Link(NamedTuple):
    """A convolution of a chain. Tensors are numbered: first the chain's inputs, then its outputs."""

    module: DenseConv2d
    activation: str
    source: int
    residual: int | None = None


@inlined
def _word(address, k):
    return load_scalar(address + 8 * k, "i64")


@inlined
def _fill(call, step):
    """Copy the job of a step, with the addresses of this call. Returns the copy's address."""
    job = call.jobs + _word(step, 11)
    for k in range(_word(step, 2)):
        store(job + 8 * k, _word(_word(step, 1), k))
    for k in range(3):  # the job begins with `compiled.CALL`
        place = _word(call.bases, _word(step, 5 + 2 * k)) + _word(step, 6 + 2 * k)
        store(job + 8 * k, place)
    store(job + 24, _word(step, 4))
    store(job + 32, call.scratch)
    return job


def _walk(calls):
    """Run all steps in the calling thread, or in a team that meets after each step."""
    call = numba.carray(calls, 1)[0]
    if call.most == 1:
        for i in range(call.count):
            step = call.steps + 8 * _WORDS * i
            called(_word(step, 0), (_fill(call, step),))
    else:
        for i in range(call.count):
            _fill(call, call.steps + 8 * _WORDS * i)
        store(call.met, 0)
        called(call.run, (call.code, address(numba.carray(calls, 1)), call.most, 0))


def _walk_together(calls):
    """Run all steps as one thread of a team."""
    call = numba.carray(calls, 1)[0]
    me, threads = called(call.me, ()), called(call.size, ())
    for i in range(call.count):
        step = call.steps + 8 * _WORDS * i
        if me == 0 or _word(step, 3) > 1:
            called(_word(step, 0), (call.jobs + _word(step, 11),))
        if threads > 1:
            meet(call.met, threads, i, call.rest)


@cache
def _codes() -> tuple[Any, Any]:
    return callback(_walk, _CALL), callback(_walk_together, _CALL)


class _Program:
    """A chain for inputs of certain shapes: its steps, and where its tensors are."""

    def __init__(
        self, links: Sequence[Link], outputs: Sequence[int], inputs: Sequence[Shape], kernels: list[Compiled]
    ) -> None:
        batch, threads = inputs[0][0], torch.get_num_threads()
        shapes = [*inputs, *((batch, *kernel.output) for kernel in kernels)]
        self.shapes = [shapes[output] for output in outputs]
        places = {number: (_ARENA + 1 + i, 0) for i, number in enumerate((*range(len(inputs)), *outputs))}
        arena = _Arena()
        self._parts: list[Part] = []  # the steps have their addresses, and those of the kernels
        self._steps, self._kernels = array("q"), kernels
        at = 0
        while at < len(links):
            first = len(inputs) + at  # number of the first output
            group = together(kernels[at:]) if threads == 1 else []
            count = len(group) if _is_line(links, outputs, first, links[at : at + len(group)]) else 0
            divided = strips(group, batch) if count else None
            if divided is None:
                divided, count = Strips([Part(0, *kernels[at].job(batch, threads), 0, 0, 0)], []), 1
            numbers = range(first, first + count)
            for number, size in zip(
                numbers, (*divided.sizes, 4 * math.prod(shapes[numbers[-1]])), strict=True
            ):
                if number not in places:
                    places[number] = (_ARENA, arena.take(number, size))
            for part in divided.parts:
                self._add(part, links[at + part.layer], kernels[at + part.layer], numbers[part.layer], places)
            at += count
            arena.give({*numbers, *_read(links[:at])} - _read(links[at:]))
        self._scratch = max(kernel.scratch for kernel in kernels) * threads
        self._most = max(part.threads for part in self._parts)
        sizes = [-(-ctypes.sizeof(part.job.template) // LINE) * LINE for part in self._parts]
        if self._most > 1:  # all copies at once, otherwise one after the other
            for i in range(1, len(sizes)):
                self._steps[i * _WORDS + 11] = sum(sizes[:i])
        self._arena = LINE + (sum(sizes) if self._most > 1 else max(sizes))
        self._size = self._arena + arena.size
        self.possible = team().run != 0 or self._most == 1

    def _add(
        self, part: Part, link: Link, kernel: Compiled, number: int, places: dict[int, tuple[int, int]]
    ) -> None:
        """Add a step. number: that of its output."""
        template = part.job.template
        self._parts.append(part)
        self._steps.extend((kernel.code.address, ctypes.addressof(template), ctypes.sizeof(template) // 8))
        self._steps.extend((part.threads, LIMITS[link.activation].data_ptr()))
        for tensor, more in ((link.source, part.source), (number, part.out), (link.residual, part.residual)):
            base, offset = _NOTHING if tensor is None else places[tensor]
            self._steps.extend((base, offset + more if base else 0))
        self._steps.append(0)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        outs = [torch.empty(shape, memory_format=torch.channels_last) for shape in self.shapes]
        block = workspace.take(self._size)
        addresses = [0, block.address + self._arena, *(tensor.data_ptr() for tensor in (*inputs, *outs))]
        bases = (ctypes.c_int64 * len(addresses))(*addresses)
        walk, beside = _codes()
        scratch = workspace.scratch(self._scratch) if self._scratch else 0
        values = (
            self._steps.buffer_info()[0],
            len(self._parts),
            ctypes.addressof(bases),
            scratch,
            block.address + LINE,
            self._most,
            block.address,
            beside.address,
            *team(),
        )
        walk.ctypes((ctypes.c_int64 * len(values))(*values))
        workspace.give(block)
        return outs


class _Arena:
    """Memory for tensors that are needed for a while."""

    def __init__(self) -> None:
        self.size = 0
        self._taken: dict[int, tuple[int, int]] = {}  # begin and end, by the tensor's number

    def take(self, number: int, size: int) -> int:
        """The offset of a place for a tensor, the lowest that is free."""
        size = -(-size // LINE) * LINE
        offset = 0
        for begin, end in sorted(self._taken.values()):
            if offset + size <= begin:
                break
            offset = end
        self._taken[number] = (offset, offset + size)
        self.size = max(self.size, offset + size)
        return offset

    def give(self, numbers: Iterable[int]) -> None:
        """Free the places of tensors. Those without one are passed over."""
        for number in numbers:
            self._taken.pop(number, None)


def _is_line(links: Sequence[Link], outputs: Sequence[int], first: int, group: Sequence[Link]) -> bool:
    """Whether links read each other in turn, and nothing else does. first: number of their first output."""
    inner = range(first, first + len(group) - 1)
    residuals = [link.residual for link in links]
    sources = [link.source for link in links]
    return all(
        link.residual is None and following.source == number and sources.count(number) == 1
        and number not in residuals and number not in outputs
        for number, link, following in zip(inner, group, group[1:], strict=False)
    )  # fmt: skip


def _read(links: Sequence[Link]) -> set[int]:
    """The tensors that links read."""
    return {number for link in links for number in (link.source, link.residual) if number is not None}


class Chain:
    """Convolutions that follow each other, as one function.

    links: the convolutions, in their order.
    outputs: numbers of the tensors that others read.
    """

    def __init__(self, links: Sequence[Link], outputs: Sequence[int]) -> None:
        self._links, self._outputs = links, outputs
        self._programs: dict[Any, _Program | None] = {}
        modules = [link.module for link in links]
        self._parameters = [module._parameters for module in modules]
        self._buffers = [module.norm._buffers for module in modules if module.norm]
        self._state: list[int] = []

    def __call__(self, *inputs: Tensor) -> Any:
        """The output, or a tuple of outputs, channels last."""
        if torch.is_grad_enabled():  # each convolution decides whether it can do without
            return self._given(self._one_by_one(inputs))
        # as `FastConv2d.check`, for all at once
        weights: list[Any] = [*map(_WEIGHT, self._parameters)]
        tensors = [
            *weights,
            *(b for b in map(_BIAS, self._parameters) if b is not None),
            *map(_MEAN, self._buffers),
        ]
        try:
            versions = [*map(_VERSION, tensors)]
        except RuntimeError:  # tensors of inference mode have none
            versions = [*map(version, tensors)]
        state = [*map(Tensor.data_ptr, weights), *versions]
        if state != self._state or len(self._programs) >= SHAPES:
            self._programs.clear()
            self._state = state
        key = (torch.get_num_threads(), *((x.shape, x.dtype, x.device) for x in inputs))
        if key not in self._programs:
            for link in self._links:
                link.module.check(inputs[0])
            self._programs[key] = self._program(inputs)
        program = self._programs[key]
        if program is None:
            return self._given(self._one_by_one(inputs))
        results = program([x.contiguous(memory_format=torch.channels_last) for x in inputs])
        for number, y in zip(self._outputs, results, strict=True):
            marked(y, self._links[number - len(inputs)].activation)
        return self._given(results)

    def _given(self, results: list[Tensor]) -> Any:
        return results[0] if len(results) == 1 else tuple(results)

    def _program(self, inputs: Sequence[Tensor]) -> _Program | None:
        """The program for inputs of these shapes, or None if torch must compute a part of it."""
        if not all(map(fits, inputs)):
            return None
        shapes = [tuple(x.shape) for x in inputs]
        kernels: list[Compiled] = []
        for link in self._links:
            kernel = link.module.kernel(shapes[link.source])
            if kernel is None:
                return None
            shapes.append((shapes[0][0], *kernel.output))
            if link.residual is not None and shapes[link.residual] != shapes[-1]:
                return None
            kernels.append(kernel)
        program = _Program(self._links, self._outputs, shapes[: len(inputs)], kernels)
        return program if program.possible else None

    def _one_by_one(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        tensors = list(inputs)
        for link in self._links:
            residual = None if link.residual is None else tensors[link.residual]
            tensors.append(link.module.compute(tensors[link.source], residual, link.activation, None, False))
        return [tensors[number] for number in self._outputs]
