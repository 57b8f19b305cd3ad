"""Vectors of the machine as a numba type, with Python's operators: see `simd`."""

import operator
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.extending import lower_builtin, register_model, type_callable

BITS = {
    "i1": 1,
    "i8": 8,
    "u8": 8,
    "i16": 16,
    "u16": 16,
    "i32": 32,
    "u32": 32,
    "i64": 64,
    "u64": 64,
    "f32": 32,
}


class Vector(types.Type):
    """Numba type of a vector: `element` is a key of `BITS`, `lanes` a power of two."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"{element}x{lanes}")

    @property
    def ir(self) -> ir.VectorType:
        element = ir.FloatType() if self.element == "f32" else ir.IntType(BITS[self.element])
        return ir.VectorType(element, self.lanes)

    @property
    def is_float(self) -> bool:
        return self.element == "f32"

    @property
    def is_signed(self) -> bool:
        return self.element[0] == "i"

    @property
    def scalar(self) -> types.Type:
        return (
            types.float32
            if self.is_float
            else types.Integer.from_bitwidth(BITS[self.element], self.is_signed)
        )


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]  # numba has no types
    def __init__(self, manager: Any, fe_type: Vector):
        super().__init__(manager, fe_type, fe_type.ir)


@cache
def vector(name: str) -> Vector:
    """The type that `name` ("f32x16") spells."""
    match = re.fullmatch(r"([iuf]\d+)x(\d+)", name)
    if not match or match[1] not in BITS:
        raise ValueError(f"{name!r} is not a vector type; write element and lanes, as in 'f32x16'")
    return Vector(match[1], int(match[2]))


def fill(builder: ir.IRBuilder, scalar: ir.Value, kind: Vector) -> ir.Value:
    one = builder.insert_element(ir.Constant(kind.ir, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(
        one, one, ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), [0] * kind.lanes)
    )


def call(builder: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[ir.Value]) -> ir.Value:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [a.type for a in args]), name
    )
    return builder.call(function, args)


def prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Prefetch into the second cache. The first is full of what is in use."""
    options = [ir.IntType(32)(value) for value in (0, 2, 1)]  # read, second cache, data
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *options])


def named(operation: str, kind: Vector) -> str:
    return f"llvm.{operation}.v{kind.lanes}{'f' if kind.is_float else 'i'}{BITS[kind.element]}"


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
_COMPARE = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}


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
            value
            if isinstance(ty, Vector)
            else fill(builder, context.cast(builder, value, ty, kind.scalar), kind)
            for value, ty in zip(args, sig.args, strict=True)
        ]
        return _emit(builder, op, kind, *values)

    for pattern in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *pattern)(lower)


for _op in (*_INTEGER, *_COMPARE, operator.rshift):
    _register(_op)
