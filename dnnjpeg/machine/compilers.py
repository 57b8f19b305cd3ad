"""How numba compiles kernels in half of its time. All that is private to numba is overridden here.

Numba optimizes each function by itself, links into it what it calls, makes machine code of it, and does all
of this again as a part of what calls it. Here parts are left as they are. A kernel links all of them, is
optimized once, and not searched for loops to vectorize: those that matter are vectors already.
"""

import gc
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType
from typing import Any

from llvmlite import binding
from numba.core import typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.types.misc import unliteral

_NUMBERS = (types.IntegerLiteral, types.BooleanLiteral)
_POWERS = (operator.pow, operator.ipow)

# for closures, comprehensions, arithmetic of whole arrays and what else kernels do not use
_NOT_NEEDED = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,
    typed_passes.NoPythonSupportedFeatureValidation,
    typed_passes.DumpParforDiagnostics,
}


class _PartLibrary(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    _linking_libraries: list[Any]

    def _optimize_functions(self, module: Any) -> None:
        pass

    def finalize(self) -> None:
        self._finalized = True


class _KernelLibrary(_PartLibrary):
    def finalize(self) -> None:
        libraries = dict.fromkeys(self._linking_libraries)
        todo = list(libraries)
        while todo:
            library = todo.pop()
            if isinstance(library, _PartLibrary):  # what others call is linked into them
                todo += [one for one in library._linking_libraries if one not in libraries]
                libraries.update(dict.fromkeys(library._linking_libraries))
        self._linking_libraries = list(libraries)
        JITCodeLibrary.finalize(self)

    def _optimize_final_module(self) -> None:
        self._final_module.data_layout = self._codegen._data_layout
        passes, builder = self._codegen._module_pass_manager(loop_vectorize=False, slp_vectorize=False)
        passes.run(self._final_module, builder)

    def serialize_using_object_code(self) -> tuple[str, str, tuple[bytes, bytes]]:
        """Numba adds the functions for others to inline, which takes longer to load than machine code. Their
        names will do.
        """
        names = [one.name for one in self._get_module_for_linking().functions if not one.is_declaration]
        stubs = "".join(f'define available_externally void @"{name}"() {{ unreachable }}\n' for name in names)
        return self.name, "object", (self._get_compiled_object(), binding.parse_assembly(stubs).as_bitcode())


class _CallbackLibrary(_KernelLibrary):
    """Searched for loops to vectorize, as numba does."""

    _optimize_functions = JITCodeLibrary._optimize_functions
    _optimize_final_module = JITCodeLibrary._optimize_final_module


class _Lower(Lower):  # type: ignore[misc]
    def lower_binop(self, result: Any, expr: Any, op: Any) -> Any:
        """Numba searches for operations on constants first. Powers alone have any."""
        if op in _POWERS:
            return super().lower_binop(result, expr, op)
        context, builder = self.context, self.builder
        kind = context.typing_context.resolve_value_type(op)
        signature = context.typing_context.resolve_function_type(kind, self.fndesc.calltypes[expr].args, {})
        operands = [
            context.cast(builder, self.loadvar(one.name), self.typeof(one.name), wanted)
            for one, wanted in zip((expr.lhs, expr.rhs), signature.args, strict=True)
        ]
        found = context.get_function(kind, signature)(builder, operands)
        return context.cast(builder, found, signature.return_type, result)


class _Lowering(typed_passes.NativeLowering):  # type: ignore[misc]
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


@register_pass(mutates_CFG=True, analysis_only=False)
class _CallbackLowering(_Lowering):
    _name = "dnnjpeg_callback_lowering"
    kind = _CallbackLibrary


class _Compiler(CompilerBase):  # type: ignore[misc]
    lowering: type[_Lowering]

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (self.lowering if step is typed_passes.NativeLowering else step, why)
            for step, why in pipeline.passes
            if step not in _NOT_NEEDED
        ]
        pipeline.finalize()
        return [pipeline]


class PartCompiler(_Compiler):
    """Of functions that are inlined."""

    lowering = _PartLowering


class KernelCompiler(_Compiler):
    """Of functions that Python calls, and of their parts."""

    lowering = _KernelLowering

    def compile_extra(self, function: Callable[..., Any]) -> Any:
        """Garbage collection would take a tenth of the time, so it is off."""
        collected = gc.isenabled()
        gc.disable()
        try:
            with _types_kept(self.state.typingctx):
                return super().compile_extra(function)
        finally:
            if collected:
                gc.enable()


class CallbackCompiler(KernelCompiler):
    """Of functions that C calls."""

    lowering = _CallbackLowering


@contextmanager
def _types_kept(context: Any) -> Iterator[None]:
    """Find the type of each call once. Numba does so some seven times, in all versions of an operation.

    Numbers that are written into a call do not make another part of it: the optimizer sees them anyway.
    """
    of_call, of_value = context.resolve_function_type, context.resolve_value_type
    known: dict[Any, Any] = {}

    def resolve_call(function: Any, args: Any, named: Any) -> Any:
        if isinstance(function, str):  # of an index, which need not be hashable
            return of_call(function, args, named)
        if isinstance(function, types.Dispatcher):
            args = tuple(unliteral(one) if isinstance(one, _NUMBERS) else one for one in args)
        key = function, args, tuple(named.items())
        if known.get(key) is None:
            known[key] = of_call(function, args, named)
        return known[key]

    def resolve_value(value: Any) -> Any:
        if not isinstance(value, BuiltinFunctionType):  # not an operator
            return of_value(value)
        if known.get(value) is None:
            known[value] = of_value(value)
        return known[value]

    context.resolve_function_type, context.resolve_value_type = resolve_call, resolve_value
    try:
        yield
    finally:
        del context.resolve_function_type, context.resolve_value_type
