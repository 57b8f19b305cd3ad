"""Finding the modules that follow each convolution of a network, by running it."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dnnjpeg.sparse.geometry import Geometry, has_parameters, padding_of


@dataclass
class Site:
    """A convolution of the network, its input, and the modules that follow it."""

    name: str
    module: nn.Conv2d
    geometry: Geometry
    input: Tensor
    norm: str | None = None  # the batch norm that alone reads its output
    norm_module: Any = None
    relu: str | None = None  # the ReLU or ReLU6 that alone reads what comes out of that
    activation: str = "none"  # what that one does: relu or relu6
    onward: str | None = None  # the convolution that alone reads what comes out of that
    is_summed: bool = False  # whether a sum alone reads what comes out of that


_SUMS = ("add", "add_", "__add__", "__iadd__", "__radd__")
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
Key = tuple[int, int]  # a tensor's identity, and how often it was changed in place


class _Uses(TorchFunctionMode):
    """Counts the functions that read each tensor. Tensors are kept, so that their identities stay unique."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[Key] = Counter()
        self.changes: Counter[int] = Counter()
        self.summands: set[Key] = set()
        self.kept: list[Any] = []

    def key(self, tensor: Tensor) -> Key:
        """The key of a tensor in its present state."""
        return id(tensor), self.changes[id(tensor)]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        read = [
            tensor
            for item in (*args, *(kwargs or {}).values())
            for tensor in _items(item)
            if isinstance(tensor, Tensor)
        ]
        keys = [self.key(tensor) for tensor in read]
        result = func(*args, **(kwargs or {}))
        if any(isinstance(item, Tensor) for item in _items(result)):  # not a shape or a size
            self.count.update(keys)
            if func.__name__ in _SUMS:
                self.summands.update(keys)
            self.kept += [*read, result]
            if any(result is tensor for tensor in read):
                self.changes[id(result)] += 1
        return result


def _items(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def sites(model: nn.Module, inputs: tuple[Any, ...]) -> list[Site]:
    """The convolutions that a model calls exactly once for these inputs, in their order.

    They are nn.Conv2d in float32 on the CPU, or subclasses that only add zero padding. Raises all errors of
    the model.
    """
    names = {module: name for name, module in model.named_modules()}
    uses = _Uses()
    calls: list[tuple[nn.Module, Key, Key]] = []
    inputs_of: dict[nn.Module, Tensor] = {}
    pending: dict[nn.Module, Key] = {}

    def before(module: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            pending[module] = uses.key(given[0])
            uses.kept.append(given[0])
            if isinstance(module, nn.Conv2d):
                with torch._C.DisableTorchFunction():
                    inputs_of[module] = given[0].clone()  # what comes later may change it in place

    def after(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if module in pending and isinstance(result, Tensor):
            calls.append((module, pending.pop(module), uses.key(result)))

    with ExitStack() as stack:
        for module in names:
            if isinstance(module, nn.Conv2d) or type(module) in (nn.BatchNorm2d, *_ACTIVATIONS):
                stack.callback(module.register_forward_pre_hook(before).remove)
                stack.callback(module.register_forward_hook(after).remove)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(uses)
        output = model(*inputs)
    _count_outputs(uses, output)
    times = Counter(module for module, _, _ in calls)
    readers: dict[Key, list[tuple[nn.Module, Key]]] = {}
    for module, given, result in calls:
        readers.setdefault(given, []).append((module, result))

    def reader(key: Key, *kinds: type[nn.Module]) -> tuple[nn.Module, Key] | None:
        """The only module that reads a tensor, if its type is one of these, or if no types are given."""
        found = readers.get(key, [])
        if uses.count[key] != 1 or len(found) != 1 or (kinds and type(found[0][0]) not in kinds):
            return None
        return found[0]

    made = []
    for module, _, key in calls:
        if not isinstance(module, nn.Conv2d) or times[module] != 1 or not _is_known(module):
            continue
        x = inputs_of[module]
        padding = padding_of(module, x.shape)
        if padding is None:
            continue
        site = Site(names[module], module, Geometry.padded(module, x.shape, padding), x)
        norm = reader(key, nn.BatchNorm2d)
        if norm and times[norm[0]] == 1 and _is_foldable(norm[0]):
            site.norm, site.norm_module, key = names[norm[0]], norm[0], norm[1]
        relu = reader(key, *_ACTIVATIONS)
        if relu:
            site.relu, key = names[relu[0]], relu[1]
            site.activation = _ACTIVATIONS[type(relu[0])]
        following = reader(key)
        if following and times[following[0]] == 1:
            site.onward = names[following[0]]
        site.is_summed = uses.count[key] == 1 and key in uses.summands
        made.append(site)
    return made


def _is_known(module: nn.Conv2d) -> bool:
    weight = module.weight
    return has_parameters(module) and weight.dtype is torch.float32 and weight.device.type == "cpu"


def _is_foldable(norm: nn.Module) -> bool:
    return has_parameters(norm) and not norm.training and norm.running_mean is not None


def _count_outputs(uses: _Uses, output: Any) -> None:
    """Count the model's caller as a reader of the output."""
    if isinstance(output, Tensor):
        uses.count[uses.key(output)] += 1
    elif isinstance(output, (list, tuple, dict)):
        for item in output.values() if isinstance(output, dict) else output:
            _count_outputs(uses, item)
