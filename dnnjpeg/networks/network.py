"""A frozen network, which reads pictures."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnnjpeg.files.view import Picture, Pictures
from dnnjpeg.networks.outputs import Output, Outputs, each, join, tensors
from dnnjpeg.networks.preprocess import Preprocess
from dnnjpeg.networks.task import Task
from dnnjpeg.networks.tasks import Classification


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen network in eval mode, float32, channels last. Made by `load_network`."""

    name: str  # the part of the spec after the last colon
    spec: str  # what the user gave
    digest: str  # of the weights: 16 hex digits of the sha256 of the state dict
    module: nn.Module
    preprocess: Preprocess
    device: torch.device
    task: Task = field(default_factory=Classification)
    code: str = ""  # of the code that outputs depend on: a digest, and what it makes of a picture
    # All that outputs depend on: one file of weights may serve two architectures, or two inputs. It is
    # made once, because `dnnjpeg.sparse` changes the module, but not its outputs.
    identity: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", (self.digest, self.preprocess, str(self.module), self.code))

    @property
    def batch(self) -> int:
        """Pictures to read at a time. On a CPU, few enough that activations stay in the cache."""
        return 16 if self.device.type == "cpu" else 128

    @property
    def is_differentiable(self) -> bool:
        """Whether outputs have gradients with respect to the pixels. Those of ONNX files have none."""
        return bool(getattr(self.module, "is_differentiable", True))

    def need_gradients(self, what: str, instead: str) -> None:
        """Raise ValueError if the network has no gradients.

        what: what needs them. instead: what the user can do.
        """
        if not self.is_differentiable:
            raise ValueError(
                f"{what} needs gradients, and {self.name} is an ONNX file, which has none: {instead}"
            )

    def __call__(self, pixels: Tensor) -> Output:
        """The output for pictures, float32, differentiable in the pixels. Its first axis has N rows.

        pixels: float N x 3 x H x W, RGB, 0..255. Pictures that are not of the network's size are resized and
            cropped as `Preprocess.view` says.

        An active autocast is used. Raises ValueError if the output is not what the task expects.
        """
        output = self.task.output(self.module(self.inputs(pixels)))
        parts = tensors(output)
        is_output = all(isinstance(part, Tensor) and part.shape[:1] == (len(pixels),) for part in parts)
        if not parts or not is_output or not self.task.fits(output):
            given = each(lambda x: tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__, output)
            raise ValueError(
                f"{self.name} returns {given} for {len(pixels)} pictures, expected {self.task.expects}"
            )
        return each(Tensor.float, output)

    def inputs(self, pixels: Tensor) -> Tensor:
        """The module's input for pixels like those of `__call__`: N x 3 x the view's sides, channels last."""
        height, width = pixels.shape[-2:]
        pixels = pixels.to(self.device, torch.float32)
        if (height, width) != self.preprocess.view.shape(width, height):
            pixels = self._view(pixels)
        mean, std = (
            255 * torch.tensor(values, device=self.device).reshape(3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

    def _view(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        view = self.preprocess.view
        with torch.autocast(self.device.type, enabled=False):
            down, across, border = (
                torch.from_numpy(matrix).to(self.device)
                for matrix in (*view.matrices(width, height), view.border(width, height))
            )
            return down @ pixels @ across.T + border

    def read(self, pictures: Pictures, batch: int | None = None) -> Outputs:
        """The outputs for stored pictures, float32: for a classifier an array, N x classes.

        pictures: uint8 H x W x 3 each. Pillow resizes and crops them as `Preprocess.view` says.
        batch: pictures to read at a time. None: a fast number.

        A dict of arrays for a network that returns a dict. A list with one entry for each picture, if their
        outputs have different shapes. Raises ValueError for other arrays, and if outputs are not finite.
        """
        if not len(pictures):
            raise ValueError("pictures is empty, expected at least one")
        batch, view = batch or self.batch, self.preprocess.view
        groups: dict[tuple[int, int], list[int]] = {}
        for i, picture in enumerate(pictures):
            _check(picture)
            groups.setdefault(view.shape(picture.shape[1], picture.shape[0]), []).append(i)
        parts, order = [], [i for numbers in groups.values() for i in numbers]
        for numbers in groups.values():
            for start in range(0, len(numbers), batch):
                some = numbers[start : start + batch]
                parts.append(self._read(np.stack([view.of(pictures[i]) for i in some]), some))
        outputs = join(parts)
        if isinstance(outputs, list):
            return [row for _, row in sorted(zip(order, outputs, strict=True), key=lambda pair: pair[0])]
        places = np.argsort(order)
        return outputs if len(groups) == 1 else each(lambda array: array[places], outputs)

    def _read(self, shown: NDArray[np.uint8], numbers: list[int]) -> Outputs:
        with torch.inference_mode():
            output = self(torch.from_numpy(shown).to(self.device).permute(0, 3, 1, 2))
        arrays: Outputs = each(lambda value: value.cpu().numpy(), output)
        for array in tensors(arrays):
            faulty = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            if faulty.size:
                raise ValueError(f"{self.name} returns NaN or infinity for picture {numbers[faulty[0]]}")
        return arrays


def _check(picture: Picture) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"pictures are {picture.dtype} {picture.shape}, expected uint8 H x W x 3")
