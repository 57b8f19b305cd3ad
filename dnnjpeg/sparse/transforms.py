"""The transforms of Winograd's convolution for tiles of 2 x 2 and 4 x 4 outputs, 8 or 16 channels at a time.

They come from a polynomial's values at 0, infinity and a few points p and -p. The points of the larger tile
are chosen for their accuracy. With 1 and 2, which are usual, errors are several times as large.
"""

from itertools import product
from typing import Any

import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic
from torch import Tensor

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.vector import call, fill, vector
from dnnjpeg.sparse.compiled import finish, load, save

SIZES = (16, 8) if host_has("avx512f") else (8,)  # channels transformed at a time
_NEAR, _FAR = 0.75, 1.5  # points of the larger tile
_I64 = ir.IntType(64)


def transformed(weights: Tensor, side: int) -> Tensor:
    """Filters x channels x 3 x 3 for tiles of side x side outputs, in float64."""
    points = [0.0, *((1.0, -1.0) if side == 2 else (_NEAR, -_NEAR, _FAR, -_FAR))]
    rows = []
    for point in points:
        scale = torch.tensor([point - other for other in points if other != point]).double().prod()
        rows.append(torch.tensor([1, point, point**2]).double() / scale)
    turn = torch.stack([*rows, torch.tensor([0, 0, 1]).double()])
    return turn @ weights.detach().double() @ turn.T


def _constant(b: ir.IRBuilder, factor: float, like: ir.Value) -> ir.Value:
    return fill(b, ir.FloatType()(factor), vector(f"f32x{like.type.count}"))


def _fma(b: ir.IRBuilder, value: ir.Value, factor: float, addend: ir.Value) -> ir.Value:
    name = f"llvm.fma.v{value.type.count}f32"
    return call(b, name, value.type, [value, _constant(b, factor, value), addend])


def _scaled(b: ir.IRBuilder, value: ir.Value, factor: float) -> ir.Value:
    return b.fmul(value, _constant(b, factor, value))


def _before(b: ir.IRBuilder, d: list[ir.Value]) -> list[ir.Value]:
    """Transform a row or column of inputs."""
    if len(d) == 4:
        return [b.fsub(d[2], d[0]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[3], d[1])]
    near, far = _NEAR**2, _FAR**2

    def ends(k: int) -> ir.Value:
        return _fma(b, d[k], near * far, _fma(b, d[k + 2], -near - far, d[k + 4]))

    middle = []
    for point, other in ((_NEAR, far), (_FAR, near)):
        even, odd = _fma(b, d[2], -other, d[4]), _fma(b, d[1], -other, d[3])
        middle += [_fma(b, odd, point, even), _fma(b, odd, -point, even)]
    return [ends(0), *middle, ends(1)]


def _after(b: ir.IRBuilder, m: list[ir.Value]) -> list[ir.Value]:
    """Make a row or column of outputs from products."""
    total, rest = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    if len(m) == 4:
        return [b.fadd(m[0], total), b.fadd(rest, m[3])]
    far, apart = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], total), far),
        _fma(b, rest, _NEAR, _scaled(b, apart, _FAR)),
        _fma(b, total, _NEAR**2, _scaled(b, far, _FAR**2)),
        _fma(b, rest, _NEAR**3, _fma(b, apart, _FAR**3, m[5])),
    ]


@intrinsic(prefer_literal=True)
def spread(typingctx: Any, side: Any, channels: Any, border: Any, args: Any) -> Any:
    """Transform the inputs of a tile of side x side outputs, so many channels at a time. `args` is a tuple:

    source: address of the picture
    y, x: position of the first input
    height, width, channels: of the picture
    zeros: address of a row of zeros
    out, plane: address of the first number of the first channel, and bytes from one to the next

    border: inputs may be outside the map.
    """
    at_border, size, lanes = border.literal_value, side.literal_value + 2, channels.literal_value
    kind = vector(f"f32x{lanes}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        source, y, x, height, width, every, zeros, out, plane = (
            b.extract_value(values[-1], i) for i in range(9)
        )
        pixel = b.shl(every, _I64(2))
        places = {}
        for row, column in product(range(size), repeat=2):
            line, place = b.add(y, _I64(row)), b.add(x, _I64(column))
            at = b.add(source, b.mul(b.add(b.mul(line, width), place), pixel))
            if at_border:
                inside = b.and_(b.icmp_unsigned("<", line, height), b.icmp_unsigned("<", place, width))
                at = b.select(inside, at, zeros)
            places[row, column] = at
        with cgutils.for_range_slice(b, _I64(0), pixel, _I64(4 * lanes), _I64) as (offset, _):
            by_column = [
                _before(b, [load(b, kind, b.add(places[row, column], offset), None) for row in range(size)])
                for column in range(size)
            ]
            to = b.add(out, offset)
            for row in range(size):
                for value in _before(b, [column[row] for column in by_column]):
                    save(b, kind, value, to, None)
                    to = b.add(to, plane)
        return context.get_dummy_value()

    return types.none(side, channels, border, args), codegen


@intrinsic(prefer_literal=True)
def gather(typingctx: Any, side: Any, filters: Any, args: Any) -> Any:
    """Make the outputs of a tile of side x side, of so many filters. `args` is a tuple:

    source, plane: address of the first product, and bytes from one to the next
    bias: address
    rows, columns: of the tile inside the map
    row_bytes: from one row of outputs to the next
    low, high, out, residual, pixel: see `compiled.finish`
    """
    outputs = side.literal_value
    size, kind = outputs + 2, vector(f"f32x{filters.literal_value}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        fields = [b.extract_value(values[-1], i) for i in range(len(args))]
        source, plane, bias, rows, columns, row_bytes, low, high, out, residual, pixel = fields
        m = [load(b, kind, b.add(source, b.mul(plane, _I64(n))), None) for n in range(size**2)]
        by_column = [_after(b, m[k::size]) for k in range(size)]
        start = load(b, kind, bias, None)
        for i in range(outputs):
            line = [b.fadd(y, start) for y in _after(b, [column[i] for column in by_column])]
            more = b.mul(row_bytes, _I64(i))
            there = b.icmp_unsigned("!=", residual, _I64(0))
            at, other = b.add(out, more), b.select(there, b.add(residual, more), residual)
            whole = b.icmp_unsigned("==", columns, _I64(outputs))
            with b.if_then(b.icmp_unsigned(">", rows, _I64(i))), b.if_else(whole) as (all_of_them, some):
                with all_of_them:
                    finish(b, kind, line, [low, high, at, other, pixel], None)
                with some:
                    for k in range(outputs - 1):
                        with b.if_then(b.icmp_unsigned(">", columns, _I64(k))):
                            places = [b.add(at, b.mul(pixel, _I64(k))), other]
                            places[1] = b.select(there, b.add(other, b.mul(pixel, _I64(k))), other)
                            finish(b, kind, line[k : k + 1], [low, high, *places, pixel], None)
        return context.get_dummy_value()

    return types.none(side, filters, args), codegen
