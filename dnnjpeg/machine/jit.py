"""Compiling kernels: decorators over numba's, and features of the processor."""

import gc
import operator
from collections.abc import Callable
from functools import cache
from types import BuiltinFunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.core import typed_passes, untyped_passes
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.types import BooleanLiteral, Dispatcher, IntegerLiteral, unliteral
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

from dnnjpeg.machine.kernel_cache import KernelCache

# Numba optimizes each function by itself, links what it calls into it, makes machine code of it, and does it all
# again as a part of what calls it. Here parts are left as they are. A kernel links all of them, is optimized
# once, and not searched for loops to vectorize: those that matter are vectors already.


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    def _optimize_functions(self, module: Any) -> None:
        pass

    def finalize(self) -> None:
        self._finalized = True


class _KernelLibrary(_PartLibrary):
    def finalize(self) -> None:
        for library in self._linking_libraries:  # it grows
            if isinstance(library, _PartLibrary):
                self._linking_libraries += library._linking_libraries
        JITCodeLibrary.finalize(self)

    def _optimize_final_module(self) -> None:
        self._final_module.data_layout = self._codegen._data_layout
        passes, builder = self._codegen._module_pass_manager(loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)


class _Lower(Lower):  # type: ignore[misc]
    def lower_binop(self, result: Any, expr: Any, op: Any) -> Any:
        """Without numba's search for implementations of its own for constants: powers alone have any."""
        if op in (operator.pow, operator.ipow):
            return super().lower_binop(result, expr, op)
        context, builder = self.context, self.builder
        kind = context.typing_context.resolve_value_type(op)
        signature = self.fndesc.calltypes[expr]
        signature = context.typing_context.resolve_function_type(kind, signature.args, {})
        operands = [
            context.cast(builder, self.loadvar(one.name), self.typeof(one.name), wanted)
            for one, wanted in zip((expr.lhs, expr.rhs), signature.args, strict=True)
        ]
        found = context.get_function(kind, signature)(builder, operands)
        return context.cast(builder, found, signature.return_type, result)


class _Lowering(NativeLowering):  # type: ignore[misc]
    """The pass that lowers a function, with a code library of the class `kind`."""

    kind: type[JITCodeLibrary]

    @property
    def lowering_class(self) -> type[Lower]:
        return _Lower

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


_NOT_NEEDED = {
    untyped_passes.WithLifting, untyped_passes.InlineClosureLikes, untyped_passes.RewriteSemanticConstants,
    untyped_passes.RewriteDynamicRaises, untyped_passes.MakeFunctionToJitFunction, untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls, untyped_passes.LiteralUnroll, untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads, typed_passes.NopythonRewrites, typed_passes.NoPythonSupportedFeatureValidation,
    typed_passes.DumpParforDiagnostics,
}

class _Compiler(CompilerBase):  # type: ignore[misc]
    lowering: type[_Lowering]

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (self.lowering if step is NativeLowering else step, why)
            for step, why in pipeline.passes
            if step not in _NOT_NEEDED
        ]
        pipeline.finalize()
        return [pipeline]


class _PartCompiler(_Compiler):
    lowering = _PartLowering


_NUMBERS = (IntegerLiteral, BooleanLiteral)


class _KernelCompiler(_Compiler):
    lowering = _KernelLowering

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        """Compile a kernel and its parts. Garbage collection would take a tenth of the time, so it is off."""
        collected = gc.isenabled()
        gc.disable()
        context, known = self.state.typingctx, {}
        resolve = context.resolve_function_type

        def remembered(func: Any, args: Any, kws: Any) -> Any:
            if isinstance(func, Dispatcher):  # one part for all numbers
                args = tuple([unliteral(one) if isinstance(one, _NUMBERS) else one for one in args])
            key = func, args, tuple(kws.items()) if kws else ()
            found = known.get(key)
            if found is None:
                found = known[key] = resolve(func, args, kws)
            return found

        lookup = context.resolve_value_type

        def value_type(value: Any) -> Any:
            if not isinstance(value, BuiltinFunctionType):
                return lookup(value)
            found = known.get(value)
            if found is None:
                found = known[value] = lookup(value)
            return found

        context.resolve_function_type = remembered
        context.resolve_value_type = value_type
        try:
            return super().compile_extra(function)
        finally:
            del context.resolve_function_type, context.resolve_value_type
            if collected:
                gc.enable()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, release the interpreter lock, and cache the machine code on disk."""
    made = numba.njit(
        nogil=True, error_model="numpy", boundscheck=False, no_cfunc_wrapper=True, _nrt=False,
        pipeline_class=_KernelCompiler,
    )(function)  # fmt: skip
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
        nogil=True, forceinline=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False,
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
