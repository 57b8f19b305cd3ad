"""Chains in the traced graph of a network."""

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from dnnjpeg.sparse.chain import Chain, Link
from dnnjpeg.sparse.dense import OURS, DenseConv2d
from dnnjpeg.sparse.fast import FastConv2d
from dnnjpeg.sparse.links import Modules, convolution
from dnnjpeg.sparse.module import SparseConv2d


def convolve_shortcuts(graph: fx.Graph, modules: Modules) -> None:
    """Turn shortcuts of residual blocks that skip pixels and add channels into 1x1 convolutions of ours.

    They are F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, after)), x an output of a convolution of ours. So
    no other code comes between the convolutions, which makes them a single chain.
    """
    for node in list(graph.nodes):
        given: Any = node.args[0] if node.target is F.pad else None
        if not isinstance(given, fx.Node) or given.target is not operator.getitem:
            continue
        source, index = given.args
        module, steps, added = convolution(source, modules), _steps(index), _added(node)
        if module is None or not _is_ours(module) or steps is None or added is None:
            continue
        channels = module.out_channels
        conv = nn.Conv2d(channels, channels + sum(added), 1, steps, bias=False).requires_grad_(False)
        conv.weight[:] = F.pad(torch.eye(channels), (0, 0, *added))[..., None, None]
        made = DenseConv2d.of(conv, channels_last=True)
        made.method = "direct"
        modules[node.name] = made
        with graph.inserting_before(node):
            call = graph.call_module(node.name, (source,))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        if not given.users:
            graph.erase_node(given)


def _steps(index: Any) -> tuple[int, int] | None:
    """The steps of an index [:, :, ::rows, ::columns], or None for another."""
    if not isinstance(index, tuple) or len(index) != 4 or not all(isinstance(part, slice) for part in index):
        return None
    rows, columns = index[2].step or 1, index[3].step or 1
    known = isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0
    wanted = (slice(None), slice(None), slice(None, None, index[2].step), slice(None, None, index[3].step))
    return (rows, columns) if known and index == wanted else None


def _added(node: fx.Node) -> tuple[int, int] | None:
    """The channels of zeros that F.pad adds before and after, or None if it does anything else."""
    args: Any = node.args
    _, border, *rest = args
    plain = {"mode": "constant", "value": None, **node.kwargs} == {"mode": "constant", "value": None}
    if rest or not plain or not isinstance(border, (tuple, list)) or len(border) != 6 or any(border[:4]):
        return None
    before, after = border[4:]
    known = isinstance(before, int) and isinstance(after, int) and min(before, after) >= 0
    return (before, after) if known else None


def _is_ours(module: FastConv2d | None) -> bool:
    """Whether a chain may have a convolution."""
    if module is None or module.channels_last is not True:
        return False
    return isinstance(module, SparseConv2d) or (isinstance(module, DenseConv2d) and module.method in OURS)


def join(graph: fx.Graph, modules: Modules) -> None:
    """Turn dense convolutions of ours that follow each other into one function call."""
    runs: list[list[fx.Node]] = [[]]
    for node in graph.nodes:
        if _is_ours(convolution(node, modules)):
            runs[-1].append(node)
        elif runs[-1]:
            runs.append([])
    for run in runs:
        if len(run) < 2:
            continue
        inputs = list(dict.fromkeys(arg for node in run for arg in node.args if arg not in run))
        tensors = [*inputs, *run]
        links = []
        for node in run:
            called: Any = modules[str(node.target)]
            source, *residual = map(tensors.index, node.args)
            activation = node.meta.get("activation", called.activation)
            links.append(Link(called, activation, source, *residual))
        outputs = [node for node in run if any(user not in run for user in node.users)]
        chain = Chain(links, list(map(tensors.index, outputs)))
        with graph.inserting_before(run[0]):
            made = graph.call_function(chain.__call__, tuple(inputs))
            results = (
                [made]
                if len(outputs) == 1
                else [graph.call_function(operator.getitem, (made, i)) for i in range(len(outputs))]
            )
        for node, result in zip(outputs, results, strict=True):
            node.replace_all_uses_with(result)
        for node in reversed(run):
            graph.erase_node(node)
