"""Operations of `simd` for which a processor has an instruction that LLVM does not always find."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core.extending import intrinsic

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.vector import Vector, call

_PMADDWD = (("llvm.x86.avx512.pmaddw.d.512", "avx512bw", 32), ("llvm.x86.avx2.pmadd.wd", "avx2", 16))


@intrinsic
def multiply_pairs(typingctx: Any, a: Any, b: Any) -> Any:
    """i32 lane k = a[2k]·b[2k] + a[2k+1]·b[2k+1] of i16 vectors."""
    wide = Vector("i32", a.lanes // 2)
    # x86 does it in one instruction, which LLVM does not always see in the generic form
    native = next((name for name, feature, lanes in _PMADDWD if lanes <= a.lanes and host_has(feature)), None)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        def lanes(value: ir.Value, numbers: Sequence[int]) -> ir.Value:
            return builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)
            )

        if native == "llvm.x86.avx2.pmadd.wd" and a.lanes == 32:
            halves = []
            for part in (list(range(16)), list(range(16, 32))):
                operands = [lanes(value, part) for value in args]
                halves.append(call(builder, native, Vector("i32", 8).ir, operands))
            return builder.shuffle_vector(
                *halves, ir.Constant(ir.VectorType(ir.IntType(32), 16), list(range(16)))
            )
        if native:
            return call(builder, native, wide.ir, args)
        products = [
            builder.mul(
                *(builder.sext(lanes(value, list(range(first, a.lanes, 2))), wide.ir) for value in args)
            )
            for first in (0, 1)
        ]
        return builder.add(*products)

    return wide(a, a), codegen


_PACKS = {"i32": ("llvm.x86.avx2.packssdw", "i16", 8), "i16": ("llvm.x86.avx2.packuswb", "u8", 16)}


@intrinsic
def pack(typingctx: Any, a: Any, b: Any) -> Any:
    """Two i32x8 as one i16x16, or two i16x16 as one u8x32, in which all lanes fit.

    The lanes of the first 16 bytes of a come first, then those of b, then those of the second 16 bytes.
    """
    native, element, lanes = _PACKS[a.element]
    target, half = Vector(element, 2 * lanes), lanes // 2
    order = [first + lane for first in (0, lanes, half, lanes + half) for lane in range(half)]

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        if host_has("avx2"):
            return call(builder, native, target.ir, args)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * lanes), order)
        return builder.trunc(builder.shuffle_vector(*args, mask), target.ir)

    return target(a, a), codegen


@intrinsic
def pick_bytes(typingctx: Any, value: Any, numbers: Any) -> Any:
    """Byte numbers[i] of sixteen bytes in lane i, all of them u8x16, the numbers 0..15. Needs SSSE3."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return call(builder, "llvm.x86.ssse3.pshuf.b.128", value.ir, args)

    return value(value, numbers), codegen
