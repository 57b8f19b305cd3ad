"""The dense ways to run a convolution: torch's, lowered ones, and our own for depthwise layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnjpeg.sparse import im2col, mec
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.fast import FastConv2d, fits

_ONEDNN: Any = torch.backends.mkldnn
TORCH = ("torch", "channels_last", *(["prepacked"] if _ONEDNN.is_available() else []))
LOWERED = ("im2col", "mec")
DENSE = (*TORCH, *LOWERED, "depthwise")


def dense_methods(module: nn.Conv2d) -> tuple[str, ...]:
    """The methods of `DENSE` that can compute a module."""
    if tuple(module.dilation) != (1, 1):
        return TORCH
    if module.groups == 1:
        return (*TORCH, *LOWERED)
    return (*TORCH, "depthwise") if module.groups == module.in_channels == module.out_channels else TORCH


class DenseConv2d(FastConv2d):
    """A convolution by one of the methods of `DENSE`. The method "torch" has channels first."""

    method = TORCH[-1]

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of float32 N x C x H x W: float32 N x filters x H x W.

        Raises RuntimeError if gradients are needed.
        """
        self._check(x)
        if self.is_for_another(x.shape):
            return self._as_before(x)
        if self.channels_last and self.method != "torch":
            x = x.contiguous(memory_format=torch.channels_last)
        key = (x.shape, x.dtype, x.device)
        run = self._ready.get(key)
        if run is None:
            self._make_room()
            run = self._ready[key] = self._prepare(x)
        y: Tensor = run(x)
        if self.channels_last and not y.is_contiguous(memory_format=torch.channels_last):
            y = y.contiguous(memory_format=torch.channels_last)
        y.activation = self.activation  # type: ignore[attr-defined]
        return y

    def _prepare(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        weight, bias = self.folded()
        method = self.method if fits(x) else "channels_last"
        if method == "depthwise":
            return self._depthwise(x, weight, bias)
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
        geometry = self._geometry(x)
        shift = None if bias is None else bias.reshape(-1, 1, 1)

        def run(x: Tensor) -> Tensor:
            y = algorithm.convolve(algorithm.compress(x, geometry), weight)
            return self._activated(y if shift is None else y.add_(shift))

        return run

    def _depthwise(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        geometry = self._geometry(x)
        layer = Depthwise(geometry, weight, bias, activation=self.activation)

        return lambda x: layer(x, torch.get_num_threads())
