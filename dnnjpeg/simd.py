"""Vectors of the machine inside numba: `f32x16` and its kin as first-class values.

Numba's own loops over several arrays do not vectorise (nothing tells LLVM that they do not overlap), so kernels here load, compute
and store whole vectors at raw addresses. The IR is generic: LLVM lowers the same sixteen lanes to AVX-512, AVX2, SSE or NEON.
Operations are fused where the code says so and nowhere else, so floating-point results are the same bits on every machine.

A vector's type is written as a string, element and lanes: "f32x16", "i32x16", "u8x64"; "i" and "u" choose how shifts, comparisons
and widening treat the sign. Inside a kernel::

    v = load(address, "f32x16") * 0.5
    store(address, convert(nearest(v), "i16x16"))
"""

import operator
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
import platformdirs
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_builtin, register_model, type_callable

_BITS = {"i1": 1, "i8": 8, "u8": 8, "i16": 16, "u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64, "f32": 32}


class Vector(types.Type):
    """Numba type of a vector: `element` is a key of `_BITS`, `lanes` a power of two."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def ir(self) -> ir.VectorType:
        element = ir.FloatType() if self.element == "f32" else ir.IntType(_BITS[self.element])
        return ir.VectorType(element, self.lanes)

    @property
    def is_float(self) -> bool:
        return self.element == "f32"

    @property
    def is_signed(self) -> bool:
        return self.element[0] == "i"

    @property
    def scalar(self) -> types.Type:
        return types.float32 if self.is_float else types.Integer.from_bitwidth(_BITS[self.element], self.is_signed)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector):
        super().__init__(manager, fe_type, fe_type.ir)


@cache
def vector(name: str) -> Vector:
    """The type that `name` ("f32x16") spells."""
    match = re.fullmatch(r"([iuf]\d+)x(\d+)", name)
    if not match or match[1] not in _BITS:
        raise ValueError(f"{name!r} is not a vector type; write element and lanes, as in 'f32x16'")
    return Vector(match[1], int(match[2]))


def _splat(builder: ir.IRBuilder, scalar: ir.Value, kind: Vector) -> ir.Value:
    one = builder.insert_element(ir.Constant(kind.ir, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), [0] * kind.lanes))


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def _named(operation: str, kind: Vector) -> str:
    return f"llvm.{operation}.v{kind.lanes}{'f' if kind.is_float else 'i'}{_BITS[kind.element]}"


# --- operators: vector with vector, or with a scalar that fills all lanes ---

_INTEGER = {
    operator.add: "add",
    operator.sub: "sub",
    operator.mul: "mul",
    operator.and_: "and_",
    operator.or_: "or_",
    operator.xor: "xor",
    operator.lshift: "shl",
}
_FLOAT = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul"}
_COMPARE = {operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==", operator.ne: "!="}


def _emit(builder: ir.IRBuilder, op: Callable[..., Any], kind: Vector, a: ir.Value, b: ir.Value) -> ir.Value:
    if op in _COMPARE:
        if kind.is_float:
            return builder.fcmp_ordered(_COMPARE[op], a, b)
        compare = builder.icmp_signed if kind.is_signed else builder.icmp_unsigned
        return compare(_COMPARE[op], a, b)
    if op is operator.rshift:
        return builder.ashr(a, b) if kind.is_signed else builder.lshr(a, b)
    return getattr(builder, (_FLOAT if kind.is_float else _INTEGER)[op])(a, b)


def _operands(a: types.Type, b: types.Type) -> Vector | None:
    if isinstance(a, Vector) and (a == b or isinstance(b, types.Number)):
        return a
    return b if isinstance(b, Vector) and isinstance(a, types.Number) else None


def _register(op: Callable[..., Any]) -> None:
    @type_callable(op)
    def _(context: Any) -> Callable[..., Any]:
        def typer(a: types.Type, b: types.Type) -> types.Type | None:
            kind = _operands(a, b)
            if kind is None:
                return None
            return Vector("i1", kind.lanes) if op in _COMPARE else kind

        return typer

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
        kind = _operands(*sig.args)
        assert kind is not None
        values = [
            value if isinstance(ty, Vector) else _splat(builder, context.cast(builder, value, ty, kind.scalar), kind)
            for value, ty in zip(args, sig.args, strict=True)
        ]
        return _emit(builder, op, kind, *values)

    for pattern in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pattern)(lower)


for _op in (*_INTEGER, *_COMPARE, operator.rshift):
    _register(_op)


# --- memory ---


@intrinsic(prefer_literal=True)
def load(typingctx: Any, address: Any, kind: Any) -> Any:
    """Vector of type `kind` at `address` (integer); any alignment."""
    vec = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], vec.ir.as_pointer())
        return builder.load(pointer, align=1)

    return vec(types.intp, kind), codegen


@intrinsic(prefer_literal=True)
def load_scalar(typingctx: Any, address: Any, element: Any) -> Any:
    """One number of type `element` ("u8", "i16", "f32", ...) at `address`."""
    scalar = Vector(element.literal_value, 1).scalar

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], context.get_value_type(scalar).as_pointer())
        return builder.load(pointer, align=1)

    return scalar(types.intp, element), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write `value` at `address`; any alignment. `value` may be a vector or a scalar."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        builder.store(args[1], builder.inttoptr(args[0], args[1].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(types.intp, value), codegen


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """Address of an array's first element."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), codegen


# --- lanes ---


@intrinsic(prefer_literal=True)
def splat(typingctx: Any, value: Any, kind: Any) -> Any:
    """Vector of type `kind` with `value` in every lane."""
    vec = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _splat(builder, context.cast(builder, args[0], value, vec.scalar), vec)

    return vec(value, kind), codegen


@intrinsic(prefer_literal=True)
def convert(typingctx: Any, value: Any, kind: Any) -> Any:
    """Lane by lane to another element type: widen by the source's sign, truncate modulo, float to int towards zero."""
    source = value
    target = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        if source.is_float:
            return builder.fptosi(args[0], target.ir)
        if target.is_float:
            return (builder.sitofp if source.is_signed else builder.uitofp)(args[0], target.ir)
        if _BITS[target.element] < _BITS[source.element]:
            return builder.trunc(args[0], target.ir)
        widen = builder.sext if source.is_signed and source.element != "i1" else builder.zext
        return widen(args[0], target.ir)

    return target(value, kind), codegen


@intrinsic(prefer_literal=True)
def reinterpret(typingctx: Any, value: Any, kind: Any) -> Any:
    """The same bits as another vector type of equal size."""
    target = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], target.ir)

    return target(value, kind), codegen


