"""Winograd's convolutions F(2x2, 3x3) and F(4x4, 3x3), channels last.

A tile is 2 x 2 outputs, of 4 x 4 inputs. Sums of these make 16 others, each of which is multiplied with a
matrix of its own; the outputs are sums of the products (Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", 2015): 16 multiplications where the direct kernel needs 36. A tile of 4 x 4 outputs needs 36
in place of 144, but larger weights. NaN and infinity go to all outputs of a tile.
"""

from functools import cache
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
from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.compiled import Compiled, save
from dnnjpeg.sparse.direct import SHARED, multiply
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.panels import UNROLLED, block_bytes, pace, panel_of, tiled
from dnnjpeg.sparse.threads import CALL, LINE, Job, number, record, take
from dnnjpeg.sparse.transforms import SIZES, gather, spread, transformed

_I64 = ir.IntType(64)
_JOB = record(
    *CALL,
    "tasks", "row_blocks", "tile_rows", "tile_columns",  # how the output is divided
    "weights", "bias", "zeros", "height", "width", "channels", "filters", "out_height", "out_width",
    "pad_y", "pad_x",
    "pace",  # at which the next weights are prefetched
    "input_bytes", "product_bytes", "scratch_bytes",  # of a matrix of inputs, of products, and of a thread
)  # fmt: skip


@intrinsic(prefer_literal=True)
def _multiply(typingctx: Any, panel: Any, count: Any, args: Any) -> Any:
    """Multiply the transformed inputs of `count` tiles with a matrix, for a panel. `args` is a tuple:

    source, channels: address of the inputs, float32[count][channels]
    weights: address, float32[channels][panel]
    out: address of the products, float32[count][panel]
    ahead, pace: see `direct.multiply`
    """
    tiles, filters = count.literal_value, panel.literal_value
    kind = vector(f"f32x{filters}")

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        source, channels, weights, out, ahead, pace = (b.extract_value(values[-1], i) for i in range(6))
        sums = [cgutils.alloca_once_value(b, ir.Constant(kind.ir, None)) for _ in range(tiles)]
        inputs = [b.add(source, b.mul(b.shl(channels, _I64(2)), _I64(i))) for i in range(tiles)]
        cursor, after = (cgutils.alloca_once_value(b, value) for value in (weights, ahead))
        multiply(b, kind, filters, sums, cursor, inputs, channels, after, pace)
        for i, slot in enumerate(sums):
            save(b, kind, b.load(slot), b.add(out, _I64(4 * filters * i)), None)
        return context.get_dummy_value()

    return types.none(panel, count, args), codegen


