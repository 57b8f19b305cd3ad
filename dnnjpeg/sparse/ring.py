"""The ring kernel. It stores non-zeros like CPO and CPS, but multiplies in another order.

Sums are in registers, lists are ordered by pixel, and weights are in the order of use.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dnnjpeg.sparse import workspace
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.kernel import ACTIVATIONS, JOB, code
from dnnjpeg.sparse.lists import LANES, Format, Lists, Packer
from dnnjpeg.sparse.threads import CALL, Job, run
from dnnjpeg.sparse.tiling import BLOCKS, Tiling, check_tiling

SCRATCH = 128 << 10  # bytes of sums, so that they stay in the second cache beside weights and lists
SPLIT = 7  # output rows that are worth a thread of their own
COPIED = 1 << 20  # bytes of weights that each thread may read whole, as they stay in its second cache
SHARED = 250_000  # multiplications, those by zero left out, that are worth a second thread


class _Call(NamedTuple):
    """The constants of all calls of a layer with the same arguments."""

    job: Job
    scratch_bytes: int  # of a thread
    out: tuple[tuple[int, ...], tuple[int, ...]]  # shape and strides
    following: Format | None


class Stage(NamedTuple):
    """A compiled job, whose fields begin with `threads.CALL`."""

    code: Any
    job: Job
    threads: int


class Stages(NamedTuple):
    """A layer's two jobs, from a map to lists and from these to a map."""

    packing: Stage
    products: Stage
    format: Format  # of the lists
    scratch: int  # bytes of a thread