def shuffler(mask: Sequence[int]) -> Any:
    """An operation f(a, b) whose lane i is lane mask[i] of a and b laid end to end; the mask is a constant of the code."""
    mask = tuple(mask)

    @intrinsic
    def shuffle(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            return builder.shuffle_vector(*args, ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), list(mask)))

        return Vector(a.element, len(mask))(a, b), codegen

    return shuffle


@intrinsic
def select(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is set, else b."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.select(*args)

    return a(mask, a, a), codegen


@intrinsic
def mask_bits(typingctx: Any, mask: Any) -> Any:
    """The mask as an unsigned integer, lane 0 in the lowest bit."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return bits if mask.lanes == 64 else builder.zext(bits, ir.IntType(64))

    return types.uint64(mask), codegen


@intrinsic(prefer_literal=True)
def lanes_of(typingctx: Any, bits: Any, kind: Any) -> Any:
    """The inverse of `mask_bits`: a mask such as "i1x64" from the low bits of a uint64."""
    mask = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        word = args[0] if mask.lanes == 64 else builder.trunc(args[0], ir.IntType(mask.lanes))
        return builder.bitcast(word, mask.ir)

    return mask(types.uint64, kind), codegen


@intrinsic
def compress(typingctx: Any, value: Any, mask: Any) -> Any:
    """The lanes of `value` where the mask is set, moved together to the front."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rest = ir.Constant(value.ir, ir.Undefined)
        return _call(builder, _named("experimental.vector.compress", value), value.ir, [*args, rest])

    return value(value, mask), codegen


# --- arithmetic ---

_PMADDWD = (("llvm.x86.avx512.pmaddw.d.512", "avx512bw", 32), ("llvm.x86.avx2.pmadd.wd", "avx2", 16))


@intrinsic
def floor(typingctx: Any, value: Any) -> Any:
    """Largest whole number not above each lane."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _call(builder, _named("floor", value), value.ir, args)

    return value(value), codegen


@intrinsic
def fused(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c of float vectors, rounded once on every machine (slow where there is no such instruction)."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return _call(builder, _named("fma", a), a.ir, args)

    return a(a, a, a), codegen


@intrinsic
def magnitude_bits(typingctx: Any, value: Any) -> Any:
    """Bits needed for each lane's magnitude: 0 for 0, else floor(log2|v|) + 1 (the size category of T.81 F.1.2)."""
    width = _BITS[value.element]

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        false = ir.IntType(1)(0)
        positive = _call(builder, _named("abs", value), value.ir, [args[0], false])
        zeros = _call(builder, _named("ctlz", value), value.ir, [positive, false])
        return builder.sub(ir.Constant(value.ir, [width] * value.lanes), zeros)

    return value(value), codegen


@intrinsic
def multiply_pairs(typingctx: Any, a: Any, b: Any) -> Any:
    """i32 lane k = a[2k]·b[2k] + a[2k+1]·b[2k+1] of i16 vectors."""
    wide = Vector("i32", a.lanes // 2)
    # x86 does it in one instruction, which LLVM does not always see in the generic form
    native = next((name for name, feature, lanes in _PMADDWD if lanes <= a.lanes and host_has(feature)), None)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def lanes(value: ir.Value, numbers: Sequence[int]) -> ir.Value:
            return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers))

        if native == "llvm.x86.avx2.pmadd.wd" and a.lanes == 32:
            halves = []
            for part in (list(range(16)), list(range(16, 32))):
                operands = [lanes(value, part) for value in args]
                halves.append(_call(builder, native, Vector("i32", 8).ir, operands))
            return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(16))))
        if native:
            return _call(builder, native, wide.ir, args)
        products = [
            builder.mul(*(builder.sext(lanes(value, list(range(first, a.lanes, 2))), wide.ir) for value in args))
            for first in (0, 1)
        ]
        return builder.add(*products)

    return wide(a, a), codegen


