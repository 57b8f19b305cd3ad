"""Loading networks by name, frozen, with the preprocessing of their training."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dnnjpeg.checks import brief, one_line
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.outputs import Output, each, take, tensors
from dnnjpeg.networks.preprocess import preprocess_of
from dnnjpeg.networks.task import Task, as_task, try_task
from dnnjpeg.networks.tasks import Classification

__all__ = ["Network", "load_network"]

_FORMS = "torchvision:NAME, timm:NAME, path/to/file.py:function, package.module:function or path/to/file.onnx"
_TRIED = 224  # pixels: the side of pictures with which a network is tried that shows them whole


def load_network(
    spec: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    task: str | Task | None = None,
    threads: int | None = None,
) -> Network:
    """Load a network, frozen, on a device.

    spec: one of these.
        `torchvision:NAME`, `timm:NAME`: a model with the package's best weights.
        `path/to/file.py:function`, `package.module:function`: a function without arguments that returns an
            nn.Module. The file or module is executed. A file may import files of its folder. These become
            modules of the process, so do not load two files whose neighbours share a name.
        `path/to/file.onnx`: a network for onnxruntime, see `dnnjpeg.networks.onnx`. It has no gradients.
    weights: a state dict (.safetensors, .pt or .pth) in place of the network's own weights. All names and
        shapes must match.
    device: a device of torch. For an ONNX file, cpu or cuda.
    task: what outputs mean: classification, embedding, dense, detection, tokens, FILE.py:CLASS, or a `Task`.
        None: the module's attribute `task`, else classification.
    threads: threads of an ONNX file. None: as many as onnxruntime takes.

    The module's attribute `preprocess` says how pictures are prepared. It is a dict with `size`, `mean` and
    `std`, and possibly `resize`, `interpolation` and `fit` (see `View`); or torchvision's
    `weights.transforms()`; or an image processor of transformers. Without this attribute, torchvision's
    weights, timm's `pretrained_cfg`, or the image processor of a model of transformers are used.

    Raises OSError if a file cannot be opened. Raises ValueError if the spec names no network, if the weights
    do not fit, if the preprocessing is unknown, if the network does not return finite outputs of the
    task, or if the task's distance is not 0 for equal outputs, negative, NaN, or of a wrong shape.
    """
    origin, _, name = spec.rpartition(":")
    module: Any
    is_onnx = spec.endswith(".onnx")
    if not is_onnx and not (origin and name):
        raise ValueError(f"{spec!r} names no network, expected {_FORMS}")
    with _blame(f"device {device!r} cannot be used"):
        # onnxruntime itself brings pictures to its device
        place = torch.device("cpu") if is_onnx else torch.empty(0, device=device).device
    if is_onnx:
        from dnnjpeg.networks.onnx import load_onnx

        if weights is not None:
            raise ValueError(f"weights is {os.fspath(weights)}, and {spec} has its own: leave out weights")
        name = one_line(Path(spec).name)
        module, given = load_onnx(Path(spec), torch.device(device), threads), None
    elif origin == "torchvision":
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
    module = module.to(place).to(memory_format=torch.channels_last)
    own = as_task(getattr(module, "task", None) or Classification() if task is None else task, "task")
    network = Network(name, spec, digest, module, preprocess, place, own)
    side = preprocess.size
    if preprocess.fit == "whole":
        side *= -(-_TRIED // side)
    with _blame(f"{spec} cannot read a picture of {side} x {side}"):
        output = _try_out(network, side)
    return replace(network, code=f"{_source(module, name)} {_outline(output)}")


def _source(module: nn.Module, name: str) -> str:
    """The function that has made a network, and a digest of the file of its class."""
    with suppress(OSError, TypeError):  # a class that has no file
        if file := inspect.getsourcefile(type(module)):
            return f"{name} {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}"
    return name


def _outline(output: Output) -> str:
    """Some numbers of an output, with so few digits that they are the same on most machines."""
    some = [one.double() for one in tensors(output) if one.numel()]
    return " ".join(f"{float(x):.3g}" for one in some for x in (one.abs().mean(), one.max(), one.min()))


def _try_out(network: Network, side: int) -> Output:
    """Read two pictures, and try the task on what is read, so that errors come early. Returns the output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for outputs that are drawn
        outputs = network.read(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    output = take(outputs, [0, 1])

    def last_operation() -> str:
        with torch.enable_grad():
            pixels = torch.zeros(1, 3, side, side, device=network.device, requires_grad=True)
            last = each(lambda value: value.grad_fn, network(pixels))
        return "" if last is None else str(last.name())

    network.task.check(output, last_operation)
    try_task(network.task, output)
    return output


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
        raise ValueError(f"{spec} is not a function. Functions there: {', '.join(functions) or 'none'}")
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
