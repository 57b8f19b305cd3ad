"""Compiling kernels: decorators over numba's, and features of the processor."""

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

from dnnjpeg.machine.kernel_cache import KernelCache

# Numba optimizes each function by itself, makes machine code of it, and optimizes it twice again as a part
# of what calls it: a third of the time until the first picture. Here a part is left as it is, a kernel
# optimized once, and not searched for loops to vectorize: those that matter are vectors already.


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager(loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)


class _Lowering(NativeLowering):  # type: ignore[misc]
    """The pass that lowers a function, with a code library of the class `kind`."""

    kind: type[JITCodeLibrary]

    def run_pass(self, state: Any) -> bool:
        state.library = self.kind(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().run_pass(state)


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(_Lowering):
    _name = "dnnjpeg_part_lowering"
    kind = _PartLibrary

    def run_pass(self, state: Any) -> bool:
        # numba asks for machine code, to have a name for the function: another callable does as well
        state.targetctx.get_executable = lambda library, descriptor, environment: [library].append
        try:
            return super().run_pass(state)
        finally:
            del state.targetctx.get_executable


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(_Lowering):
    _name = "dnnjpeg_kernel_lowering"
    kind = _KernelLibrary


class _Compiler(CompilerBase):  # type: ignore[misc]
    lowering: type[_Lowering]

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (self.lowering if step is NativeLowering else step, why) for step, why in pipeline.passes
        ]
        pipeline.finalize()
        return [pipeline]


class _PartCompiler(_Compiler):
    lowering = _PartLowering


class _KernelCompiler(_Compiler):
    lowering = _KernelLowering

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        """Compile a kernel and its parts. Garbage collection would take a tenth of the time, so it is off."""
        collected = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if collected:
                gc.enable()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, release the interpreter lock, and cache the machine code on disk."""
    made = numba.njit(nogil=True, error_model="numpy", boundscheck=False, pipeline_class=_KernelCompiler)(
        function
    )
    made._cache = KernelCache(function)
    return made


def is_compiled(kernel: Any) -> bool:
    """Whether a kernel is compiled, in this process or in the cache of an earlier one."""
    return bool(kernel.signatures) or kernel._cache.holds_any()


def callback(function: Callable[..., Any], job: np.dtype[Any]) -> Any:
    """Compile now, as a C function for any kind of thread, and cache the machine code on disk.

    job: the record whose address the C function gets.
    """
    signature = numba.void(numba.types.CPointer(numba.from_dtype(job)))
    options = {"nopython": True, "error_model": "numpy", "boundscheck": False}
    made: Any = CFunc(function, (signature.args, signature.return_type), locals={}, options=options)
    made._cache = KernelCache(function)
    made.compile()
    return made


def inlined(function: Callable[..., Any]) -> Any:
    """Mark a part of kernels. It is always inlined, and cannot be called from Python."""
    return numba.njit(
        nogil=True, forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True,
        pipeline_class=_PartCompiler,
    )(function)  # fmt: skip


_LEVELS = {
    "x86-64-v2": {"ssse3"},
    "x86-64-v3": {"ssse3", "avx2"},
    "x86-64-v4": {"ssse3", "avx2", "avx512bw"},
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
