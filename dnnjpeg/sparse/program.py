"""The compiled call that runs convolutions that follow each other, for inputs of certain shapes.

What nothing else reads is in an arena, where an output takes the place of those that are no longer needed.
"""

import ctypes
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numba
import torch
from torch import Tensor

from dnnjpeg.machine.jit import callback, inlined
from dnnjpeg.machine.simd import address, load_scalar, store
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.compiled import LIMITS, Compiled
from dnnjpeg.sparse.dense import DenseConv2d
from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.strips import Part, Strips, strips, together
from dnnjpeg.sparse.threads import COUNT, LINE, Job, Team, called, meet, record, team

# addresses, except the number of steps and of threads
_CALL = record("steps", "count", "bases", "scratch", "jobs", "most", "met", "code", *Team._fields)
# of a step: code, job, 64-bit words of the job, threads, limits; base and offset of source, output, residual;
# place of the job's copy
_WORDS = 12
CROWDED = 1.3  # times the non-zeros with which a dense method is as fast: more are too many
CALLS = 3  # with too many, one after the other, before a dense kernel is used
Shape = tuple[int, ...]
Kernel = Compiled | RingConvolution
Place = tuple[int, int]  # a base and an offset
_NOTHING, _ARENA = (0, 0), 1  # a base, of no address, and that of the arena; then inputs and outputs
_LISTS = -1  # in place of a tensor's number


class Link(NamedTuple):
    """A convolution of a chain. Tensors are numbered: first the chain's inputs, then its outputs."""

    module: DenseConv2d | SparseConv2d
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
    for k in range(3):  # the job begins with `threads.CALL`
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


