"""SIMD vectors inside numba kernels, for example `f32x16`.

Numba's own loops over several arrays do not vectorise, because LLVM does not know that the arrays do not
overlap. So kernels load, compute and store whole vectors at raw addresses. The IR is generic: LLVM lowers the
same sixteen lanes to AVX-512, AVX2, SSE or NEON. Operations are fused only where the code says so. So
floating-point results have the same bits on every machine.

A vector's type is a string of element and lanes: "f32x16", "i32x16", "u8x64". "i" and "u" decide how shifts,
comparisons and widening treat the sign. Inside a kernel::

    v = load(address, "f32x16") * 0.5
    store(address, convert(v, "i16x16"))
"""

from collections.abc import Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from dnnjpeg.machine.vector import BITS, Vector, call, fill, named, prefetch, vector

# --- memory ---


@intrinsic(prefer_literal=True)
def load(typingctx: Any, address: Any, kind: Any) -> Any:
    """Load a vector of type `kind` from an address, an integer of any alignment."""
    vec = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], vec.ir.as_pointer())
        return builder.load(pointer, align=1)

    return vec(types.intp, kind), codegen


@intrinsic(prefer_literal=True)
def load_scalar(typingctx: Any, address: Any, element: Any) -> Any:
    """Load one number of type `element` ("u8", "i16", "f32", ...) from an address."""
    scalar = Vector(element.literal_value, 1).scalar

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], context.get_value_type(scalar).as_pointer())
        return builder.load(pointer, align=1)

    return scalar(types.intp, element), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Store a vector or a number at an address of any alignment."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        builder.store(args[1], builder.inttoptr(args[0], args[1].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(types.intp, value), codegen


@intrinsic
def fetch_ahead(typingctx: Any, address: Any) -> Any:
    """Prefetch the 64 bytes at an address, which may be any."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.none(types.intp), codegen


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
        return fill(builder, context.cast(builder, args[0], value, vec.scalar), vec)

    return vec(value, kind), codegen


def _of_elements(kind: str, like: Vector) -> Vector:
    return vector(kind if "x" in kind else f"{kind}x{like.lanes}")


@intrinsic(prefer_literal=True)
def convert(typingctx: Any, value: Any, kind: Any) -> Any:
    """Convert each lane to another element type.

    kind: the new type, of the vector ("i16x16") or of its elements ("i16").

    A wider integer keeps the value; a narrower one keeps the low bits. Float to integer rounds towards zero.
    """
    source = value
    target = _of_elements(kind.literal_value, value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        if source.is_float:
            return builder.fptosi(args[0], target.ir)
        if target.is_float:
            return (builder.sitofp if source.is_signed else builder.uitofp)(args[0], target.ir)
        if BITS[target.element] < BITS[source.element]:
            return builder.trunc(args[0], target.ir)
        widen = builder.sext if source.is_signed and source.element != "i1" else builder.zext
        return widen(args[0], target.ir)

    return target(value, kind), codegen


@intrinsic(prefer_literal=True)
def reinterpret(typingctx: Any, value: Any, kind: Any) -> Any:
    """The same bits as another type of equal size. kind: of the vector, or of its elements."""
    target = _of_elements(kind.literal_value, value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.bitcast(args[0], target.ir)

    return target(value, kind), codegen


def shuffler(mask: Iterable[int]) -> Any:
    """An operation f(a, b). Its lane i is lane mask[i] of a followed by b. The mask is a constant."""
    mask = tuple(mask)

    @intrinsic
    def shuffle(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
            return builder.shuffle_vector(
                *args, ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), list(mask))
            )

        return Vector(a.element, len(mask))(a, b), codegen

    return shuffle


def _filled(
    context: Any, builder: ir.IRBuilder, kind: Vector, given: Sequence[types.Type], values: Sequence[ir.Value]
) -> list[ir.Value]:
    """The values as vectors. A number fills all lanes."""
    return [
        value if ty == kind else fill(builder, context.cast(builder, value, ty, kind.scalar), kind)
        for ty, value in zip(given, values, strict=True)
    ]


@intrinsic
def select(typingctx: Any, mask: Any, a: Any, b: Any) -> Any:
    """Lanes of a where the mask is set, else of b. One of the two may be a number, for all lanes."""
    kind = a if isinstance(a, Vector) else b

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.select(args[0], *_filled(context, builder, kind, sig.args[1:], args[1:]))

    return kind(mask, a, b), codegen


@intrinsic
def mask_bits(typingctx: Any, mask: Any) -> Any:
    """The mask as a uint64. Lane 0 is the lowest bit."""

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
    """Move the lanes where the mask is set to the front, in order. The other lanes are undefined."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        rest = ir.Constant(value.ir, ir.Undefined)
        return call(builder, named("experimental.vector.compress", value), value.ir, [*args, rest])

    return value(value, mask), codegen


# --- arithmetic ---


@intrinsic
def fused(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c of float vectors, rounded once on every machine. It is slow without an instruction for it.

    b and c may be numbers, for all lanes.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return call(builder, named("fma", a), a.ir, _filled(context, builder, a, sig.args, args))

    return a(a, b, c), codegen


@intrinsic
def floor(typingctx: Any, value: Any) -> Any:
    """The largest integer that is not above the number, in each lane of a float vector."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return call(builder, named("floor", value), value.ir, args)

    return value(value), codegen


@intrinsic
def magnitude_bits(typingctx: Any, value: Any) -> Any:
    """The number of bits of each lane's magnitude: 0 for 0, else floor(log2|v|) + 1 (T.81 F.1.2)."""
    width = BITS[value.element]

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        false = ir.IntType(1)(0)
        positive = call(builder, named("abs", value), value.ir, [args[0], false])
        zeros = call(builder, named("ctlz", value), value.ir, [positive, false])
        return builder.sub(ir.Constant(value.ir, [width] * value.lanes), zeros)

    return value(value), codegen


@intrinsic
def count_set(typingctx: Any, value: Any) -> Any:
    """Number of set bits in each lane."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return call(builder, named("ctpop", value), value.ir, args)

    return value(value), codegen


# --- memory that ends within a vector, and memory that threads share ---


@intrinsic(prefer_literal=True)
def load_where(typingctx: Any, address: Any, mask: Any, kind: Any) -> Any:
    """Load the lanes where the mask is set from an address. The others are 0, and are not read."""
    vec = vector(kind.literal_value)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], vec.ir.as_pointer())
        rest = ir.Constant(vec.ir, None)
        return call(
            builder, f"{named('masked.load', vec)}.p0", vec.ir, [pointer, ir.IntType(32)(1), args[1], rest]
        )

    return vec(types.intp, mask, kind), codegen


@intrinsic
def store_where(typingctx: Any, address: Any, value: Any, mask: Any) -> Any:
    """Store the lanes where the mask is set at an address. Nothing else is written."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], args[1].type.as_pointer())
        operands = [args[1], pointer, ir.IntType(32)(1), args[2]]
        call(builder, f"{named('masked.store', value)}.p0", ir.VoidType(), operands)
        return context.get_dummy_value()

    return types.none(types.intp, value, mask), codegen


@intrinsic
def fetch_add(typingctx: Any, address: Any, amount: Any) -> Any:
    """Add `amount` to the int64 at an address, in one step for all threads. Returns the value before."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "monotonic")

    return types.int64(types.intp, types.int64), codegen
