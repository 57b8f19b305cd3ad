"""Check that the layers joined by a plan follow each other in the network."""

import builtins
from collections.abc import Sequence

from torch import fx, nn

from dnnjpeg.sparse.fused import Fused, Tracer
from dnnjpeg.sparse.layer import LayerPlan


def check_order(model: nn.Module, layers: Sequence[LayerPlan]) -> None:
    """Check that each batch norm, ReLU or convolution in a plan is the only reader of its layer's output.

    Otherwise the network would compute something else, and ValueError names the field. A network that
    `torch.fx` cannot trace is not checked.
    """
    if not isinstance(model.__dict__.get("forward", None), Fused | None):
        return
    try:
        graph = Tracer().trace(model)
    except Exception:  # of fx, and of the network's own Python, which is run without numbers
        return
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    for layer in layers:
        before = calls.get(layer.name, [])
        for role in ("norm", "relu", "onward"):
            name = getattr(layer, role)
            if name is None:
                continue
            after = _readers(before[0]) if len(before) == 1 else []
            known = len(after) == 1 and after[0].op == "call_module" and after[0].target == name
            if not known or (role != "relu" and len(calls[name]) > 1):
                raise ValueError(
                    f"{layer.name}: {role} is {name!r}, which is not the only module after it: "
                    "the plan was made for another network"
                )
            before = after


def _readers(node: fx.Node) -> list[fx.Node]:
    """The nodes that read more of a tensor than its shape."""
    return [
        user
        for user in node.users
        if not (user.target is builtins.getattr and user.args[1] in ("shape", "ndim", "dtype", "device"))
        and not (user.op == "call_method" and user.target in ("size", "dim", "numel"))
    ]
