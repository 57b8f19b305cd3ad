"""Loading networks by name, frozen, with the preprocessing of their training."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dnnjpeg.checks import brief
from dnnjpeg.files.view import Picture, Pictures
from dnnjpeg.networks.preprocess import Preprocess, preprocess_of

_FORMS = "torchvision:NAME, timm:NAME, path/to/file.py:function or package.module:function"


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen classifier in eval mode, float32, channels last. Made by `load_network`."""

    name: str  # the part of the spec after the last colon
    spec: str  # what the user gave
    digest: str  # of the weights: 16 hex digits of the sha256 of the state dict
    module: nn.Module
    preprocess: Preprocess
    device: torch.device
    # All that the logits depend on: one file of weights may serve two architectures, or two inputs. It is
    # made once, because `dnnjpeg.sparse` changes the module, but not its logits.
    identity: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", (self.digest, self.preprocess, str(self.module)))

    @property
    def batch(self) -> int:
        """Pictures to read at a time. On a CPU, few enough that activations stay in the cache."""
        return 16 if self.device.type == "cpu" else 128

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits of pictures, float32 N x classes, differentiable in the pixels.

        pixels: float N x 3 x H x W, RGB, 0..255. Pictures that are not of the network's size are resized and
            cropped as `Preprocess.view` says.

        An active autocast is used. Raises ValueError if the output is not N x classes.
        """
        logits = self.module(self.inputs(pixels))
        logits = getattr(logits, "logits", logits)  # of a model of transformers
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        if not isinstance(given, tuple) or len(given) != 2 or given[0] != len(pixels):
            raise ValueError(f"{self.name} returns {given} for {len(pixels)} pictures, expected N x classes")
        return logits.float()

    def inputs(self, pixels: Tensor) -> Tensor:
        """The module's input for pixels like those of `__call__`: N x 3 x size x size, channels last."""
        size = self.preprocess.size
        pixels = pixels.to(self.device, torch.float32)
        if pixels.shape[-2:] != (size, size):
            pixels = self._view(pixels)
        mean, std = (
            255 * torch.tensor(values, device=self.device).reshape(3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)

    def _view(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        with torch.autocast(self.device.type, enabled=False):
            down, across = (
                torch.from_numpy(matrix).to(self.device)
                for matrix in self.preprocess.view.matrices(width, height)
            )
            return down @ pixels @ across.T

    def read(self, pictures: Pictures, batch: int | None = None) -> NDArray[np.float32]:
        """Logits of stored pictures, float32 N x classes.

        pictures: uint8 H x W x 3 each. Pillow resizes and crops them as `Preprocess.view` says.
        batch: pictures to read at a time. None: a fast number.

        Raises ValueError for other arrays, and if logits are not finite.
        """
        parts, batch = [], batch or self.batch
        for start in range(0, len(pictures), batch):
            some = np.stack([self._shown(picture) for picture in pictures[start : start + batch]])
            with torch.inference_mode():
                logits = self(torch.from_numpy(some).to(self.device).permute(0, 3, 1, 2)).cpu().numpy()
            faulty = np.flatnonzero(~np.isfinite(logits).all(axis=1))
            if faulty.size:
                raise ValueError(f"{self.name} returns NaN or infinity for picture {start + faulty[0]}")
            parts.append(logits)
        if not parts:
            raise ValueError("pictures is empty, expected at least one")
        return np.concatenate(parts)

    def _shown(self, picture: Picture) -> Picture:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"pictures are {picture.dtype} {picture.shape}, expected uint8 H x W x 3")
        return self.preprocess.view.of(picture)


def load_network(
    spec: str, *, weights: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu"
) -> Network:
    """Load a network, frozen, on a device.

    spec: one of these.
        `torchvision:NAME`, `timm:NAME`: a model with the package's best weights.
        `path/to/file.py:function`, `package.module:function`: a function without arguments that returns an
            nn.Module. The file or module is executed. A file may import files of its folder. These become
            modules of the process, so do not load two files whose neighbours share a name.
    weights: a state dict (.safetensors, .pt or .pth) in place of the network's own weights. All names and
        shapes must match.
    device: a device of torch.

    The module's attribute `preprocess` says how pictures are prepared. It is a dict with `size`, `mean` and
    `std`, and possibly `resize` and `interpolation` (see `View`); or torchvision's `weights.transforms()`; or
    an image processor of transformers. Without this attribute, torchvision's weights, timm's
    `pretrained_cfg`, or the image processor of a model of transformers are used.

    Raises OSError if a file cannot be opened. Raises ValueError if the spec names no network, if the weights
    do not fit, if the preprocessing is unknown, or if the network does not return finite logits.
    """
    origin, _, name = spec.rpartition(":")
    if not origin or not name:
        raise ValueError(f"{spec!r} names no network, expected {_FORMS}")
    with _blame(f"device {device!r} cannot be used"):
        place = torch.empty(0, device=device).device
    if origin == "torchvision":
        module, given = _from_torchvision(spec, name, weights is None)
    elif origin == "timm":
        module, given = _from_timm(spec, name, weights is None), None
    else:
        module, given = _from_function(spec, origin, name), None
    if not isinstance(module, nn.Module):
        raise ValueError(f"{spec} returns {type(module).__name__}, expected an nn.Module")
    with _blame(f"the preprocessing of {spec} is not known"):
        preprocess = preprocess_of(module, given)
    if weights is not None:
        _load_weights(module, Path(weights))
    module = module.float().eval().requires_grad_(False)
    digest = _digest(module)
    module = module.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = Network(name, spec, digest, module, preprocess, place)
    with _blame(f"{spec} cannot read a picture of {preprocess.size} x {preprocess.size}"):
        _try_out(network)
    return network


def _try_out(network: Network) -> None:
    size = network.preprocess.size
    logits = network.read(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8))
    if logits.shape[1] < 2:
        raise ValueError("it returns one value, expected a logit for each class")
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
        raise ValueError("it returns probabilities, expected logits: leave out the softmax")
    if (logits >= 0).all() and (logits <= 1).all():
        with torch.enable_grad():
            last = network(torch.zeros(1, 3, size, size, device=network.device, requires_grad=True)).grad_fn
        if last is not None and "sigmoid" in last.name().lower():
            raise ValueError("it returns probabilities, expected logits: leave out the sigmoid")


