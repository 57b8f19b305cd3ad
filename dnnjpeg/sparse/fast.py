"""The base class of convolutions for inference that replace nn.Conv2d."""

import copy
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from dnnjpeg.sparse.geometry import Geometry, around, has_parameters
from dnnjpeg.sparse.watch import Place, Watch, tensors_at

if TYPE_CHECKING:
    from dnnjpeg.sparse.module import SparseConv2d

_REQUIRES_GRAD = attrgetter("requires_grad")
SHAPES = 8  # of inputs for which a layer is kept ready


class FastConv2d(nn.Conv2d):
    """A convolution, with the batch norm and the ReLU that follow it. `of` makes it from a module.

    It shares the module's parameters. So `state_dict` is unchanged, and new weights are noticed.
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
        """Make it from a convolution, with its parameters.

        norm: batch norm after the convolution, which is folded in.
        activation: "none", "relu" or "relu6".
        channels_last: layout of the output. None: the layout of the input.
        geometry: for a convolution that is not plain (see `geometry.is_plain`): what it does with inputs of
            one size.

        Raises ValueError if weight or bias is not a parameter of the module.
        """
        if not has_parameters(module):
            raise ValueError(
                "weight or bias of the convolution is no parameter, but computed at each call, as in "
                "pruning: make it permanent, for example with torch.nn.utils.prune.remove"
            )
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
        self._watch = Watch()

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

    def check(self, x: Tensor) -> None:
        """Drop prepared weights if parameters have changed. Raises RuntimeError if gradients are needed."""
        tensors = tensors_at(self.places())
        if torch.is_grad_enabled() and (x.requires_grad or any(map(_REQUIRES_GRAD, tensors))):
            raise RuntimeError(
                f"{type(self).__name__} is for inference and has no gradient: call it under "
                "torch.inference_mode() or torch.no_grad(), or use dnnjpeg.sparse.restore_ before training"
            )
        self._watch.clear_if_changed(tensors, self._ready)

    def places(self) -> list[Place]:
        """Where the tensors are that go into the prepared weights."""
        own, norm = self._parameters, self.norm  # nn.Module's way to them is slow
        places: list[Place] = [(own, "weight"), (own, "bias")]
        if norm is None:
            return places
        affine, running = norm._parameters, norm._buffers
        means: list[Place] = [(running, "running_mean"), (running, "running_var")]
        return [*places, (affine, "weight"), (affine, "bias"), *means]

    def is_for_another(self, shape: tuple[int, ...]) -> bool:
        """Whether inputs of this shape are computed by the original module."""
        geometry = self.geometry
        if geometry is None:
            return False
        return tuple(shape[1:]) != (geometry.channels, geometry.height, geometry.width)

    def _geometry(self, shape: tuple[int, ...]) -> Geometry:
        return Geometry.padded(self, shape, around(self)) if self.geometry is None else self.geometry

    def _as_before(self, x: Tensor) -> Tensor:
        """Compute with the original module, the batch norm and the ReLU."""
        assert self.module is not None
        y: Tensor = self.module.forward(x)
        return self._activated(y if self.norm is None else self.norm(y))

    def _make_room(self) -> None:
        """Drop prepared weights if there are too many shapes, as each shape has its own."""
        if len(self._ready) >= SHAPES:
            self._ready.clear()

    def _activated(self, y: Tensor) -> Tensor:
        return marked(_rectified(y, self.activation), self.activation)

    def compute(
        self,
        x: Tensor,
        residual: Tensor | None,
        activation: str,
        reader: "SparseConv2d | None",
        alone: bool,
    ) -> Tensor:
        """Do what `forward` does, then add the residual, if there is one, and apply the activation.

        reader: the convolution that gets lists, if this one can make them.
        alone: nothing but the reader needs the output.
        """
        y = self.forward(x)
        return y if self.activation == activation and residual is None else finished(y, residual, activation)

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, without what the first call prepares."""
        return {**self.__dict__, "_ready": {}, "_watch": Watch()}


def _rectified(y: Tensor, activation: str) -> Tensor:
    """Apply an activation, in place."""
    if activation == "none":
        return y
    return y.relu_() if activation == "relu" else y.clamp_(0, 6)


def marked(y: Tensor, activation: str) -> Tensor:
    """The tensor, with a note of the activation that made it, for the layer that reads it."""
    y.activation = activation  # type: ignore[attr-defined]  # torch's tensors take any attribute
    return y


def finished(y: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """Add the residual and apply the activation, in place if the shapes are equal."""
    if residual is not None:
        same = y.shape == residual.shape and y.dtype is residual.dtype
        y = y.add_(residual) if same else y + residual
    return _rectified(y, activation)


def fits(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu" and x.dim() == 4 and x.numel() > 0
