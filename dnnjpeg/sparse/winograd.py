"""Winograd's convolution F(2x2, 3x3), channels last: 16 multiplications where the direct kernel needs 36.

A tile is 2 x 2 outputs, of 4 x 4 inputs. Adding and subtracting makes of these 16 others, each of which
is multiplied with a matrix of its own; the outputs are sums of the products (Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2015). NaN and infinity go to all outputs of a tile.
"""

from functools import cache
from itertools import product
from typing import Any

import numba
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic
from torch import Tensor

from dnnjpeg.machine.jit import callback
from dnnjpeg.machine.simd import address, load_scalar
from dnnjpeg.machine.vector import vector
from dnnjpeg.sparse.compiled import CALL, Compiled, finish, load, save
from dnnjpeg.sparse.direct import SHARED, UNROLLED, multiply, pace, tiled
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.threads import LINE, Job, number, record, take

SIZE = 8  # channels transformed at a time, as many as there are registers for
BLOCK = 32 << 10  # bytes of transformed inputs that stay in the second cache while all filters pass
_KIND = vector(f"f32x{SIZE}")
_I64 = ir.IntType(64)
_JOB = record(
    *CALL,
    "tasks", "rows", "row_blocks", "tile_rows", "tile_columns",  # how the output is divided
    "weights", "bias", "zeros", "height", "width", "channels", "filters", "out_height", "out_width",
    "pad_y", "pad_x",
    "pace",  # at which the next weights are prefetched
    "input_bytes", "product_bytes", "scratch_bytes",  # of a matrix of inputs, of products, and of a thread
)  # fmt: skip


@intrinsic(prefer_literal=True)
def _spread(typingctx: Any, border: Any, args: Any) -> Any:
    """Transform the inputs of a tile. `args` is a tuple:

    source: address of the picture
    y, x: position of the first input
    height, width, channels: of the picture
    zeros: address of a row of zeros
    out, plane: address of the first of the 16 numbers of the first channel, and bytes from one to the next

    border: inputs may be outside the map.
    """
    at_border = border.literal_value

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        source, y, x, height, width, channels, zeros, out, plane = (
            b.extract_value(values[-1], i) for i in range(9)
        )
        pixel = b.shl(channels, _I64(2))
        places = {}
        for row, column in product(range(4), repeat=2):
            line, place = b.add(y, _I64(row)), b.add(x, _I64(column))
            at = b.add(source, b.mul(b.add(b.mul(line, width), place), pixel))
            if at_border:
                inside = b.and_(b.icmp_unsigned("<", line, height), b.icmp_unsigned("<", place, width))
                at = b.select(inside, at, zeros)
            places[row, column] = at
        with cgutils.for_range_slice(b, _I64(0), pixel, _I64(4 * SIZE), _I64) as (offset, _):
            d = {key: load(b, _KIND, b.add(at, offset), None) for key, at in places.items()}
            by_column = [_differences(b, [d[row, column] for row in range(4)]) for column in range(4)]
            by_row = [_differences(b, [column[row] for column in by_column]) for row in range(4)]
            for n, (row, column) in enumerate(product(range(4), repeat=2)):
                to = b.add(b.add(out, b.mul(plane, _I64(n))), offset)
                save(b, _KIND, by_row[row][column], to, None)
        return context.get_dummy_value()

    return types.none(border, args), codegen


def _differences(b: ir.IRBuilder, d: list[ir.Value]) -> list[ir.Value]:
    return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])]


