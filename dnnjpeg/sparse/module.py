"""Convolutions that take the place of nn.Conv2d: the same parameters and state dict, another execution."""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnjpeg.sparse import im2col, mec
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.geometry import Geometry, around, obstacle
from dnnjpeg.sparse.lists import Lists
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.tiling import Tiling, tilings

PARALLEL = 500_000  # multiplications of a call that are worth a second thread
SHAPES = 8  # of inputs for which a layer is kept ready
MIN_ZEROS = 0.2  # share of zeros from which on skipping them pays, for a layer that was not measured
_ONEDNN: Any = torch.backends.mkldnn
TORCH = ("torch", "channels_last", *(["prepacked"] if _ONEDNN.is_available() else []))
LOWERED = ("im2col", "mec")
DENSE = (*TORCH, *LOWERED, "depthwise")
SPARSE = ("cpo", "cps")


class FastConv2d(nn.Conv2d):
    """A convolution for inference, with the batch norm and the ReLU that follow it: what its kinds share.

    Made from a module by `of`. The parameters are that module's own: `state_dict` is unchanged, and new
    weights are noticed.
    """

    geometry: Geometry | None  # all that it computes, other sizes being the module's; None for any
    module: nn.Conv2d | None  # that it was made from
    norm: nn.BatchNorm2d | None  # folded into the weights
    activation: str  # of the output: none, relu or relu6
    channels_last: bool | None  # layout of the output; None for the input's

    @classmethod
    def of(
        cls,
        module: nn.Conv2d,
        *,
        norm: nn.BatchNorm2d | None = None,
        activation: str = "none",
        channels_last: bool | None = None,
        geometry: Geometry | None = None,
    ) -> Self:
        """From a convolution, with its parameters. geometry: what one that is not plain, see
        `geometry.is_plain`, does with inputs of one size.
        """
        made = cls.__new__(cls)
        made.__dict__.update(copy.copy(module.__dict__))
        made._set_up()
        # not submodules: their parameters are in the state dict already, under their own names
        object.__setattr__(made, "norm", norm)
        object.__setattr__(made, "module", module)
        made.activation, made.channels_last, made.geometry = activation, channels_last, geometry
        return made

    def _set_up(self) -> None:
        object.__setattr__(self, "norm", None)
        object.__setattr__(self, "module", None)
        self.activation, self.channels_last, self.geometry = "none", None, None
        self._ready: dict[Any, Any] = {}
        self._state: object = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._set_up()

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weights and bias with the batch norm in them."""
        weight, bias, norm = self.weight.detach(), self.bias, self.norm
        bias = None if bias is None else bias.detach()
        if norm is None:
            return weight, bias
        assert norm.running_mean is not None and norm.running_var is not None
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        scale = (variance + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach()
        shift = ((0 if bias is None else bias.double()) - mean) * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach()
        weight = (weight.double() * scale.reshape(-1, 1, 1, 1)).to(self.weight.dtype)
        return weight, shift.to(self.weight.dtype)

    def _check(self, x: Tensor) -> None:
        """Forget what was made of weights that have changed since. Raises RuntimeError where gradients are
        asked for.
        """
        weight = self.weight
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            raise RuntimeError(
                f"{type(self).__name__} is for inference and has no gradient: call it under "
                "torch.inference_mode() or torch.no_grad(), or use dnnjpeg.sparse.restore_ before training"
            )
        mean = None if self.norm is None else self.norm.running_mean
        state = (_version(weight), weight.data_ptr(), None if mean is None else _version(mean))
        if state != self._state:
            self._ready.clear()
            self._state = state

    def is_for_another(self, shape: tuple[int, ...]) -> bool:
        """Whether inputs of a shape are left to the module that this was made from."""
        geometry = self.geometry
        if geometry is None:
            return False
        return tuple(shape[1:]) != (geometry.channels, geometry.height, geometry.width)

    def _geometry(self, x: Tensor) -> Geometry:
        return Geometry.padded(self, x.shape, around(self)) if self.geometry is None else self.geometry

    def _as_before(self, x: Tensor) -> Tensor:
        """As the module, the batch norm and the ReLU do it."""
        assert self.module is not None
        y: Tensor = self.module.forward(x)
        return self._activated(y if self.norm is None else self.norm(y))

    def _make_room(self) -> None:
        """Each shape has weights of its own."""
        if len(self._ready) >= SHAPES:
            self._ready.clear()

    def _activated(self, y: Tensor) -> Tensor:
        y = _rectified(y, self.activation)
        y.activation = self.activation  # type: ignore[attr-defined]
        return y

    def compute(
        self,
        x: Tensor,
        residual: Tensor | None,
        activation: str,
        reader: "SparseConv2d | None",
        alone: bool,
    ) -> Tensor:
        """What `forward` does and, where a residual is given, the sum with it and the activation of that.

        reader: one that gets lists, if this can make any. alone: nothing else needs the output.
        """
        y = self.forward(x)
        return y if self.activation == activation and residual is None else _finished(y, residual, activation)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without what is made at the first call."""
        return {**self.__dict__, "_ready": {}}


def _rectified(y: Tensor, activation: str) -> Tensor:
    """In place."""
    if activation == "none":
        return y
    return y.relu_() if activation == "relu" else y.clamp_(0, 6)


