"""The shape of a convolution, and what every representation of its input can say of itself."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """A convolution without dilation and groups, by picture. Raises ValueError for what has no output."""

    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]  # Kh, Kw
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        sizes = (self.channels, self.height, self.width, self.filters, *self.kernel, *self.stride)
        if min(sizes) < 1 or min(self.padding) < 0:
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
        kernel, stride = (tuple(value) for value in (module.kernel_size, module.stride))
        assert not isinstance(module.padding, str)
        padding = tuple(module.padding)
        return cls(module.in_channels, shape[2], shape[3], module.out_channels, kernel, stride, padding)  # type: ignore[arg-type]

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (
            (size + 2 * pad - kernel) // stride + 1
            for size, pad, kernel, stride in zip(
                (self.height, self.width), self.padding, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def taps(self) -> int:
        """Weights a filter has."""
        return self.channels * self.kernel[0] * self.kernel[1]

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

    def check(self, x: Tensor) -> int:
        """The batch size of an input of this geometry. Raises ValueError for another."""
        expected = (self.channels, self.height, self.width)
        if x.dtype is not torch.float32 or x.dim() != 4 or tuple(x.shape[1:]) != expected:
            size = " x ".join(map(str, expected))
            raise ValueError(f"the input is {x.dtype} {tuple(x.shape)}, expected float32 N x {size}")
        if x.device.type != "cpu":
            raise ValueError(f"the input is on {x.device}, expected the CPU")
        return x.shape[0]

    def __str__(self) -> str:
        kernel, stride, padding = (
            "x".join(map(str, pair)) for pair in (self.kernel, self.stride, self.padding)
        )
        text = f"{self.channels}x{self.height}x{self.width}->{self.filters} {kernel}"
        text += f" stride {stride}" if self.stride != (1, 1) else ""
        return text + (f" pad {padding}" if any(self.padding) else "")


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
