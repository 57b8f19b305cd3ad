"""Plans: how each convolution of a network runs, and the machine on which this was measured."""

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from reprlib import repr as brief
from typing import Any, Self

import torch
from torch import nn

from dnnjpeg.checks import check_integer, check_items, check_keys, check_record
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.documents import read_json
from dnnjpeg.sparse.dense import LOWERED, DenseConv2d, dense_methods
from dnnjpeg.sparse.fused import Fused
from dnnjpeg.sparse.geometry import Geometry, has_parameters, is_plain, padding_of
from dnnjpeg.sparse.layer import LayerPlan
from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.order import check_order
from dnnjpeg.sparse.replaced import FoldedNorm, KnownReLU, KnownReLU6, twin
from dnnjpeg.sparse.tiling import SPARSE

FORMAT = "dnnjpeg-sparse-plan"
_BEFORE = "_before_sparse"  # attribute of a model: its own modules


@dataclass(frozen=True)
class Plan:
    """How each convolution of a network runs.

    layers: plans of the convolutions.
    conditions: processor, threads, batch and versions, on which the times depend.
    provenance: the network and the pictures, as any JSON object.
    fused: whether the network runs as one graph, see `fused.Fused`.
    """

    layers: tuple[LayerPlan, ...]
    conditions: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    fused: bool = False

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as a JSON file, in one step. Raises OSError."""
        document = {
            "format": FORMAT,
            "version": 1,
            "conditions": self.conditions,
            "provenance": self.provenance,
            "fused": self.fused,
            "layers": [layer.to_json() for layer in self.layers],
        }
        write_atomic(path, json.dumps(document, indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan. Raises OSError if the file cannot be read, ValueError if it is no plan."""
        try:
            document = read_json(path)
            check_keys(
                document, "plan", ("format", "version", "conditions", "layers"), ("provenance", "fused")
            )
            if (document["format"], document["version"]) != (FORMAT, 1):
                found = f"{brief(document['format'])} {brief(document['version'])}"
                raise ValueError(f"format is {found}, expected {FORMAT} 1")
            made_for, provenance = (
                check_record(document.get(key, {}), key) for key in ("conditions", "provenance")
            )
            for key, most in (("threads", 1024), ("batch", 1 << 20)):
                if key in made_for:
                    check_integer(made_for[key], f"conditions.{key}", 1, most)
            fused = document.get("fused", False)
            if not isinstance(fused, bool):
                raise ValueError(f"fused is {brief(fused)}, expected true or false")
            layers = tuple(map(LayerPlan.of, check_items(document["layers"], "layers", "a list")))
            name, times = max(
                Counter(layer.name for layer in layers).items(), key=itemgetter(1), default=("", 0)
            )
            if times > 1:
                raise ValueError(f"layers has {name} {times} times, expected once")
            return cls(layers, made_for, provenance, fused)
        except RecursionError:
            raise ValueError(f"{path} is no plan: it has too many levels") from None
        except ValueError as error:
            raise ValueError(f"{path} is no plan: {error}") from None


