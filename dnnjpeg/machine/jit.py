"""Compiling kernels: decorators over numba's, the cache on disk, what the processor can do."""

import gc
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
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

# Every kernel lives in one of these folders: their sources name the folder of its machine code.
KERNEL_ROOMS = ("machine", "codec", "sparse")


def _fingerprint() -> str:
    """Changes with any source that kernels may be made of: numba itself looks only at the file of the
    outermost function.
    """
    home = Path(__file__).parents[1]
    stats = [(path, path.stat()) for room in KERNEL_ROOMS for path in sorted(home.glob(f"{room}/*.py"))]
    facts = [(str(path.relative_to(home)), stat.st_mtime_ns, stat.st_size) for path, stat in stats]
    return f"{zlib.crc32(repr(facts).encode()):08x}"


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
    """To the code library of the class `kind`."""

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
        """With its parts. Numba makes so many objects, and hardly any garbage, that looking for some takes a
        tenth of the time.
        """
        collected = gc.isenabled()
        gc.disable()
        try:
            return super().compile_extra(function)
        finally:
            if collected:
                gc.enable()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the interpreter lock, and keep the machine code on disk."""
    with _cache_in_user_folder():
        return numba.njit(
            nogil=True, cache=True, error_model="numpy", boundscheck=False, pipeline_class=_KernelCompiler
        )(function)


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
        nogil=True, forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True,
        pipeline_class=_PartCompiler,
    )(function)  # fmt: skip


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