def _from_torchvision(spec: str, name: str, pretrained: bool) -> tuple[nn.Module, Any]:
    models = _import("torchvision.models", spec, "pip install torchvision")
    with _blame(f"{spec} cannot be made"):
        default = models.get_model_weights(name).DEFAULT
        transforms = default.transforms()
        if not hasattr(transforms, "crop_size"):
            raise ValueError("torchvision has no preprocessing of a classifier for it")
        module = models.get_model(name, weights=default if pretrained else None)
    return module, transforms


def _from_timm(spec: str, name: str, pretrained: bool) -> nn.Module:
    timm = _import("timm", spec, "pip install timm")
    with _blame(f"{spec} cannot be made"):
        return timm.create_model(name, pretrained=pretrained)


def _from_function(spec: str, origin: str, name: str) -> Any:
    if not origin.endswith(".py"):
        return _call(_import(origin, spec, f"expected {_FORMS}"), spec, name)
    path = Path(origin)
    with path.open("rb"):
        pass  # a missing file is an OSError
    # Not under the file's own name, which another module may have.
    found = importlib.util.spec_from_file_location(f"dnnjpeg network {path.resolve()}", path)
    assert found is not None and found.loader is not None
    home = importlib.util.module_from_spec(found)
    sys.modules[found.name] = home  # dataclasses, for example, look for it here
    folder = os.fspath(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with _blame(f"{origin} fails"):
            found.loader.exec_module(home)
        return _call(home, spec, name)
    finally:
        sys.path.remove(folder)


def _call(home: ModuleType, spec: str, name: str) -> Any:
    function = getattr(home, name, None)
    if not callable(function):
        functions = [
            key
            for key, value in vars(home).items()
            if inspect.isfunction(value) and value.__module__ == home.__name__ and not key.startswith("_")
        ]
        raise ValueError(f"{spec} is no function; functions there: {', '.join(functions) or 'none'}")
    with _blame(f"{spec} fails"):
        return function()


def _import(name: str, spec: str, remedy: str) -> ModuleType:
    with _blame(f"{spec} cannot be imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # a module that it imports
            raise ValueError(f"there is no module {error.name}: {remedy}") from None


@contextmanager
def _blame(what: str) -> Iterator[None]:
    """Turn any error of others' code into a ValueError that begins with `what`. The cause stays attached."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{what}: {kind}{line}") from error


def _load_weights(module: nn.Module, path: Path) -> None:
    state, own = _read_weights(path), module.state_dict()
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        inside = list(state) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{path} holds {brief(inside)}, expected a state dict: tensors by name")
    wrong = {key for key in own.keys() & state.keys() if own[key].shape != state[key].shape}
    fitting = {key: value for key, value in state.items() if key not in wrong}
    missing, unexpected = module.load_state_dict(fitting, strict=False)
    faults = {"missing": set(missing) - wrong, "unexpected": set(unexpected), "of another shape": wrong}
    if any(faults.values()):
        told = [f"{len(keys)} {fault}: {brief(sorted(keys))}" for fault, keys in faults.items() if keys]
        raise ValueError(f"{path} does not fit the network's {len(own)} tensors; {'; '.join(told)}")


def _read_weights(path: Path) -> Any:
    with path.open("rb"):
        pass  # the libraries raise different errors for a missing file
    with _blame(f"{path} cannot be read as a state dict"):
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix.lower() in (".pt", ".pth"):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:  # its message advises to run the code in the file
                raise ValueError(
                    "it is damaged, or holds more than module.state_dict(): save the state dict alone"
                ) from None
        raise ValueError("expected a .safetensors, .pt or .pth file")


def _digest(module: nn.Module) -> str:
    sha = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        sha.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:16]