@intrinsic(prefer_literal=True)
def _multiply(typingctx: Any, count: Any, args: Any) -> Any:
    """Multiply the transformed inputs of `count` tiles with a matrix, for 16 filters. `args` is a tuple:

    source, channels: address of the inputs, float32[count][channels]
    weights: address, float32[channels][16]
    out: address of the products, float32[count][16]
    ahead, pace: see `direct.multiply`
    """
    tiles, kind = count.literal_value, vector(f"f32x{LANES}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        source, channels, weights, out, ahead, pace = (b.extract_value(values[-1], i) for i in range(6))
        sums = [cgutils.alloca_once_value(b, ir.Constant(kind.ir, None)) for _ in range(tiles)]
        inputs = [b.add(source, b.mul(b.shl(channels, _I64(2)), _I64(i))) for i in range(tiles)]
        cursor, after = (cgutils.alloca_once_value(b, value) for value in (weights, ahead))
        multiply(b, kind, sums, cursor, inputs, channels, after, pace)
        for i, slot in enumerate(sums):
            save(b, kind, b.load(slot), b.add(out, _I64(4 * LANES * i)), None)
        return context.get_dummy_value()

    return types.none(count, args), codegen


def _sums(b: ir.IRBuilder, m: list[ir.Value]) -> list[ir.Value]:
    both, rest = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    return [b.fadd(m[0], both), b.fsub(rest, m[3])]


@intrinsic
def _gather(typingctx: Any, args: Any) -> Any:
    """Make the outputs of a tile, of `SIZE` filters. `args` is a tuple:

    source, plane: address of the first of the 16 products, and bytes from one to the next
    bias: address
    rows, columns: of the tile inside the map, 1 or 2
    row_bytes: from one row of outputs to the next
    low, high, out, residual, pixel: see `compiled.finish`
    """

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        fields = [b.extract_value(values[0], i) for i in range(len(args))]
        source, plane, bias, rows, columns, row_bytes, low, high, out, residual, pixel = fields
        m = [load(b, _KIND, b.add(source, b.mul(plane, _I64(n))), None) for n in range(16)]
        halves = [_sums(b, m[k::4]) for k in range(4)]  # by column: two rows of outputs
        start = load(b, _KIND, bias, None)
        lines = [[b.fadd(y, start) for y in _sums(b, [half[i] for half in halves])] for i in range(2)]
        other = b.select(b.icmp_unsigned("!=", residual, _I64(0)), b.add(residual, row_bytes), residual)
        places = [(out, residual), (b.add(out, row_bytes), other)]

        def end(i: int) -> None:
            rest = [low, high, *places[i], pixel]
            with b.if_else(b.icmp_unsigned("==", columns, _I64(2))) as (both, one):
                with both:
                    finish(b, _KIND, lines[i], rest, None)
                with one:
                    finish(b, _KIND, lines[i][:1], rest, None)

        end(0)
        with b.if_then(b.icmp_unsigned("==", rows, _I64(2))):
            end(1)
        return context.get_dummy_value()

    return types.none(args), codegen


def _kernel(count: int) -> Any:
    """The body of the kernel. count: tiles that are multiplied at a time."""

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        pixel, row_bytes = 4 * job.filters, 4 * job.filters * job.out_width
        panels = (job.filters + LANES - 1) // LANES
        low, high = load_scalar(job.limits, "f32"), load_scalar(job.limits + 4, "f32")
        owner = me = number(at, job)
        inputs = job.scratch + me * job.scratch_bytes
        products = inputs + 16 * job.input_bytes
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            image, block = divmod(task, job.row_blocks)
            first_row = block * job.rows
            last_row = min(job.tile_rows, first_row + job.rows)
            source = job.source + image * job.height * job.width * job.channels * 4
            place = inputs
            for row in range(first_row, last_row):
                y = 2 * row - job.pad_y
                for column in range(job.tile_columns):
                    x = 2 * column - job.pad_x
                    args = (
                        source, y, x, job.height, job.width, job.channels, job.zeros, place, job.input_bytes
                    )  # fmt: skip
                    if min(x, y) >= 0 and x + 4 <= job.width and y + 4 <= job.height:
                        _spread(False, args)
                    else:
                        _spread(True, args)
                    place += 4 * job.channels
            tiles = (last_row - first_row) * job.tile_columns
            for n in range(panels):
                for k in range(16):
                    weights = job.weights + (16 * n + k) * job.channels * LANES * 4
                    ahead = weights + job.channels * LANES * 4
                    for begin in range(0, tiles, count):  # what is beyond the last tile is not read later
                        args = (
                            inputs + k * job.input_bytes + 4 * begin * job.channels, job.channels, weights,
                            products + k * job.product_bytes + 4 * begin * LANES, ahead, job.pace,
                        )  # fmt: skip
                        _multiply(count, args)
                        ahead += job.pace * (job.channels // UNROLLED)
                for half in range(0, min(LANES, job.filters - n * LANES), SIZE):
                    begin = 4 * (n * LANES + half)
                    place = products + 4 * half
                    for row in range(first_row, last_row):
                        for column in range(job.tile_columns):
                            to = (image * job.out_height + 2 * row) * row_bytes + 2 * column * pixel + begin
                            args = (
                                place, job.product_bytes, job.bias + begin, min(2, job.out_height - 2 * row),
                                min(2, job.out_width - 2 * column), row_bytes, low, high, job.out + to,
                                job.residual + to if job.residual else 0, pixel,
                            )  # fmt: skip
                            _gather(args)
                            place += 64

    return convolve


@cache
def _code(count: int) -> Any:
    return callback(_kernel(count), _JOB)


def can_compute(channels: int, filters: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the kernel can compute a layer without groups."""
    return channels % SIZE == filters % SIZE == 0 and (kernel, stride) == ((3, 3), (1, 1))


class Winograd(Compiled):
    """A dense layer with 3x3 filters and stride 1, packed weights and a compiled kernel.

    weights: float32 filters x channels x 3 x 3.
    bias: float32 filters, or None for zero.

    Raises ValueError if weights or bias do not fit the geometry, or if it is of another kind.
    """

    def __init__(self, geometry: Geometry, weights: Tensor, bias: Tensor | None) -> None:
        sizes = (geometry.channels, geometry.filters)
        if geometry.groups != 1 or not can_compute(*sizes, geometry.kernel, geometry.stride):
            raise ValueError(
                f"{geometry} is not for Winograd's kernel, which needs 3x3, stride 1, no groups, and "
                f"channels and filters in multiples of {SIZE}"
            )
        super().__init__(geometry, weights, bias)
        filters, channels = geometry.filters, geometry.channels
        turn = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
        panels = -(-filters // LANES)
        packed = torch.zeros(panels * LANES, channels, 4, 4)
        packed[:filters] = turn @ weights.detach().double() @ turn.T
        packed = packed.reshape(panels, LANES, channels, 16)
        self._weights = packed.permute(0, 3, 2, 1).contiguous()
        self._zeros = torch.zeros(max(LANES, channels))
        self._rows, self._columns = (-(-size // 2) for size in geometry.output)
        size = 16 * 4 * channels * self._columns  # of a row of tiles
        blocks = -(-self._rows * size // BLOCK)
        self._block = -(-self._rows // blocks)
        self._count = count = tiled(self._block * self._columns)
        tiles = -(-self._block * self._columns // count) * count
        # a line more, or the 16 matrices would be in the same places of the cache
        self._bytes = (4 * channels * tiles + LINE, 4 * LANES * tiles + LINE)
        self.scratch = 16 * sum(self._bytes)
        self.code = _code(count)

    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        geometry = self.geometry
        (height, width), (pad_y, pad_x) = geometry.output, geometry.padding
        threads = threads if batch * height * width * geometry.filters * geometry.taps > SHARED else 1
        rows = min(self._block, -(-self._rows // threads)) if batch < threads else self._block
        blocks = -(-self._rows // rows)
        tiles = -(-rows * self._columns // self._count)
        job = Job(
            _JOB, threads, tasks=batch * blocks, rows=rows, row_blocks=blocks,
            tile_rows=self._rows, tile_columns=self._columns,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), zeros=self._zeros.data_ptr(),
            height=geometry.height, width=geometry.width, channels=geometry.channels,
            filters=geometry.filters, out_height=height, out_width=width, pad_y=pad_y, pad_x=pad_x,
            input_bytes=self._bytes[0], product_bytes=self._bytes[1], scratch_bytes=self.scratch,
            pace=pace(self._weights, tiles),
        )  # fmt: skip
        return job, threads