def _finished(y: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """With what is to be done after the convolution; in place where the shapes are the same."""
    if residual is not None:
        same = y.shape == residual.shape and y.dtype is residual.dtype
        y = y.add_(residual) if same else y + residual
    return _rectified(y, activation)


def _fits(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu" and x.dim() == 4 and x.numel() > 0


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class DenseConv2d(FastConv2d):
    """One of the dense methods, see `DENSE`; the one named torch has channels first."""

    method = TORCH[-1]

    def forward(self, x: Tensor) -> Tensor:
        """float32 N x filters x H x W of float32 N x C x H x W. Raises RuntimeError where gradients are asked
        for.
        """
        self._check(x)
        if self.is_for_another(x.shape):
            return self._as_before(x)
        if self.channels_last and self.method != "torch":
            x = x.contiguous(memory_format=torch.channels_last)
        run = self._ready.get(x.shape)
        if run is None:
            self._make_room()
            run = self._ready[x.shape] = self._prepare(x)
        y: Tensor = run(x)
        if self.channels_last and not y.is_contiguous(memory_format=torch.channels_last):
            y = y.contiguous(memory_format=torch.channels_last)
            y.activation = self.activation  # type: ignore[attr-defined]
        return y

    def _prepare(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        weight, bias = self.folded()
        method = self.method if _fits(x) else "channels_last"
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
                y.activation = self.activation  # type: ignore[attr-defined]
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

        def run(x: Tensor) -> Tensor:
            y = layer(x, torch.get_num_threads())
            y.activation = self.activation  # type: ignore[attr-defined]
            return y

        return run


class SparseConv2d(FastConv2d):
    """A convolution that skips the zeros of its input: nn.Conv2d's arguments, parameters, state dict and
    results.

    For inference, float32, CPU. Groups, dilation and other padding than zeros are left to torch, and so is a
    call whose input has too few zeros. A zero times an infinite or NaN weight is nothing here, where torch
    has NaN; NaN and inf in the input go where they go in torch.

    tiling: how the layer is cut; None for a guess at the first call.
    min_zeros: share of zeros below which torch computes the layer.
    """

    tiling: Tiling | None
    min_zeros: float
    onward: "SparseConv2d | None"  # the only reader of the output, which takes lists

    def _set_up(self) -> None:
        super()._set_up()
        self.tiling, self.min_zeros = None, MIN_ZEROS
        object.__setattr__(self, "onward", None)

    def forward(self, x: Tensor) -> Tensor:
        """float32 N x filters x H x W of float32 N x C x H x W. Raises RuntimeError where gradients are asked
        for.
        """
        onward = self.onward
        return self.compute(x, None, self.activation, onward, onward is not None)

    def compute(
        self,
        x: Tensor,
        residual: Tensor | None,
        activation: str,
        reader: "SparseConv2d | None",
        alone: bool,
    ) -> Tensor:
        """As in `FastConv2d`."""
        self._check(x)
        threads = torch.get_num_threads()
        key = (x.shape, threads)
        layer: RingConvolution | None = self._ready.get(key)
        if layer is None:
            if not _fits(x) or self.is_for_another(x.shape) or (self.geometry is None and obstacle(self)):
                return _finished(self._dense(x), residual, activation)
            self._make_room()
            layer = self._ready[key] = self._prepare(x, threads)
        lists: Lists | None = getattr(x, "lists", None)
        if lists is None or not layer.reads(lists):
            lists = layer.compress(x)
        if lists.zeros < self.min_zeros and x.data_ptr() != _NOTHING.data_ptr():
            return _finished(self._dense_layer()(x), residual, activation)
        shape = (x.shape[0], *layer.output)
        if residual is not None:
            if residual.shape != shape or residual.dtype is not torch.float32:
                return _finished(self.compute(x, None, "none", None, False), residual, activation)
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
        y.activation = activation  # type: ignore[attr-defined]
        return y

    def can_feed(self, reader: "SparseConv2d") -> bool:
        """Whether it can make lists for that one."""
        return bool(self.tiling and reader.tiling and self.tiling.can_feed(reader.tiling))

    def _prepare(self, x: Tensor, threads: int) -> RingConvolution:
        geometry, tiling = self._geometry(x), self.tiling
        if tiling is None:
            zeros = float((x == 0).float().mean())
            tiling = tilings(geometry, True, zeros)[0]
        weight, bias = self.folded()
        if geometry.multiplications * x.shape[0] < PARALLEL:
            threads = 1
        return RingConvolution(
            geometry, weight, bias, tiling, activation=self.activation, threads=threads, batch=x.shape[0]
        )

    def _dense_layer(self) -> DenseConv2d:
        """For input with few zeros."""
        made: DenseConv2d | None = self._ready.get("few")
        if made is None:
            made = self._ready["few"] = DenseConv2d.of(
                self,
                norm=self.norm,
                activation=self.activation,
                channels_last=self.channels_last,
                geometry=self.geometry,
            )
        return made

    def _dense(self, x: Tensor) -> Tensor:
        """What cannot be done here."""
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


class FoldedNorm(nn.BatchNorm2d):
    """A batch norm that the convolution before it has done."""

    def forward(self, x: Tensor) -> Tensor:
        """The input."""
        return x


class KnownReLU(nn.ReLU):
    """A ReLU that is not done again where the convolution before it has done it."""

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape."""
        return x if _is_done(x, "relu") else super().forward(x)


class KnownReLU6(nn.ReLU6):
    """The same for ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        """float of any shape."""
        return x if _is_done(x, "relu6") else super().forward(x)


def _is_done(x: Tensor, activation: str) -> bool:
    """Whether a convolution has just made `x` with that activation; no longer so when asked again, for `x`
    may be changed in place.
    """
    done = getattr(x, "activation", None) == activation
    if done:
        x.activation = None  # type: ignore[attr-defined]
    return done


def twin(kind: type[nn.Module], module: nn.Module) -> nn.Module:
    """A module of another class with the same parameters, buffers and hooks."""
    made = kind.__new__(kind)
    made.__dict__.update(copy.copy(module.__dict__))
    return made
