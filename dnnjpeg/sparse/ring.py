"""The fast execution of CPO and CPS: sums in registers, lists of non-zeros, weights in the order of use."""

import torch
from torch import Tensor

from dnnjpeg.sparse import memory
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.kernel import ACTIVATIONS, JOB, code
from dnnjpeg.sparse.lists import LANES, Format, Lists, Packer
from dnnjpeg.sparse.threads import Job, run
from dnnjpeg.sparse.tiling import Tiling

SCRATCH = 128 << 10  # bytes of sums, so that they stay in the second cache beside weights and lists
SPLIT = 7  # output rows that are worth a thread, as each reads all weights


class RingConvolution:
    """A layer made ready: weights packed for a tiling, kernel compiled.

    weights: float32 filters x channels x Kh x Kw. bias: float32 filters, or None for zero.
    activation: of the output: none, relu or relu6.
    """

    def __init__(
        self,
        geometry: Geometry,
        weights: Tensor,
        bias: Tensor | None,
        tiling: Tiling,
        *,
        activation: str = "none",
        threads: int = 1,
        batch: int = 1,
    ) -> None:
        self.geometry, self.tiling, self.threads = geometry, tiling, threads
        self._activation = activation
        (kernel_rows, width), (stride_y, stride_x) = geometry.kernel, geometry.stride
        blocks, ring_rows, block = tiling.filters, tiling.ring_rows, tiling.block
        height, out_width = geometry.output
        self._code = code(width, stride_x, ring_rows, blocks, block if tiling.patterns else 0)
        self._weights = _packed(weights, tiling)
        parts = -(-geometry.filters // (LANES * blocks))
        self._bias = torch.zeros(parts * LANES * blocks)
        if bias is not None:
            self._bias[: geometry.filters] = bias
        rows = max(1, min(height, SCRATCH // (out_width * blocks * LANES * 4)))
        row_blocks = -(-height // rows)
        if height >= SPLIT * threads:  # a thread reads mostly what it has packed itself
            row_blocks = max(row_blocks, threads)
        row_blocks = _shares(row_blocks, height, parts * batch, threads)
        rows = -(-height // row_blocks)
        row_blocks = -(-height // rows)
        self._scratch_bytes = rows * out_width * blocks * LANES * 4
        self._row_blocks, self._parts = row_blocks, parts
        self.output = (geometry.filters, height, out_width)
        # no vector half full, no row that reads padding only
        self._can_be_direct = (
            geometry.filters % (LANES * blocks) == 0
            and geometry.padding[0] < kernel_rows
            and (height - 1) * stride_y - geometry.padding[0] < geometry.height
        )
        self._job = Job(
            JOB,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), height=geometry.height,
            width=geometry.width, block=block, blocks=-(-geometry.channels // block), kernel_rows=kernel_rows,
            stride=stride_y, pad_y=geometry.padding[0], pad_x=geometry.padding[1], out_height=height,
            out_width=out_width, filters=geometry.filters, rows=rows, row_blocks=row_blocks,
            scratch_bytes=self._scratch_bytes,
        )  # fmt: skip
        self._packers: dict[int, Packer] = {}
        self._formats: dict[tuple[int, Tiling], Format] = {}

    def compress(self, x: Tensor) -> Lists:
        """Lists of an input, float32 N x C x H x W, channels last or not."""
        batch = x.shape[0]
        packer = self._packers.get(batch)
        if packer is None:
            geometry, tiling = self.geometry, self.tiling
            form = Format(
                batch, geometry.channels, geometry.height, geometry.width, tiling.block, tiling.patterns
            )
            packer = self._packers[batch] = Packer(form, self.threads)
        return packer(x)

    def convolve(
        self,
        lists: Lists,
        *,
        channels_last: bool = True,
        residual: Tensor | None = None,
        activation: str | None = None,
        onward: Tiling | None = None,
        dense: bool = True,
    ) -> tuple[Tensor | None, Lists | None]:
        """The output, float32 N x filters x rows x columns, and its lists for a layer with the tiling
        `onward`.

        residual: added before the ReLU; channels last, of the output's shape.
        activation: in place of the layer's.
        onward: its block must divide the filters in registers, see `Tiling.can_feed`.
        dense: without it the output is only made as lists.
        """
        form, block = lists.format, lists.block
        batch = form.batch
        out = following = None
        if dense:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            out = torch.empty((batch, *self.output), memory_format=layout)
        onto = (0,) * 3
        steps = (0,) * 5
        if onward is not None:
            following = Lists(self._format(batch, onward))
            to, start = following.format, following.block.address
            onto = (start, start + to.indices, start + to.cells)
            blocks = -(-self.geometry.filters // to.block)
            steps = (to.block, blocks, int(to.patterns), to.value_bytes, to.cell_bytes)
        job = self._job.copy(
            0, 0, 0, self._parts * batch * self._row_blocks, batch,
            ACTIVATIONS[activation or self._activation],
            self._can_be_direct and dense and channels_last and residual is None and onward is None,
            block.address, block.address + form.indices, block.address + form.cells,
            0 if out is None else out.data_ptr(), 0 if residual is None else residual.data_ptr(),
            memory.scratch(self._scratch_bytes * self.threads),
            *onto, form.value_bytes, form.cell_bytes, not channels_last, *steps,
        )  # fmt: skip
        run(self._code, job, self.threads)
        if following is not None:
            following.nonzeros = job[2]
        return out, following

    def _format(self, batch: int, onward: Tiling) -> Format:
        form = self._formats.get((batch, onward))
        if form is None:
            form = Format(batch, *self.output, onward.block, onward.patterns)
            self._formats[batch, onward] = form
        return form

    def reads(self, lists: Lists) -> bool:
        """Whether lists are of this layer's form."""
        form, tiling = lists.format, self.tiling
        return form.block == tiling.block and form.patterns == tiling.patterns


def _shares(row_blocks: int, height: int, each: int, threads: int) -> int:
    """At least so many blocks of rows, of which each thread has as many, or many."""
    possible = range(row_blocks, height + 1)
    return next((n for n in possible if n * each % threads == 0 or n * each >= 8 * threads), row_blocks)


def _packed(weights: Tensor, tiling: Tiling) -> Tensor:
    """[filter block][channel block][kernel row group][channel][kernel row in the ring][Kw][filter]."""
    filters, channels, rows, width = weights.shape
    many, block, ring_rows = LANES * tiling.filters, tiling.block, tiling.ring_rows
    parts, blocks = -(-filters // many), -(-channels // block)
    full = torch.zeros(parts * many, blocks * block, rows, width)
    full[:filters, :channels] = weights.detach()
    full = full.reshape(parts, many, blocks, block, rows // ring_rows, ring_rows, width)
    return full.permute(0, 2, 4, 3, 5, 6, 1).contiguous()
