"""Running compiled jobs in several threads.

The threads are torch's, if they are available, so that two pools do not compete; otherwise they are Python's.
A job has tasks. Each thread has its own share of them, the same in every call. So its data stay in its cache
for the next job. A thread that has finished its share takes tasks of others.
"""

import copy
import ctypes
import os
import platform
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import fetch_add
from dnnjpeg.machine.vector import call

CALL = ("source", "out", "residual", "limits", "scratch")  # addresses of a call, with which jobs begin
COUNT = 8 * len(CALL)  # the place of the number of non-zeros, which comes next in jobs that tell it
LINE = 64  # bytes that go from cache to cache together
PATIENCE = 5_000  # looks at a counter before a waiting thread lets others run


@cache
def _openmp() -> Any:
    """The OpenMP library of torch if it is GNU's, else None."""
    if torch.__config__.parallel_info().find("ATen parallel backend: OpenMP") < 0:
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(os.fspath(path), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        except OSError:
            continue
        library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        library.GOMP_parallel.restype = None
        return library
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "dnnjpeg-sparse")


def record(*names: str) -> np.dtype[Any]:
    """The type of a job: 64-bit integers. Fields that change with each call come first."""
    own = ("threads", "number", "counters")
    return np.dtype([(name, np.int64) for name in (*names, *own)])


class Job:
    """The constant fields of a job, by name."""

    def __init__(self, kind: np.dtype[Any], threads: int, **values: int) -> None:
        assert kind.names is not None
        values["threads"], values["counters"] = threads, kind.itemsize
        if threads > 1 and (library := _openmp()):
            values["number"] = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value or 0
        self._kind: Any = ctypes.c_int64 * (len(kind.names) + (threads + 1) * LINE // 8)
        self.template = self._kind(*(values.get(name, 0) for name in kind.names))

    def with_(self, *values: int) -> "Job":
        """The same job, whose first fields are `values`."""
        made = copy.copy(self)
        made.template = self.copy(*values)
        return made

    def copy(self, *values: int) -> Any:
        """A job to run, as an array of ctypes. Its first fields are `values`."""
        job = self._kind.from_buffer_copy(self.template)
        job[: len(values)] = values
        return job


@intrinsic
def called(typingctx: Any, function: Any, args: Any) -> Any:
    """The result of the C function at an address, which takes a tuple of integers and returns an int."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        given = [builder.extract_value(values[1], i) for i in range(len(args))]
        kind = ir.FunctionType(ir.IntType(32), [value.type for value in given])
        return builder.sext(
            builder.call(builder.inttoptr(values[0], kind.as_pointer()), given), ir.IntType(64)
        )

    return types.int64(types.int64, args), codegen


@inlined
def number(at, job):
    """The number of the calling thread, from 0. If possible, it is the same in each call.

    at: address of the job.
    job: its fields.
    """
    arrived = at + job.counters + LINE * job.threads
    return called(job.number, ()) if job.number else fetch_add(arrived, 1)


@inlined
def take(at, job, tasks, me, owner):
    """Take a free task of 0..tasks-1. Returns the task, or -1 if none is left, and the owner of its share.

    me: number of the thread.
    owner: owner of the share from which the thread took its last task; at first, the thread itself.
    """
    while True:
        task = owner * tasks // job.threads + fetch_add(at + job.counters + LINE * owner, 1)
        if task < (owner + 1) * tasks // job.threads:
            return task, owner
        owner = (owner + 1) % job.threads
        if owner == me:
            return -1, owner


@intrinsic
def _look(typingctx: Any, place: Any) -> Any:
    """Wait a few cycles, then read an integer that other threads change."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        if platform.machine() in ("x86_64", "AMD64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        return builder.load_atomic(
            builder.inttoptr(values[0], ir.IntType(64).as_pointer()), "acquire", align=8
        )

    return types.int64(types.int64), codegen


@inlined
def meet(counter, threads, times, rest):
    """Wait until all threads have come here.

    counter: address of the number of arrivals.
    times: how often they have met before.
    rest: address of the C function that lets others run.
    """
    fetch_add(counter, 1)
    looks = 0
    while _look(counter) < threads * (times + 1):
        looks += 1
        if looks > PATIENCE:
            called(rest, ())


class Team(NamedTuple):
    """Addresses of C functions of torch's OpenMP and of the system, or zeros without that OpenMP."""

    run: int  # runs code in several threads
    me: int  # the number of the calling thread
    size: int  # of the team that it is in, which may be smaller than was asked for
    rest: int  # lets others run


@cache
def team() -> Team:
    library = _openmp()
    if library is None:
        return Team(0, 0, 0, 0)
    functions = (library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads)
    rest = ctypes.CDLL(None).sched_yield
    return Team(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in (*functions, rest)))


def run(code: Any, job: Any, threads: int) -> None:
    """Run `code`, a `jit.callback` that calls `take`, with a job in several threads, and wait for them."""
    if threads == 1:
        code.ctypes(job)
    elif library := _openmp():
        library.GOMP_parallel(code.address, job, threads, 0)
    else:
        others = [_pool(threads - 1).submit(code.ctypes, job) for _ in range(threads - 1)]
        code.ctypes(job)
        wait(others)