def _kernel(side: int, size: int, panel: int, count: int) -> Any:
    """The body of the kernel.

    side: rows and columns of a tile.
    size: channels that are transformed at a time.
    panel: filters of a panel.
    count: tiles that are multiplied at a time.
    """
    matrices = (side + 2) ** 2

    def convolve(jobs):
        job = numba.carray(jobs, 1)
        at = address(job)
        job = job[0]
        pixel, row_bytes = 4 * job.filters, 4 * job.filters * job.out_width
        panels = (job.filters + panel - 1) // panel
        low, high = load_scalar(job.limits, "f32"), load_scalar(job.limits + 4, "f32")
        owner = me = number(at, job)
        inputs = job.scratch + me * job.scratch_bytes
        products = inputs + matrices * job.input_bytes
        while True:
            task, owner = take(at, job, job.tasks, me, owner)
            if task < 0:
                break
            image, block = divmod(task, job.row_blocks)
            first_row = block * job.tile_rows // job.row_blocks
            last_row = (block + 1) * job.tile_rows // job.row_blocks
            source = job.source + image * job.height * job.width * job.channels * 4
            place = inputs
            for row in range(first_row, last_row):
                y = side * row - job.pad_y
                for column in range(job.tile_columns):
                    x = side * column - job.pad_x
                    args = (
                        source, y, x, job.height, job.width, job.channels, job.zeros, place, job.input_bytes
                    )  # fmt: skip
                    if min(x, y) >= 0 and x + side + 2 <= job.width and y + side + 2 <= job.height:
                        spread(side, size, False, args)
                    else:
                        spread(side, size, True, args)
                    place += 4 * job.channels
            tiles = (last_row - first_row) * job.tile_columns
            for n in range(panels):
                for k in range(matrices):
                    weights = job.weights + (matrices * n + k) * job.channels * panel * 4
                    ahead = weights + job.channels * panel * 4
                    for begin in range(0, tiles, count):  # what is beyond the last tile is not read later
                        args = (
                            inputs + k * job.input_bytes + 4 * begin * job.channels, job.channels, weights,
                            products + k * job.product_bytes + 4 * begin * panel, ahead, job.pace,
                        )  # fmt: skip
                        _multiply(panel, count, args)
                        ahead += job.pace * (job.channels // UNROLLED)
                for half in range(0, min(panel, job.filters - n * panel), size):
                    begin = 4 * (n * panel + half)
                    place = products + 4 * half
                    for row in range(first_row, last_row):
                        for column in range(job.tile_columns):
                            to = (image * job.out_height + side * row) * row_bytes
                            to += side * column * pixel + begin
                            args = (
                                place, job.product_bytes, job.bias + begin,
                                min(side, job.out_height - side * row),
                                min(side, job.out_width - side * column), row_bytes, low, high,
                                job.out + to, job.residual + to if job.residual else 0, pixel,
                            )  # fmt: skip
                            gather(side, size, args)
                            place += 4 * panel

    return convolve


@cache
def _code(side: int, size: int, panel: int, count: int) -> Any:
    return callback(_kernel(side, size, panel, count), _JOB)


def can_compute(channels: int, filters: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the kernel can compute a layer without groups."""
    return channels % min(SIZES) == filters % min(SIZES) == 0 and (kernel, stride) == ((3, 3), (1, 1))


class Winograd(Compiled):
    """A dense layer with 3x3 filters and stride 1, packed weights and a compiled kernel. Tiles are of 2 x 2.

    weights: float32 filters x channels x 3 x 3.
    bias: float32 filters, or None for zero.

    Raises ValueError if weights or bias do not fit the geometry, or if it is of another kind.
    """

    side = 2  # rows and columns of a tile
    block = 32 << 10  # of transformed inputs, see `panels.block_bytes`

    def __init__(self, geometry: Geometry, weights: Tensor, bias: Tensor | None) -> None:
        sizes = (geometry.channels, geometry.filters)
        if geometry.groups != 1 or not can_compute(*sizes, geometry.kernel, geometry.stride):
            raise ValueError(
                f"{geometry} is not for Winograd's kernel, which needs 3x3, stride 1, no groups, and "
                f"channels and filters in multiples of {min(SIZES)}"
            )
        super().__init__(geometry, weights, bias)
        filters, channels, matrices = geometry.filters, geometry.channels, (self.side + 2) ** 2
        self._panel = panel = panel_of(filters)
        panels = -(-filters // panel)
        packed = torch.zeros(panels * panel, channels, matrices)
        packed[:filters] = transformed(weights, self.side).flatten(2)
        packed = packed.reshape(panels, panel, channels, matrices)
        self._weights = workspace.packed(packed.permute(0, 3, 2, 1))
        self._zeros = torch.zeros(max(LANES, channels))
        self._rows, self._columns = (-(-size // self.side) for size in geometry.output)
        size = matrices * 4 * channels * self._columns  # of a row of tiles
        blocks = -(-self._rows * size // block_bytes(self.block, self._weights))
        self._block = -(-self._rows // blocks)
        self._count = count = tiled(self._block * self._columns, panel)
        tiles = -(-self._block * self._columns // count) * count
        # a line more, or the matrices would be in the same places of the cache
        self._bytes = (4 * channels * tiles + LINE, 4 * panel * tiles + LINE)
        self.scratch = matrices * sum(self._bytes)
        size = next(size for size in SIZES if channels % size == filters % size == 0)
        self.code = _code(self.side, size, panel, count)

    def _divided(self, batch: int, threads: int) -> tuple[Job, int]:
        geometry = self.geometry
        (height, width), (pad_y, pad_x) = geometry.output, geometry.padding
        threads = threads if batch * height * width * geometry.filters * geometry.taps > SHARED else 1
        blocks = -(-self._rows // self._block)
        if batch % threads:
            blocks = min(self._rows, -(-blocks // threads) * threads)  # so that all get the same
        tiles = -(-(self._rows // blocks) * self._columns // self._count)
        job = Job(
            _JOB, threads, tasks=batch * blocks, row_blocks=blocks,
            tile_rows=self._rows, tile_columns=self._columns,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), zeros=self._zeros.data_ptr(),
            height=geometry.height, width=geometry.width, channels=geometry.channels,
            filters=geometry.filters, out_height=height, out_width=width, pad_y=pad_y, pad_x=pad_x,
            input_bytes=self._bytes[0], product_bytes=self._bytes[1], scratch_bytes=self.scratch,
            pace=pace(self._weights, self._panel, tiles),
        )  # fmt: skip
        return job, threads


class LargeWinograd(Winograd):
    """The same with tiles of 4 x 4: fewer multiplications, and more weights."""

    side, block = 4, 256 << 10
