"""A planned network as one traced graph.

`torch.fx` traces the network. Batch norms and ReLUs that a convolution already does are left out of the
graph. A convolution adds the residual and applies its ReLU. A sparse convolution passes lists to the next one
if that one can read them.
"""

import inspect
import operator
from collections.abc import Callable
from operator import attrgetter
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dnnjpeg.sparse.chained import convolve_shortcuts, join
from dnnjpeg.sparse.fast import FastConv2d
from dnnjpeg.sparse.links import Modules, convolution, link
from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.replaced import FoldedNorm, KnownReLU, KnownReLU6

_ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_ONTO_FIRST = (operator.iadd, "add_")  # change their first operand
_RELUS: dict[Any, str] = {
    nn.ReLU: "relu", KnownReLU: "relu", F.relu: "relu", torch.relu: "relu", "relu": "relu", "relu_": "relu",
    nn.ReLU6: "relu6", KnownReLU6: "relu6", F.relu6: "relu6",
}  # fmt: skip

_TRAINING = attrgetter("training")
_TRACING = RLock()  # while fx traces, it changes nn.Module for all threads


class Fused:
    """Replaces a network's `forward`.

    The network's own `forward` is called if the network or a batch norm is in training mode, if a module has
    a hook or was replaced, or if an optional argument is not its default. Raises the error of `torch.fx` if
    it cannot trace the network, because control flow depends on numbers, and ValueError if `forward` sets
    attributes.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._run: Callable[..., Any] | None = None
        self._trace()

    def _trace(self) -> Callable[..., Any]:
        with _TRACING:
            return self._run or self._traced()

    def _traced(self) -> Callable[..., Any]:
        model = self.model
        modules = dict(model.named_modules())
        tracer = Tracer()
        graph = tracer.trace(model)
        if tracer.changed:
            names = ", ".join(tracer.changed)
            raise ValueError(f"its forward sets {names}, a graph would not: set the plan's fused to False")
        _leave_out(graph, modules)
        _add_residuals(graph, modules)
        _rectify(graph, modules)
        convolve_shortcuts(graph, modules)
        link(graph, modules)
        join(graph, modules)
        _bind(graph, modules)
        run: Callable[..., Any] = fx.GraphModule(model, graph).forward
        places = [
            (parent._modules, name, child)
            for parent in modules.values()
            for name, child in parent._modules.items()
        ]
        self._places = tuple(zip(*places, strict=True)) or ((), (), ())
        self._hooks = [
            hooks
            for module in modules.values()
            if module is not model
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
        ]
        self._modes = [model, *(module for module in modules.values() if type(module) is FoldedNorm)]
        parameters = [*inspect.signature(type(model).forward).parameters.values()][1:]
        self._names = [parameter.name for parameter in parameters]
        self._defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        self._run = run
        return run

    def _has_defaults(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Whether optional arguments are as in the trace."""
        given = dict(zip(self._names, inputs, strict=False)) | options
        return all(given.get(name, default) is default for name, default in self._defaults.items())

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The output of the network."""
        run = self._run or self._trace()
        parents, names, children = self._places
        same = all(map(operator.is_, map(operator.getitem, parents, names), children))
        usual = same and not any(map(_TRAINING, self._modes)) and not any(self._hooks)
        if not usual or not self._has_defaults(inputs, options):
            return type(self.model).forward(self.model, *inputs, **options)
        return run(*inputs, **options)

    def __getstate__(self) -> dict[str, Any]:
        """The state for copies and pickles, which trace the copied model."""
        return {"model": self.model, "_run": None}


class Tracer(fx.Tracer):
    """Traces with the defaults of optional arguments, and leaves the modules as they were."""

    changed: list[str]  # the attributes that `forward` sets

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        self._thread = get_ident()
        before = [(module.__dict__, dict(module.__dict__)) for module in root.modules()]
        try:
            return super().trace(root, concrete_args)
        finally:
            changed: set[str] = set()
            constants = set(self.tensor_attrs.values())  # of fx itself
            for now, was in before:
                own = now.keys() - constants
                changed |= {name for name in own if name not in was or now[name] is not was[name]}
                for name in own - was.keys():
                    del now[name]
                now.update(was)
            self.changed = sorted(changed)

    def create_args_for_root(self, *given: Any, **options: Any) -> tuple[Any, list[Any]]:
        function, args = super().create_args_for_root(*given, **options)
        placeholders = [arg.node.args if isinstance(arg, fx.Proxy) else () for arg in args]
        return function, [
            default[0] if default else arg for arg, default in zip(args, placeholders, strict=True)
        ]

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """A call of a module. Those of other threads come here too, and are not part of the graph."""
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """An attribute of a module. What other threads ask for is not part of the graph."""
        if get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (nn.Conv2d, FoldedNorm, KnownReLU, KnownReLU6))
        return own or super().is_leaf_module(m, module_qualified_name)


def _rectifies(node: fx.Node, modules: Modules) -> str:
    """The activation that a node computes, or "none"."""
    key = type(modules[str(node.target)]) if node.op == "call_module" else node.target
    return _RELUS.get(key, "")


def _leave_out(graph: fx.Graph, modules: Modules) -> None:
    """Remove the batch norms and ReLUs that a convolution does."""
    for node in list(graph.nodes):
        if node.op != "call_module" or len(node.args) != 1:
            continue
        before = convolution(node.args[0], modules)
        done = before is not None and before.activation == _rectifies(node, modules)
        if done or type(modules[str(node.target)]) is FoldedNorm:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _add_residuals(graph: fx.Graph, modules: Modules) -> None:
    """Let convolutions compute sums of their output and an earlier tensor."""
    for node in list(graph.nodes):
        found = _summand(node, modules)
        if found is None:
            continue
        convolution, residual = found
        with graph.inserting_before(node):
            made = graph.call_module(str(convolution.target), (*convolution.args, residual))
        node.replace_all_uses_with(made)
        graph.erase_node(node)
        graph.erase_node(convolution)


def _rectify(graph: fx.Graph, modules: Modules) -> None:
    """Let convolutions compute the ReLUs that are the only readers of their output."""
    for node in list(graph.nodes):
        module = convolution(node, modules)
        if module is None or module.activation != "none" or len(node.users) != 1:
            continue
        after = next(iter(node.users))
        activation = _rectifies(after, modules)
        if activation and after.args[:1] == (node,):
            node.meta["activation"] = activation
            after.replace_all_uses_with(node)
            graph.erase_node(after)


def _summand(node: fx.Node, modules: Modules) -> tuple[fx.Node, fx.Node] | None:
    """The convolution that can compute a sum (a sparse one if possible), and the other summand."""
    operands: Any = node.args
    if node.op == "call_module" or node.target not in _ADDS or node.kwargs or not node.users:
        return None
    if len(operands) != 2 or not all(isinstance(operand, fx.Node) for operand in operands):
        return None
    order = {each: place for place, each in enumerate(node.graph.nodes)}
    fitting: list[tuple[bool, int, fx.Node, fx.Node]] = []
    for operand, other in (operands, operands[::-1]):
        module = convolution(operand, modules)
        if module is None or module.activation != "none" or len(operand.args) > 1:
            continue
        if (
            len(operand.users) > 1
            or operand is other
            or (node.target in _ONTO_FIRST and operand is operands[1])
        ):
            continue
        if not _changed(operand, node, modules):
            fitting.append((isinstance(module, SparseConv2d), order[operand], operand, other))
    return max(fitting)[2:] if fitting else None


def _changes(node: fx.Node, modules: Modules) -> bool:
    """Whether a node may change an earlier tensor."""
    if node.op == "call_module":
        return getattr(modules[str(node.target)], "inplace", False) is True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = node.target is operator.iadd or (name.endswith("_") and not name.startswith("__"))
    return node.op in ("call_function", "call_method") and (
        in_place or bool(node.kwargs.get("inplace")) or name in ("imul", "isub", "itruediv", "setitem")
    )


def _changed(first: fx.Node, last: fx.Node, modules: Modules) -> bool:
    """Whether anything between two nodes may change a tensor."""
    node = first.next
    while node is not last:
        if _changes(node, modules):
            return True
        node = node.next
    return False


def _bind(graph: fx.Graph, modules: Modules) -> None:
    """Turn convolutions into function calls. Residual, activation and reader are arguments."""
    for node in list(graph.nodes):
        module = convolution(node, modules)
        if module is None:
            continue
        reader, alone = _reader(node, modules)
        function = _call(module, node.meta.get("activation", module.activation), reader, alone)
        with graph.inserting_before(node):
            made = graph.call_function(function, node.args)
        node.replace_all_uses_with(made)
        graph.erase_node(node)


def _call(
    module: FastConv2d, activation: str, reader: SparseConv2d | None, alone: bool
) -> Callable[..., Tensor]:
    def convolve(x: Tensor, residual: Tensor | None = None) -> Tensor:
        return module.compute(x, residual, activation, reader, alone)

    return convolve


def _reader(node: fx.Node, modules: Modules) -> tuple[SparseConv2d | None, bool]:
    """The convolution that reads a sparse one's lists, and whether nothing else needs the output."""
    module = convolution(node, modules)
    if isinstance(module, SparseConv2d):
        for user in node.users:
            reader = convolution(user, modules)
            if (
                isinstance(reader, SparseConv2d)
                and user.args[0] is node
                and module.can_feed(reader)
                and not _changed(node, user, modules)
            ):
                return reader, len(node.users) == 1 and node not in user.args[1:]
    return None, False
