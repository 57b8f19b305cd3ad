"""Parts of the kernels whose sums stay in registers: loading, storing and clipping a vector."""

from llvmlite import ir

from dnnjpeg.machine.vector import Vector, call, named

_I32 = ir.IntType(32)


def pointer(b: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return b.inttoptr(address, kind.as_pointer())


def load(b: ir.IRBuilder, kind: Vector, at: ir.Value, lanes: ir.Value | None) -> ir.Value:
    """Load the lanes of a mask, or all if there is none."""
    if lanes is None:
        return b.load(at, align=4)
    operands = [at, _I32(4), lanes, ir.Constant(kind.ir, None)]
    return call(b, f"{named('masked.load', kind)}.p0", kind.ir, operands)


def store(b: ir.IRBuilder, kind: Vector, value: ir.Value, at: ir.Value, lanes: ir.Value | None) -> None:
    """Store the lanes of a mask, or all if there is none."""
    if lanes is None:
        b.store(value, at, align=4)
    else:
        call(b, f"{named('masked.store', kind)}.p0", ir.VoidType(), [value, at, _I32(4), lanes])


def clipped(b: ir.IRBuilder, value: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """The value within low..high. NaN stays."""
    value = b.select(b.fcmp_ordered("<", value, low), low, value)
    return b.select(b.fcmp_ordered(">", value, high), high, value)
