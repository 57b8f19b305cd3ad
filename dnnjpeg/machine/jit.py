"""Compiling kernels: decorators over numba's, and features of the processor."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core.ccallback import CFunc
from numba.np import numpy_support

from dnnjpeg.machine.kernel_cache import KernelCache

_NEWEST = (0, 68)  # of numba's versions, whose private parts `compilers` is made for
_CALLBACK: dict[str, Any] = {}  # a newer numba compiles in its own way: slower, to the same results
_KERNEL: dict[str, Any] = {}
_PART: dict[str, Any] = {}
if tuple(map(int, numba.__version__.split(".")[:2])) <= _NEWEST:
    from dnnjpeg.machine.compilers import CallbackCompiler, KernelCompiler, PartCompiler

    _CALLBACK, _KERNEL, _PART = (
        {"pipeline_class": compiler} for compiler in (CallbackCompiler, KernelCompiler, PartCompiler)
    )


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, release the interpreter lock, and cache the machine code on disk.

    Kernels, and parts of kernels, make no arrays.
    """
    made = numba.njit(
        nogil=True, error_model="numpy", boundscheck=False, no_cfunc_wrapper=True, _nrt=False,
        **_KERNEL,
    )(function)  # fmt: skip
    made._cache = KernelCache(function)
    of_any = made.typeof_pyval
    made.typeof_pyval = lambda value: _type_of(value, of_any)
    # numba would search all installed packages for extensions, which kernels do not use
    made._compilation_chain_init_hook = lambda: None
    return made


def _type_of(value: Any, of_any: Callable[[Any], Any]) -> Any:
    """For arrays, numba's own function `of_any` loads `numpy.ma`, which takes time at the start."""
    if type(value) is tuple:
        return numba.types.BaseTuple.from_types([_type_of(one, of_any) for one in value])
    if type(value) is not np.ndarray:
        return of_any(value)
    dtype, layout = numba.from_dtype(value.dtype), numpy_support.map_layout(value)
    return numba.types.Array(dtype, value.ndim, layout, readonly=not value.flags.writeable)


def is_compiled(kernel: Any) -> bool:
    """Whether a kernel is compiled, in this process or in the cache of an earlier one."""
    return bool(kernel.signatures) or kernel._cache.holds_any()


def callback(function: Callable[..., Any], job: np.dtype[Any]) -> Any:
    """Compile now, as a C function for any kind of thread, and cache the machine code on disk.

    job: the record whose address the C function gets.
    """
    signature = numba.void(numba.types.CPointer(numba.from_dtype(job)))
    options = {"nopython": True, "error_model": "numpy", "boundscheck": False}
    made: Any = CFunc(
        function, (signature.args, signature.return_type), locals={}, options=options, **_CALLBACK
    )
    made._cache = KernelCache(function, counts_references=True)
    made.compile()
    return made


class _Part:
    """Numba gets to know the function when a kernel that calls it is compiled: a start takes less time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @cached_property
    def _dispatcher(self) -> Any:
        return numba.njit(
            nogil=True, forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True,
            _nrt=False, **_PART,
        )(self._function)  # fmt: skip

    @property
    def _numba_type_(self) -> Any:
        """Asked for by numba, see its `typeof`."""
        return self._dispatcher._numba_type_


def inlined(function: Callable[..., Any]) -> Any:
    """Mark a part of kernels. It is always inlined, and cannot be called from Python."""
    return _Part(function)


_LEVELS = {
    "x86-64-v2": {"ssse3"},
    "x86-64-v3": {"ssse3", "avx2"},
    "x86-64-v4": {"ssse3", "avx2", "avx512f", "avx512bw"},
}


@cache
def host_has(feature: str) -> bool:
    """Whether the processor that kernels are compiled for has an LLVM feature such as "avx512vbmi2"."""
    chosen = numba.config.CPU_NAME
    if chosen and chosen != "host":
        return feature in _LEVELS.get(chosen, ()) or f"+{feature}" in (numba.config.CPU_FEATURES or "").split(
            ","
        )
    return bool(binding.get_host_cpu_features().get(feature, False))
