"""The shape of a convolution, and the memory of a representation of its input."""

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Padding = tuple[int, int, int, int]  # zeros above, at the left, below, at the right


@dataclass(frozen=True)
class Geometry:
    """The shape of a convolution without dilation, for one picture. Raises ValueError if it has no output."""

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
        """Make it from a module and the shape of its input, N x C x H x W.

        Raises ValueError for other kinds of convolution, see `obstacle`.
        """
        reason = obstacle(module)
        if reason:
            raise ValueError(f"{module} is not for sparse convolution: {reason}")
        if len(shape) != 4 or shape[1] != module.in_channels:
            raise ValueError(f"the input is {tuple(shape)}, expected N x {module.in_channels} x H x W")
        return cls.padded(module, shape, around(module))

    @classmethod
    def padded(cls, module: nn.Conv2d, shape: tuple[int, ...], padding: Padding) -> Self:
        """Make it from a module without dilation that pads its input by `padding`."""
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
        """Padding below and at the right."""
        return self.padding if self.end_padding is None else self.end_padding

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        rows, columns = (
            (size + before + after - kernel) // stride + 1
            for size, before, after, kernel, stride in zip(
                (self.height, self.width), self.padding, self.ends, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def inside(self) -> tuple[int, int]:
        """Outputs of a row from the first number on, and before the second, read no input outside the map."""
        before, stride = self.padding[1], self.stride[1]
        last = (self.width - self.kernel[1] + before) // stride + 1
        return -(-before // stride), min(self.output[1], last)

    @property
    def taps(self) -> int:
        """Number of weights of a filter."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def im2col_elements(self) -> int:
        """Elements of the im2col matrix of one picture."""
        rows, columns = self.output
        return rows * columns * self.taps

    def turned(self) -> Self:
        """The geometry with rows and columns exchanged."""
        swapped = {name: getattr(self, name)[::-1] for name in ("kernel", "stride", "padding")}
        return replace(self, height=self.width, width=self.height, end_padding=self.ends[::-1], **swapped)

    def check(self, x: Tensor) -> int:
        """Check an input, and return its batch size. Raises ValueError if it does not fit this geometry."""
        expected = (self.channels, self.height, self.width)
        if x.dtype is not torch.float32 or x.dim() != 4 or tuple(x.shape[1:]) != expected:
            size = " x ".join(map(str, expected))
            raise ValueError(f"the input is {x.dtype} {tuple(x.shape)}, expected float32 N x {size}")
        if x.device.type != "cpu":
            raise ValueError(f"the input is on {x.device}, expected the CPU")
        return x.shape[0]

    def check_weights(self, weights: Tensor, bias: Tensor | None = None) -> None:
        """Raise ValueError if weights or bias do not fit this geometry."""
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
    """Memory of a representation."""

    elements: int  # numbers of any type, as the papers count
    bytes: int


def obstacle(module: nn.Conv2d) -> str:
    """The reason why torch must compute a convolution, or an empty text."""
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
    """Whether the module is nn.Conv2d itself, with zero padding that does not depend on the input."""
    return (
        type(module) is nn.Conv2d and not isinstance(module.padding, str) and module.padding_mode == "zeros"
    )


def has_parameters(module: nn.Module) -> bool:
    """Whether weight and bias are parameters, or None. Pruning, for example, computes them at each call."""
    return {"weight", "bias"} <= module._parameters.keys()


def pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    """A pair of a module's numbers, whose type in torch is a tuple of any length."""
    rows, columns = numbers
    return rows, columns


def around(module: nn.Conv2d) -> Padding:
    """The padding of a plain module."""
    assert not isinstance(module.padding, str)
    return pair(module.padding) + pair(module.padding)


def padding_of(module: nn.Conv2d, shape: tuple[int, ...]) -> Padding | None:
    """The zero padding with which a module is equal to a plain convolution, for inputs of this shape.

    A subclass of nn.Conv2d may do anything. So it is tried on random numbers, and compared with a plain
    convolution for every padding that gives the same output size. Returns None if there is no such padding,
    or if the module has other parameters than weight and bias.
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
    """The rows and columns that the kernel spans, and the strides."""
    extents = [step * (size - 1) + 1 for size, step in zip(module.kernel_size, module.dilation, strict=True)]
    return extents, list(module.stride)


def _paddings(size: int, output: int, extent: int, stride: int) -> list[tuple[int, int]]:
    """Paddings before and after that give an output of this size, the most symmetric first."""
    total = (output - 1) * stride + extent - size
    return sorted(
        ((before, max(0, total - before)) for before in range(extent)), key=lambda p: abs(p[1] - p[0])
    )
