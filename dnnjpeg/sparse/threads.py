"""Compiled jobs in several threads: torch's own where they can be had, so that two pools do not fight for the
processor, else Python's.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

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


def run(code: Any, job: int, threads: int) -> None:
    """Run `code`, a `jit.callback` that takes its tasks from a counter in the job, in each of `threads` threads
    with the same job (an address); returns when all are done.
    """
    if threads == 1:
        code.ctypes(job)
    elif (parallel := _gomp()) is not None:
        parallel(code.address, job, threads, 0)
    else:
        others = [_pool(threads - 1).submit(code.ctypes, job) for _ in range(threads - 1)]
        code.ctypes(job)
        wait(others)