class RingConvolution:
    """A layer with packed weights and a compiled kernel.

    weights: float32 filters x channels x Kh x Kw.
    bias: float32 filters, or None for zero.
    activation: activation of the output: "none", "relu" or "relu6".
    threads: the largest number of threads. Small layers use one.

    Raises ValueError if weights, bias or tiling do not fit the geometry.
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
    ) -> None:
        if geometry.groups != 1:
            raise ValueError(f"{geometry} has groups, which the ring kernel cannot compute")
        geometry.check_weights(weights, bias)
        check_tiling(tiling, geometry)
        self.tiling, self.threads, self._given = tiling, threads, geometry
        self.output = (geometry.filters, *geometry.output)
        self._activation = activation
        if tiling.turned:
            geometry, weights = geometry.turned(), weights.mT
        self._geometry = geometry
        self._form = (tiling.block, tiling.patterns, tiling.turned)
        (kernel_rows, width), (stride_y, stride_x) = geometry.kernel, geometry.stride
        blocks, block = tiling.filters, tiling.block
        self._code = code(width, stride_x, tiling.ring_rows, blocks, block if tiling.patterns else 0)
        self._weights = _packed(weights, tiling)
        self._parts = -(-geometry.filters // (LANES * blocks))
        self._bias = torch.zeros(self._parts * LANES * blocks)
        if bias is not None:
            self._bias[: geometry.filters] = bias
        self._multiplications = geometry.filters * kernel_rows * width / (stride_y * stride_x)  # a non-zero
        height, out_width = geometry.output
        # no vector half full, no row that reads padding only
        self._can_be_direct = (
            geometry.filters % (LANES * blocks) == 0
            and geometry.padding[0] < kernel_rows
            and (height - 1) * stride_y - geometry.padding[0] < geometry.height
        )
        pixel = 4 * geometry.filters
        self._job = partial(
            Job,
            JOB,
            weights=self._weights.data_ptr(), bias=self._bias.data_ptr(), height=geometry.height,
            width=geometry.width, block=block, blocks=-(-geometry.channels // block), kernel_rows=kernel_rows,
            stride=stride_y, pad_y=geometry.padding[0], pad_x=geometry.padding[1], out_height=height,
            out_width=out_width, filters=geometry.filters, filter_blocks=self._parts,
            out_row_bytes=pixel if tiling.turned else pixel * out_width,
            out_pixel_bytes=pixel * height if tiling.turned else pixel,
        )  # fmt: skip
        self._packers: dict[int, Packer] = {}
        self._calls: dict[tuple[Any, ...], _Call] = {}

    def compress(self, x: Tensor) -> Lists:
        """Lists of an input, float32 N x C x H x W in any layout. Raises ValueError for other inputs."""
        batch = self._given.check(x)
        return self._packer(batch)(x)

    def _packer(self, batch: int) -> Packer:
        packer = self._packers.get(batch)
        if packer is None:
            geometry = self._geometry
            form = _format(batch, geometry.channels, geometry.height, geometry.width, self.tiling)
            packer = self._packers[batch] = Packer(form, self.threads)
        return packer

    def stages(self, batch: int, activation: str, alone: bool) -> Stages:
        """How the layer runs from a map to a map, both with channels last. alone: without a residual."""
        packer = self._packer(batch)
        form = packer.format
        # as with half of the input zero
        threads = self.threads if form.elements * self._multiplications > 2 * SHARED else 1
        call = self._call(form, threads, True, alone, activation, None, True)
        packing = Stage(packer.code, *packer.of_map())
        return Stages(packing, Stage(self._code, call.job, threads), form, call.scratch_bytes)

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
        """The output, float32 N x filters x rows x columns, and its lists for the next layer.

        residual: tensor added before the activation, channels last, in the output's shape.
        activation: activation in place of the layer's.
        onward: tiling of the next layer, which reads lists (see `Tiling.can_feed`). None: no lists.
        dense: False makes lists only.

        Raises ValueError if lists, residual or tiling do not fit.
        """
        form = lists.format
        if not self.reads(lists):
            raise ValueError(
                f"the lists are {form}, which a layer {self._given} with {self.tiling} does not read"
            )
        if residual is not None:
            _check_residual(residual, (form.batch, *self.output))
        threads = self.threads if lists.nonzeros * self._multiplications > SHARED else 1
        last = channels_last or self.tiling.turned
        key = (form.batch, threads, last, residual is None, activation, onward, dense)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._call(form, *key[1:])
        out = torch.empty_strided(*call.out) if dense else None
        following = None if call.following is None else Lists(call.following)
        job = call.job.copy(
            lists.block.address,
            0 if out is None else out.data_ptr(),
            0 if residual is None else residual.data_ptr(),
            0,
            workspace.scratch(call.scratch_bytes * threads),
            0,
            0 if following is None else following.block.address,
        )
        run(self._code, job, threads)
        if following is not None:
            following.nonzeros = job[len(CALL)]
        if out is not None and last is not channels_last:
            out = out.contiguous()
        return out, following

    def _call(
        self,
        form: Format,
        threads: int,
        channels_last: bool,
        alone: bool,
        activation: str | None,
        onward: Tiling | None,
        dense: bool,
    ) -> _Call:
        """alone: without a residual."""
        rows, row_blocks = self._rows(form.batch, threads)
        scratch_bytes = rows * self._geometry.output[1] * self.tiling.filters * LANES * 4
        images = form.batch * row_blocks
        fields = {
            "tasks": self._parts * images,
            "groups": threads if images % threads == 0 else 1,
            "rows": rows,
            "row_blocks": row_blocks,
            "scratch_bytes": scratch_bytes,
            "relu": ACTIVATIONS[activation or self._activation],
            "direct": self._can_be_direct and dense and channels_last and alone and onward is None,
            "first_layout": not channels_last,
            **form.places(),
        }
        following = None
        if onward is not None:
            if onward.block not in BLOCKS or not self.tiling.can_feed(onward):
                raise ValueError(f"onward is {onward}, which lists of {self.tiling} are not for")
            following = _format(form.batch, self._geometry.filters, *self._geometry.output, onward)
            fields |= {f"to_{name}": value for name, value in following.places().items()}
            fields |= {
                "to_block": onward.block,
                "to_blocks": -(-self._geometry.filters // onward.block),
                "to_patterns": onward.patterns,
            }
        shape = (form.batch, *self.output)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        strides = torch.empty(shape, memory_format=layout).stride()
        return _Call(self._job(threads, **fields), scratch_bytes, (shape, strides), following)

    def _rows(self, batch: int, threads: int) -> tuple[int, int]:
        """Output rows of a task, and the number of such blocks of rows."""
        height, width = self._geometry.output
        rows = max(1, min(height, SCRATCH // (width * self.tiling.filters * LANES * 4)))
        blocks = -(-height // rows)
        # a thread then reads mostly what it has packed itself
        if height >= SPLIT * threads and 4 * self._weights.numel() <= COPIED:
            blocks = -(-blocks // threads) * threads
        blocks = _shares(blocks, height, self._parts * batch, threads)
        rows = -(-height // blocks)
        return rows, -(-height // rows)

    def reads(self, lists: Lists) -> bool:
        """Whether lists have the format of this layer."""
        form, geometry = lists.format, self._geometry
        size = (form.channels, form.height, form.width) == (
            geometry.channels,
            geometry.height,
            geometry.width,
        )
        return size and (form.block, form.patterns, form.turned) == self._form


def _check_residual(residual: Tensor, shape: tuple[int, ...]) -> None:
    fits = residual.shape == shape and residual.dtype is torch.float32 and residual.device.type == "cpu"
    if not fits or not residual.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(
            f"the residual is {residual.dtype} {tuple(residual.shape)}, expected float32 {shape} on the CPU, "
            "channels last"
        )


def _format(batch: int, channels: int, height: int, width: int, tiling: Tiling) -> Format:
    return Format(batch, channels, height, width, tiling.block, tiling.patterns, tiling.turned)


def _shares(row_blocks: int, height: int, each: int, threads: int) -> int:
    """A number of blocks of rows, at least `row_blocks`, that divides evenly among threads, or is large."""
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
    return workspace.packed(full.permute(0, 2, 4, 3, 5, 6, 1))