class Program:
    """A chain for inputs of certain shapes: its steps, and where its tensors are."""

    def __init__(
        self, links: Sequence[Link], outputs: Sequence[int], inputs: Sequence[Shape], kernels: list[Kernel]
    ) -> None:
        self.crowded: set[int] = set()  # sparse links that have met too few zeros in `CALLS` calls
        batch, threads = inputs[0][0], torch.get_num_threads()
        shapes = [*inputs, *((batch, *kernel.output) for kernel in kernels)]
        self.shapes = [shapes[output] for output in outputs]
        outer = (*range(len(inputs)), *outputs)
        self._places: dict[int, Place] = {number: (_ARENA + 1 + i, 0) for i, number in enumerate(outer)}
        self._bytes = [4 * math.prod(shape) for shape in shapes]
        arena = self._inner = _Arena()
        self._jobs: list[Job] = []  # the steps have their addresses, and those of the kernels
        self._threads: list[int] = []  # of each step
        self._steps, self._kernels = array("q"), kernels
        self._scratch = 0  # bytes of a thread
        self._watched: list[tuple[int, int, float]] = []  # link, its step that counts, most non-zeros
        self._times: Counter[int] = Counter()  # one after the other, that a link has met too few zeros
        self._first, at = len(inputs), 0
        while at < len(links):
            first = self._first + at  # number of the first output
            count = 1
            if isinstance(kernel := kernels[at], RingConvolution):
                self._add_sparse(links[at], kernel, first, batch)
            else:
                count = self._add_dense(links, at, first, outputs, batch)
            at += count
            arena.give({*range(first, first + count), *_read(links[:at])} - _read(links[at:]))
        self._most = max(self._threads)
        self._scratch *= threads
        sizes = [-(-ctypes.sizeof(job.template) // LINE) * LINE for job in self._jobs]
        apart = self._most > 1 or bool(self._watched)
        if apart:  # all copies at once, otherwise one after the other
            for i in range(1, len(sizes)):
                self._steps[i * _WORDS + 11] = sum(sizes[:i])
        self._arena = LINE + (sum(sizes) if apart else max(sizes))
        self._size = self._arena + arena.size
        self.possible = team().run != 0 or self._most == 1

    def _place(self, number: int | None, size: int = 0) -> Place:
        """The place of a tensor: a new one in the arena, if it has none yet."""
        if number is None:
            return _NOTHING
        if number not in self._places:
            self._places[number] = (_ARENA, self._inner.take(number, size))
        return self._places[number]

    def _add_dense(
        self, links: Sequence[Link], at: int, first: int, outputs: Sequence[int], batch: int
    ) -> int:
        """Add the steps of a link, or of several that are computed together. Returns the number of links.

        first: number of the first one's output.
        """
        threads = torch.get_num_threads()
        kernels: list[Any] = self._kernels[at:]
        group = together(kernels) if threads == 1 else []
        count = len(group) if _is_line(links, outputs, first, links[at : at + len(group)]) else 0
        divided = strips(group, batch) if count else None
        if divided is None:
            job, used = kernels[0].job(batch, threads)
            divided, count = Strips([Part(0, job, used, 0, 0, 0)], []), 1
        numbers = range(first, first + count)
        for number, size in zip(numbers, (*divided.sizes, self._bytes[numbers[-1]]), strict=True):
            self._place(number, size)
        for part in divided.parts:
            link, kernel = links[at + part.layer], kernels[part.layer]
            self._scratch = max(self._scratch, kernel.scratch)
            source, out, residual = map(self._place, (link.source, numbers[part.layer], link.residual))
            ends = (_moved(source, part.source), _moved(out, part.out), _moved(residual, part.residual))
            self._add(kernel.code, part.job, part.threads, link, *ends)
        return count

    def _add_sparse(self, link: Link, kernel: RingConvolution, number: int, batch: int) -> None:
        """Add the steps of a sparse link, whose lists are in the arena meanwhile. number: of its output."""
        packing, products, form, scratch = kernel.stages(batch, link.activation, link.residual is None)
        self._scratch = max(self._scratch, scratch)
        out = self._place(number, self._bytes[number])
        lists = (_ARENA, self._inner.take(_LISTS, form.bytes))
        self._inner.give({_LISTS})
        assert isinstance(link.module, SparseConv2d)
        most = CROWDED * (1 - link.module.min_zeros) * form.elements
        self._watched.append((number - self._first, len(self._jobs), most))
        self._add(*packing, link, self._place(link.source), lists, _NOTHING)
        self._add(*products, link, lists, out, self._place(link.residual))

    def _add(
        self, code: Any, job: Job, threads: int, link: Link, source: Place, out: Place, residual: Place
    ) -> None:
        """Add a step."""
        self._jobs.append(job)
        self._threads.append(threads)
        self._steps.extend((code.address, ctypes.addressof(job.template), ctypes.sizeof(job.template) // 8))
        self._steps.extend((threads, LIMITS[link.activation].data_ptr(), *source, *out, *residual, 0))

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        outs = [torch.empty(shape, memory_format=torch.channels_last) for shape in self.shapes]
        block = workspace.take(self._size)
        addresses = [0, block.address + self._arena, *(tensor.data_ptr() for tensor in (*inputs, *outs))]
        bases = (ctypes.c_int64 * len(addresses))(*addresses)
        walk, beside = _codes()
        scratch = workspace.scratch(self._scratch) if self._scratch else 0
        values = (
            self._steps.buffer_info()[0],
            len(self._jobs),
            ctypes.addressof(bases),
            scratch,
            block.address + LINE,
            self._most,
            block.address,
            beside.address,
            *team(),
        )
        walk.ctypes((ctypes.c_int64 * len(values))(*values))
        for link, step, most in self._watched:
            place = block.address + LINE + self._steps[step * _WORDS + 11] + COUNT
            crowded = ctypes.c_int64.from_address(place).value > most
            self._times[link] = self._times[link] + 1 if crowded else 0
            if self._times[link] == CALLS:
                self.crowded.add(link)
        workspace.give(block)
        return outs


def _moved(place: Place, offset: int) -> Place:
    return (place[0], place[1] + offset) if place[0] else place


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
