"""Bits of a uint64 inside numba kernels, by one instruction each."""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic


@intrinsic
def count_zeros_low(typingctx: Any, value: Any) -> Any:
    """The number of zero bits below the lowest set bit of a uint64 that is not 0."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), codegen


@intrinsic
def highest_bit(typingctx: Any, value: Any) -> Any:
    """The position of the highest set bit of a uint64 that is not 0, as int64."""

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
