"""Compiling kernels: decorators over numba's, the cache on disk, what the processor can do."""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import platformdirs
from llvmlite import binding

_SPARSE = ("cpo", "cps", "lists", "ring", "sweep", "threads", "transpose")  # the others there compile nothing


def _fingerprint() -> str:
    """Changes with any source that kernels are made of: numba itself looks only at the file of the outermost
    function.
    """
    home = Path(__file__).parent
    files = [home / f"{name}.py" for name in ("jit", "simd", "vector")]
    files += [*home.glob("codec/*.py"), *(home / "sparse" / f"{name}.py" for name in _SPARSE)]
    stats = [(path.name, path.stat()) for path in sorted(files)]
    return f"{zlib.crc32(repr([(name, s.st_mtime_ns, s.st_size) for name, s in stats]).encode()):08x}"


@cache
def kernel_folder() -> Path:
    """Where machine code is kept: the folder that NUMBA_CACHE_DIR names, else the user's cache folder, or one
    under the temporary folder where that cannot be written.
    """
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR)
    owner = os.getuid() if hasattr(os, "getuid") else 0
    for base in (platformdirs.user_cache_path("dnnjpeg"), Path(tempfile.gettempdir()) / f"dnnjpeg-{owner}"):
        folder = base / f"kernels-{_fingerprint()}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        # machine code is loaded from here: a folder that somebody else made is not ours to trust
        if os.access(folder, os.W_OK | os.X_OK) and base.stat().st_uid == owner:
            return folder
    raise OSError("no folder for compiled kernels can be written; set NUMBA_CACHE_DIR to one that can")


@contextmanager
def _cache_in_user_folder() -> Iterator[None]:
    """Numba caches beside the source by default, which an installed package often cannot write."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kernel_folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the interpreter lock, and keep the machine code on disk."""
    with _cache_in_user_folder():
        return numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)(function)


def callback(function: Callable[..., Any], job: np.dtype[Any]) -> Any:
    """Compile now, as a C function of the address of a record `job`, which threads of any make can run; kept
    on disk too.
    """
    signature = numba.void(numba.types.CPointer(numba.from_dtype(job)))
    with _cache_in_user_folder():
        return numba.cfunc(signature, nopython=True, cache=True, error_model="numpy", boundscheck=False)(
            function
        )


def inlined(function: Callable[..., Any]) -> Any:
    """A part of a kernel: always inlined, never called from Python."""
    return numba.njit(
        nogil=True, forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)


_LEVELS = {"x86-64-v3": {"avx2"}, "x86-64-v4": {"avx2", "avx512bw"}}


@cache
def host_has(feature: str) -> bool:
    """Whether the processor that kernels are compiled for has an LLVM feature such as "avx512vbmi2"."""
    chosen = numba.config.CPU_NAME
    if chosen and chosen != "host":
        return feature in _LEVELS.get(chosen, ()) or f"+{feature}" in (numba.config.CPU_FEATURES or "").split(
            ","
        )
    return bool(binding.get_host_cpu_features().get(feature, False))
