"""Transposing between channels first and channels last, 16 x 16 numbers at a time, in registers."""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from dnnjpeg.machine.vector import call, fill, named, vector

LANES = 16
_VECTOR, _MASK, _INDEX = vector(f"f32x{LANES}"), vector(f"i1x{LANES}"), vector(f"i32x{LANES}")


@intrinsic
def transpose(
    typingctx: Any, source: Any, source_bytes: Any, rows: Any, columns: Any, target: Any, target_bytes: Any
) -> Any:
    """Write the transpose of `rows` x `columns` float32, up to 16 each, and touch nothing else.

    source, target: addresses; `source_bytes`, `target_bytes` from one row to the next.
    """

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        source, source_bytes, rows, columns, target, target_bytes = args
        numbers = ir.Constant(_INDEX.ir, list(range(LANES)))

        def below(limit: ir.Value) -> ir.Value:
            narrow = builder.trunc(limit, ir.IntType(32))
            return builder.icmp_signed("<", numbers, fill(builder, narrow, _INDEX))

        def row_mask(mask: ir.Value, row: int, count: ir.Value) -> ir.Value:
            there = builder.icmp_signed(">", count, ir.IntType(64)(row))
            return builder.select(there, mask, ir.Constant(_MASK.ir, None))

        def pointer(start: ir.Value, stride: ir.Value, row: int) -> ir.Value:
            offset = builder.mul(stride, ir.IntType(64)(row))
            return builder.inttoptr(builder.add(start, offset), _VECTOR.ir.as_pointer())

        align, zero = ir.IntType(32)(1), ir.Constant(_VECTOR.ir, None)
        mask = below(columns)
        lines = [
            call(
                builder,
                f"{named('masked.load', _VECTOR)}.p0",
                _VECTOR.ir,
                [pointer(source, source_bytes, row), align, row_mask(mask, row, rows), zero],
            )
            for row in range(LANES)
        ]
        for step in (1, 2, 4, 8):
            # element (i, j) of a 2x2 arrangement of blocks of `step` changes places with (j, i)
            low = [k if not k & step else k - step + LANES for k in range(LANES)]
            high = [k + step if not k & step else k + LANES for k in range(LANES)]
            for first in (row for row in range(LANES) if not row & step):
                a, b = lines[first], lines[first + step]
                lines[first], lines[first + step] = (
                    builder.shuffle_vector(a, b, ir.Constant(_INDEX.ir, order)) for order in (low, high)
                )
        mask = below(rows)
        for row, line in enumerate(lines):
            operands = [line, pointer(target, target_bytes, row), align, row_mask(mask, row, columns)]
            call(builder, f"{named('masked.store', _VECTOR)}.p0", ir.VoidType(), operands)
        return context.get_dummy_value()

    return types.none(*(types.intp,) * 6), codegen
