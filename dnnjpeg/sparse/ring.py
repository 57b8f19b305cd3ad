"""The fast execution of CPO and CPS: sums in registers, lists of non-zeros, weights in the order of use."""

from functools import partial
from typing import Any, NamedTuple

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


class _Call(NamedTuple):
    """What is the same each time that a layer is called in the same way."""

    job: Job
    out: tuple[tuple[int, ...], tuple[int, ...]]  # shape and strides
    following: Format | None


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
            row_blocks = -(-row_blocks // threads) * threads
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
        self._job = partial(
            Job,
            JOB,
            threads,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), height=geometry.height,
            width=geometry.width, block=block, blocks=-(-geometry.channels // block), kernel_rows=kernel_rows,
            stride=stride_y, pad_y=geometry.padding[0], pad_x=geometry.padding[1], out_height=height,
            out_width=out_width, filters=geometry.filters, filter_blocks=parts, rows=rows,
            row_blocks=row_blocks, scratch_bytes=self._scratch_bytes,
        )  # fmt: skip
        self._packers: dict[int, Packer] = {}
        self._calls: dict[tuple[Any, ...], _Call] = {}

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
        form = lists.format
        key = (form.batch, channels_last, residual is None, activation, onward, dense)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._call(form, *key[1:])
        out = torch.empty_strided(*call.out) if dense else None
        following = None if call.following is None else Lists(call.following)
        job = call.job.copy(
            0,
            lists.block.address,
            0 if out is None else out.data_ptr(),
            0 if residual is None else residual.data_ptr(),
            memory.scratch(self._scratch_bytes * self.threads),
            0 if following is None else following.block.address,
        )
        run(self._code, job, self.threads)
        if following is not None:
            following.nonzeros = job[0]
        return out, following

    def _call(
        self,
        form: Format,
        channels_last: bool,
        alone: bool,
        activation: str | None,
        onward: Tiling | None,
        dense: bool,
    ) -> _Call:
        """alone: without a residual."""
        shape = (form.batch, *self.output)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        images = form.batch * self._row_blocks
        fields = {
            "tasks": self._parts * images,
            "groups": self.threads if images % self.threads == 0 else 1,
            "relu": ACTIVATIONS[activation or self._activation],
            "direct": self._can_be_direct and dense and channels_last and alone and onward is None,
            "first_layout": not channels_last,
            **form.places(),
        }
        following = None
        if onward is not None:
            following = Format(*shape, onward.block, onward.patterns)
            fields |= {f"to_{name}": value for name, value in following.places().items()}
            fields |= {
                "to_block": onward.block,
                "to_blocks": -(-self.geometry.filters // onward.block),
                "to_patterns": onward.patterns,
            }
        job = self._job(**fields)
        return _Call(job, (shape, torch.empty(shape, memory_format=layout).stride()), following)

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
