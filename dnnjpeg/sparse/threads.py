"""Compiled jobs in several threads: torch's own where they can be had, so that two pools do not fight for the
processor, else Python's.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch


@cache
def _gomp() -> Any:
    """GOMP_parallel of the OpenMP that torch has loaded; None where it uses another."""
    if torch.__config__.parallel_info().find("ATen parallel backend: OpenMP") < 0:
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            library = ctypes.CDLL(os.fspath(path), mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        except OSError:
            continue
        function = library.GOMP_parallel
        function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        function.restype = None
        return function
    return None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "dnnjpeg-sparse")


def record(*names: str) -> np.dtype[Any]:
    """The type of a job: 64-bit integers, those that change with each call first."""
    return np.dtype([(name, np.int64) for name in names])


class Job:
    """What does not change from call to call, by name."""

    def __init__(self, kind: np.dtype[Any], **values: int) -> None:
        assert kind.names is not None
        self._kind: Any = ctypes.c_int64 * len(kind.names)
        self._template = self._kind(*(values.get(name, 0) for name in kind.names))

    def copy(self, *values: int) -> Any:
        """A job to run, the first fields being `values`: an array of ctypes."""
        job = self._kind.from_buffer_copy(self._template)
        job[: len(values)] = values
        return job


def run(code: Any, job: Any, threads: int) -> None:
    """Run `code`, a `jit.callback` that takes its tasks from a counter in the job, in each of `threads`
    threads with the same job; returns when all are done.
    """
    if threads == 1:
        code.ctypes(job)
    elif (parallel := _gomp()) is not None:
        parallel(code.address, job, threads, 0)
    else:
        others = [_pool(threads - 1).submit(code.ctypes, job) for _ in range(threads - 1)]
        code.ctypes(job)
        wait(others)
