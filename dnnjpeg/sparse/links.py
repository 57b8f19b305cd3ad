"""Pooling, means and linear layers beside convolutions, as links of a chain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dnnjpeg.sparse.compiled import Compiled
from dnnjpeg.sparse.dense import DenseConv2d
from dnnjpeg.sparse.fast import FastConv2d, fits
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.pool import Pool
from dnnjpeg.sparse.uncompiled import uncompiled

if TYPE_CHECKING:
    from dnnjpeg.sparse.module import SparseConv2d

Modules = dict[str, nn.Module]


def convolution(value: Any, modules: Modules) -> FastConv2d | None:
    """The planned convolution that a node calls."""
    if not isinstance(value, fx.Node) or value.op != "call_module" or not value.args or value.kwargs:
        return None
    module = modules[str(value.target)]
    return module if isinstance(module, FastConv2d) else None


class Pooling(DenseConv2d):
    """Pooling, as if it were a depthwise convolution. torch computes what is not float32 on the CPU."""

    own: Callable[[Tensor], Tensor]  # how torch computes it
    whole: bool  # whether it is the mean of whole maps, otherwise the largest number of windows
    method = "direct"

    @classmethod
    def made(cls, channels: int, own: nn.MaxPool2d | Callable[[Tensor], Tensor]) -> Self:
        """Make it from a layer, or from a function that computes the means of maps of so many channels."""
        size, stride, padding = (
            (own.kernel_size, own.stride, own.padding) if isinstance(own, nn.MaxPool2d) else (1, 1, 0)
        )
        conv = nn.Conv2d(channels, channels, size, stride, padding, groups=channels, bias=False)
        made = cls.of(conv.requires_grad_(False), channels_last=True)
        object.__setattr__(made, "own", own)  # no submodule
        made.whole = not isinstance(own, nn.MaxPool2d)
        return made

    def kernel(self, shape: tuple[int, ...]) -> Compiled:
        """The kernel for float32 inputs of this shape on the CPU."""
        found: Compiled | None = self._ready.get(shape)
        if found is None:
            self._make_room()
            channels, height, width = shape[1:]
            means = Geometry(channels, height, width, channels, (height, width), groups=channels)
            geometry = means if self.whole else self._geometry(shape)
            found = self._ready[shape] = Pool(geometry, largest=not self.whole)
        return found

    @uncompiled
    def compute(
        self,
        x: Tensor,
        residual: Tensor | None,
        activation: str,
        reader: "SparseConv2d | None",
        alone: bool,
    ) -> Tensor:
        """See `FastConv2d.compute`. There is never a residual or an activation."""
        if torch.is_grad_enabled() or not fits(x):
            return self.own(x)
        return self.kernel(x.shape)(x, torch.get_num_threads())


class Linear(DenseConv2d):
    """A linear layer, as if it were a 1x1 convolution of maps of one pixel."""

    method = "direct"

    @classmethod
    def made(cls, module: nn.Linear) -> Self:
        """Make it from a layer, with its parameters."""
        made = cls.of(nn.Conv2d(module.in_features, module.out_features, 1), channels_last=True)
        made._parameters = module._parameters
        return made

    def folded(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = super().folded()
        return weight[..., None, None], bias


def link(graph: fx.Graph, modules: Modules) -> None:
    """Turn pooling after planned convolutions, and linear layers after means, into links of a chain."""
    for node in list(graph.nodes):
        source: Any = node.args[0] if node.args else None
        before = convolution(source, modules)
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(module) is nn.Linear and (pooled := _flattened(source, modules)):
            _replace(graph, node, modules, Linear.made(module), pooled, flat=True)
            if not source.users:
                graph.erase_node(source)
        elif before is None or before.channels_last is not True:
            continue
        elif type(module) is nn.MaxPool2d and _is_plain(module):
            _replace(graph, node, modules, Pooling.made(before.out_channels, module), source)
        elif (flat := _mean(node, module)) is not None:
            _replace(graph, node, modules, Pooling.made(before.out_channels, _means), source, flat)


def _replace(
    graph: fx.Graph, node: fx.Node, modules: Modules, made: DenseConv2d, source: fx.Node, flat: bool = False
) -> None:
    """Put a module in the place of a node. flat: the node has no rows and columns."""
    name = f"{node.name}_link"
    modules[name] = made
    with graph.inserting_before(node):
        call = graph.call_module(name, (source,))
        node.replace_all_uses_with(graph.call_function(torch.flatten, (call, 1)) if flat else call)
    graph.erase_node(node)


def _means(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _is_plain(module: nn.MaxPool2d) -> bool:
    return module.dilation in (1, (1, 1)) and not module.ceil_mode and not module.return_indices


def _mean(node: fx.Node, module: nn.Module | None) -> bool | None:
    """Whether a node computes the means of maps without keeping rows and columns, or None if it does not."""
    if type(module) is nn.AdaptiveAvgPool2d:
        return False if module.output_size in (1, (1, 1)) else None
    if node.target is F.adaptive_avg_pool2d:
        return False if node.args[1:] in ((1,), ((1, 1),)) and not node.kwargs else None
    if node.target not in ("mean", torch.mean):
        return None
    given = dict(zip(("dim", "keepdim"), node.args[1:], strict=False)) | node.kwargs
    axes, keepdim = given.pop("dim", None), given.pop("keepdim", False)
    if given or not isinstance(axes, (tuple, list)) or not isinstance(keepdim, bool):
        return None
    known = len(axes) == 2 and all(isinstance(axis, int) for axis in axes)
    return not keepdim if known and {axis % 4 for axis in axes} == {2, 3} else None


def _flattened(node: Any, modules: Modules) -> fx.Node | None:
    """The node that computes means and is flattened here, or None."""
    if not isinstance(node, fx.Node) or node.kwargs:
        return None
    module = modules[str(node.target)] if node.op == "call_module" else None
    by_module = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    by_function = node.target in (torch.flatten, "flatten") and node.args[1:] == (1,)
    if not by_module and not by_function:
        return None
    pooled: Any = node.args[0]
    source = convolution(pooled, modules)
    return pooled if isinstance(source, Pooling) and source.whole else None