def conditions(batch: int) -> dict[str, Any]:
    """The conditions on which the times of layers depend, besides their geometry."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "batch": batch,
        **{name: version(name) for name in ("dnnjpeg", "torch", "numba")},
    }


def apply_(model: nn.Module, plan: Plan, *, check: bool = True) -> None:
    """Apply a plan to a model, in place. `restore_` undoes it.

    check: refuse a plan that was made for other conditions (processor, threads, versions).

    Raises ValueError if a plan is refused, or if it was made for another network.
    """
    if check:
        here = conditions(plan.conditions.get("batch", 1))
        other = [key for key, value in here.items() if plan.conditions.get(key) != value]
        if other:
            told = ", ".join(f"{key} {plan.conditions.get(key)!r}, here {here[key]!r}" for key in other)
            raise ValueError(f"the plan was made under other conditions: {told}. Tune again on this machine")
    modules = modules_of(original(model), plan)
    check_order(model, plan.layers)
    install(model, modules, plan.fused)


def modules_of(modules: Mapping[str, nn.Module], plan: Plan) -> dict[str, nn.Module]:
    """The modules of a plan by the names of those that they replace. Raises ValueError if they do not fit."""
    made: dict[str, nn.Module] = {}
    for layer in plan.layers:
        module, geometry = _convolution(modules, layer.name), layer.geometry
        shape = (1, geometry.channels, geometry.height, geometry.width)
        padding = padding_of(module, shape) if module.in_channels == geometry.channels else None
        if padding is None or Geometry.padded(module, shape, padding) != geometry:
            raise ValueError(
                f"{layer.name} is {module}, the plan has {geometry}: it was made for another network"
            )
        norm = None
        if layer.norm:
            norm = _with_parameters(_named(modules, layer.norm, nn.BatchNorm2d), layer.norm)
        if norm is not None and (norm.num_features != module.out_channels or norm.running_mean is None):
            raise ValueError(f"{layer.name}: norm is {layer.norm!r}, which is {norm}, expected a batch norm")
        possible = dense_methods(module)
        if layer.method not in (*possible, *(SPARSE if set(LOWERED) <= set(possible) else ())):
            raise ValueError(f"{layer.name}: method is {layer.method}, which cannot compute {module}")
        if layer.method in SPARSE and layer.dense not in possible:
            raise ValueError(f"{layer.name}: dense is {layer.dense}, which cannot compute {module}")
        activation = "none"
        if layer.relu:
            activation, known = _activation(modules, layer.relu)
            made.setdefault(layer.relu, known)
        options: dict[str, Any] = {
            "norm": norm,
            "activation": activation,
            "channels_last": True,
            "geometry": None if is_plain(module) else geometry,
        }
        if layer.method in SPARSE:
            sparse = SparseConv2d.of(module, **options)
            sparse.tiling, sparse.min_zeros, sparse.dense = layer.tiling, layer.min_zeros, layer.dense
            made[layer.name] = sparse
        else:
            dense = DenseConv2d.of(module, **options)
            dense.method = layer.method
            made[layer.name] = dense
        if layer.norm:
            made[layer.norm] = twin(FoldedNorm, modules[layer.norm])
    for layer in plan.layers:
        if layer.onward:
            reader = made.get(layer.onward)
            writer = made[layer.name]
            if not isinstance(reader, SparseConv2d) or not isinstance(writer, SparseConv2d):
                raise ValueError(
                    f"{layer.name}: onward is {layer.onward!r}, and one of the two is not sparse"
                )
            if not writer.can_feed(reader):
                raise ValueError(
                    f"{layer.name}: onward is {layer.onward!r}, whose tiling reads other lists: "
                    f"{writer.tiling} cannot make those of {reader.tiling}"
                )
            object.__setattr__(writer, "onward", reader)
    return made


def _activation(modules: Mapping[str, nn.Module], name: str) -> tuple[str, nn.Module]:
    """The activation of a module, and the module that replaces it, which does not apply it twice."""
    if type(modules.get(name)) is nn.ReLU6:
        return "relu6", twin(KnownReLU6, modules[name])
    return "relu", twin(KnownReLU, _named(modules, name, nn.ReLU))


def _convolution(modules: Mapping[str, nn.Module], name: str) -> nn.Conv2d:
    module = modules.get(name)
    return _with_parameters(
        module if isinstance(module, nn.Conv2d) else _named(modules, name, nn.Conv2d), name
    )


def _with_parameters(module: Any, name: str) -> Any:
    if not has_parameters(module):
        raise ValueError(
            f"{name}: weight or bias is no parameter, but computed at each call, as in pruning: make it "
            "permanent, for example with torch.nn.utils.prune.remove, or tune again"
        )
    return module


def _named(modules: Mapping[str, nn.Module], name: str, kind: type[Any]) -> Any:
    module = modules.get(name)
    if type(module) is not kind:
        there = "nothing of that name" if module is None else type(module).__name__
        raise ValueError(
            f"{name} should be {kind.__name__}, and is {there}: the plan was made for another network"
        )
    return module


def original(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model by name, as they were before any plan."""
    return dict(model.named_modules()) | model.__dict__.get(_BEFORE, {})


def install(model: nn.Module, modules: Mapping[str, nn.Module], fused: bool = False) -> None:
    """Replace modules of a model everywhere in the model. All other modules become the model's own again.

    fused: run the network as one graph. Raises ValueError if this is impossible.
    """
    restore_(model)
    own = dict(model.named_modules())
    before = {name: own[name] for name in modules}
    _exchange(model, {before[name]: module for name, module in modules.items()})
    model.__dict__[_BEFORE] = before
    if fused:
        if "forward" in model.__dict__:
            restore_(model)
            raise ValueError(
                f"{type(model).__name__} has its own attribute forward, and cannot run as one graph"
            )
        try:
            model.__dict__["forward"] = Fused(model)
        except Exception as error:  # of fx, and of the network's own Python, which is run without numbers
            restore_(model)
            raise ValueError(f"{type(model).__name__} cannot run as one graph: {error}") from error


def restore_(model: nn.Module) -> None:
    """Give a model its own modules back. Without a plan, nothing happens."""
    before = model.__dict__.pop(_BEFORE, {})
    if isinstance(model.__dict__.get("forward"), Fused):
        del model.__dict__["forward"]
    now = dict(model.named_modules())
    for name, module in before.items():
        module.training = now[name].training
    _exchange(model, {now[name]: module for name, module in before.items()})


def _exchange(model: nn.Module, pairs: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in pairs:
                parent._modules[name] = pairs[child]


def without_sparse(plan: Plan, dense: Mapping[str, str]) -> Plan:
    """The plan with the dense method of each layer."""
    layers = (
        replace(layer, method=dense[layer.name], tiling=None, min_zeros=0.0, onward=None)
        for layer in plan.layers
    )
    return replace(plan, layers=tuple(layers))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = [
        line.partition(":")[2].strip() for line in lines[:30] if line.startswith(("model", "cpu family"))
    ]
    return " ".join(fields) or platform.processor() or platform.machine()
