"""A convolution that skips the zeros of its input. It replaces nn.Conv2d, with the same parameters."""

import torch
from torch import Tensor

from dnnjpeg.sparse.compiled import Compiled
from dnnjpeg.sparse.dense import TORCH, DenseConv2d
from dnnjpeg.sparse.direct import Direct
from dnnjpeg.sparse.fast import FastConv2d, finished, fits, marked
from dnnjpeg.sparse.geometry import obstacle
from dnnjpeg.sparse.lists import Lists
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.tiling import Tiling, tilings
from dnnjpeg.sparse.uncompiled import uncompiled

MIN_ZEROS = 0.2  # share of zeros from which skipping is faster, for a layer that was not measured


class SparseConv2d(FastConv2d):
    """A convolution that skips the zeros of its input.

    Arguments, parameters, state dict and results are those of nn.Conv2d. It is for inference, in float32, on
    the CPU. torch computes layers with groups, dilation or another padding than zeros, and calls with too few
    zeros. A zero times an infinite or NaN weight is 0 here, and NaN in torch. NaN and infinity in the input
    act as in torch.

    tiling: how the layer is divided. None: a guess at the first call.
    min_zeros: share of zeros, 0..1, below which a dense method computes the layer.
    dense: that method, of `dense.DENSE`.
    """

    tiling: Tiling | None
    min_zeros: float
    dense: str
    onward: "SparseConv2d | None"  # the only reader of the output, which takes lists

    def _set_up(self) -> None:
        super()._set_up()
        self.tiling, self.min_zeros, self.dense = None, MIN_ZEROS, TORCH[-1]
        object.__setattr__(self, "onward", None)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of float32 N x C x H x W: float32 N x filters x H x W.

        Raises RuntimeError if gradients are needed.
        """
        onward = self.onward
        return self.compute(x, None, self.activation, onward, onward is not None)

    @uncompiled
    def compute(
        self,
        x: Tensor,
        residual: Tensor | None,
        activation: str,
        reader: "SparseConv2d | None",
        alone: bool,
    ) -> Tensor:
        """See `FastConv2d.compute`."""
        self.check(x)
        layer = self.kernel(x.shape, x) if fits(x) else None
        if layer is None:
            return finished(self._dense(x), residual, activation)
        lists: Lists | None = getattr(x, "lists", None)
        if lists is None or not layer.reads(lists):
            lists = layer.compress(x)
        if lists.zeros < self.min_zeros and x.data_ptr() != _NOTHING.data_ptr():
            return self._dense_layer().compute(x, residual, activation, None, False)
        shape = (x.shape[0], *layer.output)
        if residual is not None:
            if residual.shape != shape or residual.dtype is not torch.float32:
                return finished(self.compute(x, None, "none", None, False), residual, activation)
            residual = residual.contiguous(memory_format=torch.channels_last)
        last = self.channels_last
        if last is None:
            last = x.is_contiguous(memory_format=torch.channels_last)
        onward = None if reader is None or reader.is_for_another(shape) else reader.tiling
        y, handed = layer.convolve(
            lists,
            channels_last=last,
            residual=residual,
            activation=activation,
            onward=onward,
            dense=onward is None or not alone,
        )
        if y is None:  # whatever else reads it has NaN
            y = _NOTHING.expand(shape)
        if handed is not None:
            y.lists = handed  # type: ignore[attr-defined]
        return marked(y, activation)

    def can_feed(self, reader: "SparseConv2d") -> bool:
        """Whether this layer can make lists for the other one."""
        return bool(self.tiling and reader.tiling and self.tiling.can_feed(reader.tiling))

    def kernel(self, shape: tuple[int, ...], x: Tensor | None = None) -> RingConvolution | None:
        """The kernel for float32 inputs of this shape on the CPU, or None if torch must compute them.

        x: an input, by which a tiling is guessed if there is none.
        """
        key = (shape, torch.get_num_threads())
        layer: RingConvolution | None = self._ready.get(key)
        if layer is None:
            if self.is_for_another(shape) or (self.geometry is None and obstacle(self)):
                return None
            self._make_room()
            layer = self._ready[key] = self._prepare(shape, x)
        return layer

    def _prepare(self, shape: tuple[int, ...], x: Tensor | None) -> RingConvolution:
        geometry, tiling, threads = self._geometry(shape), self.tiling, torch.get_num_threads()
        if tiling is None:
            zeros = MIN_ZEROS if x is None else float((x == 0).float().mean())
            tiling = tilings(geometry, True, zeros)[0]
        weight, bias = self.folded()
        return RingConvolution(geometry, weight, bias, tiling, activation=self.activation, threads=threads)

    def dense_kernel(self, shape: tuple[int, ...]) -> Compiled:
        """A dense kernel of ours for inputs of this shape, which `kernel` can compute."""
        return self._dense_layer().kernel(shape) or Direct(self._geometry(shape), *self.folded())

    def _dense_layer(self) -> DenseConv2d:
        """The layer for inputs with few zeros."""
        made: DenseConv2d | None = self._ready.get("few")
        if made is None:
            made = self._ready["few"] = DenseConv2d.of(
                self,
                norm=self.norm,
                activation=self.activation,
                channels_last=self.channels_last,
                geometry=self.geometry,
            )
            made.method = self.dense
        return made

    def _dense(self, x: Tensor) -> Tensor:
        """Compute densely what the sparse kernel cannot do."""
        if self.geometry is not None:
            return self._as_before(x)
        run = self._ready.get("dense")
        if run is None:
            weight, bias = self.folded()

            def run(x: Tensor) -> Tensor:
                return self._activated(self._conv_forward(x, weight, bias))

            self._ready["dense"] = run
        y: Tensor = run(x)
        return y


_NOTHING = torch.full((1, 1, 1, 1), torch.nan)
