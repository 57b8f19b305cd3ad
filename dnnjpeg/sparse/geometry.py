"""The shape of a convolution, and what every representation of its input can say of itself."""

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Padding = tuple[int, int, int, int]  # zeros above, at the left, below, at the right


@dataclass(frozen=True)
class Geometry:
    """A convolution without dilation, by picture. Raises ValueError for what has no output."""

    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]  # Kh, Kw
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)  # above, and at the left
    end_padding: tuple[int, int] | None = None  # below, and at the right; None for the same
    groups: int = 1

    def __post_init__(self) -> None:
        sizes = (self.channels, self.height, self.width, self.filters, *self.kernel, *self.stride)
        if self.end_padding == self.padding:
            object.__setattr__(self, "end_padding", None)
        if min(*sizes, self.groups) < 1 or min(*self.padding, *self.ends) < 0:
            raise ValueError(f"{self} has a size below 1 or a padding below 0")
        if min(self.output) < 1:
            raise ValueError(f"{self} has no output: the kernel is larger than the padded input")

    @classmethod
    def of(cls, module: nn.Conv2d, shape: tuple[int, ...]) -> Self:
        """Of a module and the shape of its input, N x C x H x W. Raises ValueError where it is another kind
        of convolution, see `obstacle`.
        """
        reason = obstacle(module)
        if reason:
            raise ValueError(f"{module} is not for sparse convolution: {reason}")
        if len(shape) != 4 or shape[1] != module.in_channels:
            raise ValueError(f"the input is {tuple(shape)}, expected N x {module.in_channels} x H x W")
        return cls.padded(module, shape, around(module))

    @classmethod
    def padded(cls, module: nn.Conv2d, shape: tuple[int, ...], padding: Padding) -> Self:
        """Of a module without dilation that pads its input so."""
        return cls(
            module.in_channels,
            shape[2],
            shape[3],
            module.out_channels,
            pair(module.kernel_size),
            pair(module.stride),
            padding[:2],
            padding[2:],
            module.groups,
        )

    @property
    def ends(self) -> tuple[int, int]:
        """Padding below, and at the right."""
        return self.padding if self.end_padding is None else self.end_padding

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (
            (size + before + after - kernel) // stride + 1
            for size, before, after, kernel, stride in zip(
                (self.height, self.width), self.padding, self.ends, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def taps(self) -> int:
        """Weights a filter has."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def multiplications(self) -> int:
        """Of the dense convolution of one picture."""
        rows, columns = self.output
        return rows * columns * self.taps * self.filters

    @property
    def im2col_elements(self) -> int:
        """Elements of the im2col matrix of one picture."""
        rows, columns = self.output
        return rows * columns * self.taps

    def turned(self) -> Self:
        """With rows for columns and columns for rows."""
        swapped = {name: getattr(self, name)[::-1] for name in ("kernel", "stride", "padding")}
        return replace(self, height=self.width, width=self.height, end_padding=self.ends[::-1], **swapped)

    def check(self, x: Tensor) -> int:
        """The batch size of an input of this geometry. Raises ValueError for another."""
        expected = (self.channels, self.height, self.width)
        if x.dtype is not torch.float32 or x.dim() != 4 or tuple(x.shape[1:]) != expected:
            size = " x ".join(map(str, expected))
            raise ValueError(f"the input is {x.dtype} {tuple(x.shape)}, expected float32 N x {size}")
        if x.device.type != "cpu":
            raise ValueError(f"the input is on {x.device}, expected the CPU")
        return x.shape[0]

    def check_weights(self, weights: Tensor, bias: Tensor | None = None) -> None:
        """Raises ValueError for weights and a bias of another geometry."""
        shape = (self.filters, self.channels // self.groups, *self.kernel)
        named = [("weights are", weights, shape), ("bias is", bias, (self.filters,))]
        for name, tensor, expected in named:
            if tensor is None:
                continue
            if tensor.dtype is not torch.float32 or tuple(tensor.shape) != expected:
                raise ValueError(f"{name} {tensor.dtype} {tuple(tensor.shape)}, expected float32 {expected}")
            if tensor.device.type != "cpu":
                raise ValueError(f"{name} on {tensor.device}, expected the CPU")

    def __str__(self) -> str:
        kernel, stride, padding, ends = (
            "x".join(map(str, pair)) for pair in (self.kernel, self.stride, self.padding, self.ends)
        )
        text = f"{self.channels}x{self.height}x{self.width}->{self.filters} {kernel}"
        text += f" stride {stride}" if self.stride != (1, 1) else ""
        if any(self.padding + self.ends):
            text += f" pad {padding}" + (f"+{ends}" if ends != padding else "")
        return text + (f" groups {self.groups}" if self.groups > 1 else "")


class Memory(NamedTuple):
    """What a representation takes."""

    elements: int  # numbers of any type, as the papers count
    bytes: int


def obstacle(module: nn.Conv2d) -> str:
    """Why a convolution is left to torch; empty where it need not be."""
    if tuple(module.dilation) != (1, 1):
        return "it is dilated"
    if module.groups != 1:
        return "it has groups"
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return "its padding is not a number of zeros"
    if module.weight.dtype is not torch.float32 or module.weight.device.type != "cpu":
        return "its weights are not float32 on the CPU"
    return ""


def is_plain(module: nn.Conv2d) -> bool:
    """Whether the module is nn.Conv2d itself and pads by a number of zeros, whatever the input's size."""
    return (
        type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    )


def pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    """Of a module's two numbers, which torch has as a tuple of any length."""
    rows, columns = numbers
    return rows, columns


def around(module: nn.Conv2d) -> Padding:
    """What a plain module pads."""
    assert not isinstance(module.padding, str)
    return pair(module.padding) + pair(module.padding)


def padding_of(module: nn.Conv2d, shape: tuple[int, ...]) -> Padding | None:
    """The zeros around inputs of a shape that make a module a plain convolution; None where there are none.

    Of what is not plain nothing is known, neither what a subclass does nor where: the module is tried on
    random numbers, and every padding with an output of that size is compared. One with more parameters than
    weight and bias is not looked at, as these may change what it does.
    """
    if is_plain(module):
        return around(module)
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if weight is None or set(module.state_dict()) - {"weight", "bias"}:
        return None
    x = torch.randn(1, *shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = module.forward(x)
        if not isinstance(y, Tensor) or y.dim() != 4:
            return None
        for (above, below), (left, right) in product(
            *map(_paddings, shape[2:], y.shape[2:], *_sizes(module))
        ):
            padded = F.pad(x, (left, right, above, below))
            plain = F.conv2d(padded, weight, bias, module.stride, 0, module.dilation, module.groups)
            if plain.shape == y.shape and bool(((plain - y).abs() <= 1e-5 * y.abs().max()).all()):
                return above, left, below, right
    return None


def _sizes(module: nn.Conv2d) -> tuple[list[int], list[int]]:
    """Rows and columns that an output reads from first to last, and the strides."""
    extents = [step * (size - 1) + 1 for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    return extents, list(module.stride)


def _paddings(size: int, output: int, extent: int, stride: int) -> list[tuple[int, int]]:
    """Those, before and after, for an output of that size; the evenest first."""
    total = (output - 1) * stride + extent - size
    return sorted(
        ((before, max(0, total - before)) for before in range(extent)), key=lambda p: abs(p[1] - p[0])
    )
