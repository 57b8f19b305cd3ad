"""The dense ways to run a convolution: torch's, lowered ones, and kernels of our own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnjpeg.sparse import im2col, mec
from dnnjpeg.sparse.compiled import Compiled
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.direct import Direct
from dnnjpeg.sparse.fast import FastConv2d, finished, fits, marked
from dnnjpeg.sparse.uncompiled import uncompiled
from dnnjpeg.sparse.winograd import LargeWinograd, Winograd, can_compute

if TYPE_CHECKING:
    from dnnjpeg.sparse.module import SparseConv2d

_ONEDNN: Any = torch.backends.mkldnn
TORCH = ("torch", "channels_last", *(["prepacked"] if _ONEDNN.is_available() else []))
LOWERED = ("im2col", "mec")
OURS: dict[str, type[Compiled]] = {
    "direct": Direct, "winograd": Winograd, "winograd4": LargeWinograd, "depthwise": Depthwise,
}  # fmt: skip
DENSE = (*TORCH, *LOWERED, *OURS)


def dense_methods(module: nn.Conv2d) -> tuple[str, ...]:
    """The methods of `DENSE` that can compute a module."""
    if tuple(module.dilation) != (1, 1):
        return TORCH
    if module.groups == 1:
        square = can_compute(module.in_channels, module.out_channels, module.kernel_size, module.stride)
        return (*TORCH, *LOWERED, "direct", *(["winograd", "winograd4"] if square else []))
    return (*TORCH, "depthwise") if module.groups == module.in_channels == module.out_channels else TORCH


class DenseConv2d(FastConv2d):
    """A convolution by one of the methods of `DENSE`. The method "torch" has channels first."""

    method = TORCH[-1]

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of float32 N x C x H x W: float32 N x filters x H x W.

        Raises RuntimeError if gradients are needed.
        """
        return self.compute(x, None, self.activation, None, False)

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
        if self.is_for_another(x.shape):
            return finished(self._as_before(x), residual, activation)
        kernel = self.kernel(x.shape) if fits(x) else None
        if kernel is not None:
            y = self._by_kernel(kernel, x, residual, activation)
        else:
            if self.channels_last and self.method != "torch":
                x = x.contiguous(memory_format=torch.channels_last)
            key = (x.shape, x.dtype, x.device)
            run = self._ready.get(key)
            if run is None:
                self._make_room()
                run = self._ready[key] = self._prepare(x)
            y = run(x)
            if residual is not None or activation != self.activation:
                y = finished(y, residual, activation)
        if self.channels_last and not y.is_contiguous(memory_format=torch.channels_last):
            y = y.contiguous(memory_format=torch.channels_last)
        return marked(y, activation)

    def kernel(self, shape: tuple[int, ...]) -> Compiled | None:
        """The kernel for float32 inputs of this shape on the CPU, or None if the method is none of ours."""
        if self.method not in OURS or self.is_for_another(shape):
            return None
        found: Compiled | None = self._ready.get(shape)
        if found is None:
            self._make_room()
            found = self._ready[shape] = OURS[self.method](self._geometry(shape), *self.folded())
        return found

    def _by_kernel(self, kernel: Compiled, x: Tensor, residual: Tensor | None, activation: str) -> Tensor:
        threads = torch.get_num_threads()
        shape = (x.shape[0], *kernel.output)
        if residual is None or (residual.shape == shape and fits(residual)):
            return kernel(x, threads, residual=residual, activation=activation)
        return finished(kernel(x, threads), residual, activation)

    def _prepare(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        weight, bias = self.folded()
        method = self.method if fits(x) else "channels_last"
        if method in LOWERED:
            return self._lowered(x, weight, bias)
        stride, dilation = list(self.stride), list(self.dilation)
        padding = self.padding
        border: list[int] = []
        if self.geometry is not None:
            padding, (below, right) = self.geometry.padding, self.geometry.ends
            if (below, right) != padding:
                border, padding = [padding[1], right, padding[0], below], (0, 0)
        if method == "prepacked":
            given = F.pad(x, border) if border else x
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                weight.clone(), list(padding), stride, dilation, self.groups, list(given.shape)
            )
            convolution = torch.ops.mkldnn._convolution_pointwise
            activation, limits = ("hardtanh", [0, 6]) if self.activation == "relu6" else (self.activation, [])

            def prepacked(x: Tensor) -> Tensor:
                if border:
                    x = F.pad(x, border)
                y: Tensor = convolution(
                    x, packed, bias, padding, stride, dilation, self.groups, activation, limits, ""
                )
                return y

            return prepacked
        last = method == "channels_last"
        layout = torch.channels_last if last else torch.contiguous_format
        weight = weight.contiguous(memory_format=layout)

        def plain(x: Tensor) -> Tensor:
            if not last:
                x = x.contiguous()
            if border:
                x = F.pad(x, border)
            return self._activated(F.conv2d(x, weight, bias, stride, padding, dilation, self.groups))

        return plain

    def _lowered(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        algorithm: Any = {"im2col": im2col, "mec": mec}[self.method]
        geometry = self._geometry(x.shape)
        shift = None if bias is None else bias.reshape(-1, 1, 1)

        def run(x: Tensor) -> Tensor:
            y = algorithm.convolve(algorithm.compress(x, geometry), weight)
            return self._activated(y if shift is None else y.add_(shift))

        return run
