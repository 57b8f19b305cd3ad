"""Networks that are ONNX files, run by onnxruntime. They have no gradients.

Settings stand in a file beside the network with the same name: net.yaml, net.yml or net.json for net.onnx.

    preprocess: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], fit: whole}
    task: dense            # see `dnnjpeg.networks.tasks`; the default is classification
    channels: bgr          # the order of the input's channels; the default is rgb
    input: x               # the input for pictures, if there are several
    inputs: {ids: [[1, 2]]} # values of all other inputs, the same for each picture
    outputs: [map]         # the outputs to read. One: a tensor; several: a dict. The default is all
    rename: {map: logits}  # names of outputs in the dict, as a task wants them

The input for pictures is float N x 3 x height x width. `mean` and `std` are those of red, green and blue, in
this order.

Files with external data, as net.onnx.data, belong to the network: they stay in its folder.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dnnjpeg.checks import check_keys
from dnnjpeg.networks.onnx_files import external_files

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SUFFIXES = (".yaml", ".yml", ".json")
_KEYS = ("preprocess", "task", "channels", "input", "inputs", "outputs", "rename")
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


class OnnxModule(nn.Module):
    """A network of onnxruntime as a module. Its output is a tensor, or a dict of tensors."""

    is_differentiable = False

    def __init__(self, session: Any, digest: bytes, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.register_buffer("sha256", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        self.session, self.settings = session, dict(settings)
        self.preprocess, self.task = settings.get("preprocess"), settings.get("task")
        inputs = {one.name: one for one in session.get_inputs()}
        self.input = settings.get("input") or _only(inputs, settings.get("inputs", {}))
        self.others = _others(inputs, self.input, settings.get("inputs", {}))
        there = [one.name for one in session.get_outputs()]
        self.outputs = list(settings.get("outputs", there))
        if unknown := set(self.outputs) - set(there):
            raise ValueError(f"there is no output {', '.join(sorted(unknown))}. Outputs: {', '.join(there)}")
        shape = inputs[self.input].shape
        if len(shape) != 4 or inputs[self.input].type != "tensor(float)":
            raise ValueError(f"the input {self.input} is {inputs[self.input].type} {shape}, expected float "
                             "N x 3 x height x width")  # fmt: skip
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.sides = tuple(side if isinstance(side, int) else None for side in shape[2:])

    def extra_repr(self) -> str:
        return repr(self.settings)  # part of the network's identity

    def forward(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        given = tuple(pixels.shape[-2:])
        if any(own not in (None, side) for own, side in zip(self.sides, given, strict=True)):
            raise ValueError(f"the input is {self.sides[0]} x {self.sides[1]}, and the preprocessing gives "
                             f"{given[0]} x {given[1]}: correct `size` and `fit`")  # fmt: skip
        if self.settings.get("channels", "rgb") == "bgr":
            pixels = pixels.flip(1)
        array = np.ascontiguousarray(pixels.detach().cpu().numpy())
        step = self.batch or len(array)
        if len(array) % step:
            raise ValueError(f"the network takes {step} pictures at a time: export it with a free first axis")
        runs = [self._run(array[i : i + step]) for i in range(0, len(array), step)]
        names = [self.settings.get("rename", {}).get(name, name) for name in self.outputs]
        outputs = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*runs, strict=True)]
        return outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))

    def _run(self, array: np.ndarray[Any, Any]) -> list[Any]:
        found: list[Any] = self.session.run(self.outputs, {self.input: array, **self.others})
        return found


def load_onnx(path: Path, device: torch.device, threads: int | None) -> OnnxModule:
    """Load a network, and the settings beside it.

    device: cpu or cuda. threads: None: as many as onnxruntime takes.

    Raises OSError if a file cannot be opened. Raises ValueError if onnxruntime or its provider is missing, if
    there are no settings or wrong ones, or if the network cannot be loaded.
    """
    data = path.read_bytes()
    settings = _settings(path)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ValueError(f"{path} needs onnxruntime: pip install 'dnnjpeg[onnx]'") from None
    provider, there = _PROVIDERS.get(device.type), runtime.get_available_providers()
    if provider not in there:
        raise ValueError(
            f"device is {device}, and onnxruntime has no provider for it; it has {', '.join(there)}: use "
            "another device, or pip install onnxruntime-gpu in place of onnxruntime"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    place = {"device_id": device.index or 0} if device.type == "cuda" else {}
    beside = external_files(data)
    try:
        # Only by the path does onnxruntime know the folder. It takes no path that is not UTF-8.
        source = str(path) if beside else data
        session = runtime.InferenceSession(source, options, providers=[(provider, place)])
        if provider not in session.get_providers():  # it falls back to the CPU without an error
            raise ValueError(f"onnxruntime cannot use {provider} here: use the device cpu")
        return OnnxModule(session, _digest(data, path.parent, beside), settings)
    except Exception as error:
        line = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(f"{path} cannot be used: {line}") from error


def _digest(data: bytes, folder: Path, beside: list[str]) -> bytes:
    sha = hashlib.sha256(data)
    for name in beside:
        with (folder / name).open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.digest()


def _settings(path: Path) -> dict[str, Any]:
    files = [file for suffix in _SUFFIXES if (file := path.with_suffix(suffix)).exists()]
    if not files:
        raise ValueError(
            f"there are no settings beside {path}: write {path.with_suffix('.yaml')} with the line "
            "preprocess: {size: 224, mean: [r, g, b], std: [r, g, b]}"
        )
    file = files[0]
    text = file.read_text(encoding="utf-8")
    try:
        if file.suffix == ".json":
            found = json.loads(text)
        else:
            found = importlib.import_module("yaml").safe_load(text)
    except ImportError:
        raise ValueError(f"{file} needs PyYAML: pip install 'dnnjpeg[onnx]', or write JSON") from None
    except Exception as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    try:
        check_keys(found, "network", ("preprocess",), _KEYS[1:])
        if (order := found.get("channels", "rgb")) not in ("rgb", "bgr"):
            raise ValueError(f"channels is {order!r}, expected rgb or bgr")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    own = found.get("task")
    if isinstance(own, str) and ".py:" in own:  # a file beside it
        found["task"] = str(path.parent / own)
    return dict(found)


def _only(inputs: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    left = [name for name in inputs if name not in given]
    if len(left) != 1:
        raise ValueError(
            f"the inputs are {', '.join(inputs)}: say which one takes pictures by `input`, and give values "
            "for all others in `inputs`"
        )
    return left[0]


def _others(inputs: Mapping[str, Any], own: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the inputs that are no pictures."""
    if own not in inputs:
        raise ValueError(f"there is no input {own}. Inputs: {', '.join(inputs)}")
    found = {}
    for name, one in inputs.items():
        if name == own:
            continue
        if name not in given:
            raise ValueError(f"the input {name} {one.shape} has no value: give it in `inputs`")
        if one.type not in _TYPES:
            raise ValueError(f"the input {name} is {one.type}, expected one of {', '.join(_TYPES)}")
        value = np.array(given[name], _TYPES[one.type])
        fits = len(value.shape) == len(one.shape) and all(
            side == n for side, n in zip(value.shape, one.shape, strict=True) if isinstance(n, int)
        )
        if not fits:
            raise ValueError(f"the input {name} is {value.shape} in `inputs`, expected {one.shape}")
        found[name] = value
    return found