@intrinsic
def count_zeros_low(typingctx: Any, value: Any) -> Any:
    """Number of zero bits below the lowest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@intrinsic
def highest_bit(typingctx: Any, value: Any) -> Any:
    """Position of the highest set bit of a non-zero uint64."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.sub(ir.IntType(64)(63), builder.ctlz(args[0], ir.IntType(1)(1)))

    return types.int64(types.uint64), codegen


@intrinsic
def count_ones(typingctx: Any, value: Any) -> Any:
    """Number of set bits of a uint64."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@intrinsic
def big_endian(typingctx: Any, value: Any) -> Any:
    """A uint64 with its bytes reversed."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), codegen


# --- compiling ---


def _fingerprint() -> str:
    """Changes with any source that kernels are made of: numba itself looks only at the file of the outermost function."""
    home = Path(__file__).parent
    stats = [(path.name, path.stat()) for path in sorted([*home.glob("*.py"), *home.glob("*/*.py")])]
    return f"{zlib.crc32(repr([(name, s.st_mtime_ns, s.st_size) for name, s in stats]).encode()):08x}"


@cache
def kernel_folder() -> Path:
    """Where machine code is kept: the user's cache folder, or one under the temporary folder where that cannot be written."""
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
def _cache_in_user_folder() -> Any:
    """Numba caches beside the source by default, which an installed package often cannot write."""
    before = numba.config.CACHE_DIR
    if not before:
        numba.config.CACHE_DIR = str(kernel_folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


def kernel(function: Callable[..., Any]) -> Any:
    """Compile on first call, without the interpreter lock, and keep the machine code on disk."""
    with _cache_in_user_folder():
        return numba.njit(nogil=True, cache=True, error_model="numpy", boundscheck=False)(function)


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
        return feature in _LEVELS.get(chosen, ()) or f"+{feature}" in (numba.config.CPU_FEATURES or "").split(",")
    return bool(binding.get_host_cpu_features().get(feature, False))
