"""Choosing how each convolution of a network runs, by measuring on real inputs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dnnjpeg.machine.processors import cache_size
from dnnjpeg.sparse import im2col, mec
from dnnjpeg.sparse.clock import clock
from dnnjpeg.sparse.dense import DENSE, OURS, DenseConv2d, dense_methods
from dnnjpeg.sparse.fast import FastConv2d
from dnnjpeg.sparse.geometry import Geometry, is_plain
from dnnjpeg.sparse.im2col import padded
from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.plan import (
    LayerPlan,
    Plan,
    conditions,
    install,
    modules_of,
    original,
    restore_,
    without_sparse,
)
from dnnjpeg.sparse.report import LayerReport, Report
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.tiling import SPARSE, Tiling, tilings
from dnnjpeg.sparse.trace import Site, sites

MARGIN = 0.97  # of the best dense time: slower methods are not used, as the gain is uncertain
LARGE = 0.85  # of the time of our best dense method: faster ones gain, though they cannot follow each other
CLEAR = 0.7  # of the best dense time: the cautious plan has what is faster
CALL = 0.08  # milliseconds to leave a chain of our dense methods for Python, and to come back
TOLERANCE = 1e-3  # of the largest output: a plan that changes the output more is not used
TRIED = 5  # tilings of a layer with patterns; the likeliest of them is tried with numbers too

Progress = Callable[[Sequence[Site]], Any]


def optimize_(
    model: nn.Module,
    example_inputs: Tensor | tuple[Any, ...],
    *,
    seconds: float = 0.15,
    progress: Progress = lambda sites: sites,
) -> Report:
    """Measure all methods for each convolution of a model, and use the fastest. `restore_` undoes it.

    model: in eval mode, on the CPU, float32. Its modules are replaced in place. Parameters and state dict
        stay.
    example_inputs: arguments of the model. Use real inputs, because the speed depends on their zeros.
    seconds: time to measure each layer. The whole network takes ten times as long.
    progress: wraps the sequence of layers, for example tqdm.

    Every method folds batch norms into the convolutions before them, and applies ReLUs. If `torch.fx` can
    trace the network, it runs as one graph (see `fused.Fused`). At the end, the whole network is measured. A
    plan that is not faster than the unchanged network is not used.

    With one thread, processor time is measured, with several threads wall time. Raises ValueError if the
    model is in training mode, and all errors of the model.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    restore_(model)
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    found = sites(model, inputs)
    with torch.inference_mode():
        others = _others(model)
        layers = [_measure(site, others, seconds) for site in progress(found)]
    batch = int(found[0].input.shape[0]) if found else 1
    plan = Plan(tuple(map(_planned, found, layers)), conditions(batch))
    plan = _joined(plan, {site.name: site.onward for site in found if site.relu}, layers)
    dense = without_sparse(plan, {layer.name: _dense(layer.times) for layer in layers})
    plans = {
        "original": replace(plan, layers=()),
        "dense": dense,
        "plan": plan,
        "cautious": _cautious(plan, dense, layers),
    }
    return _settle(model, inputs, plans, layers, 10 * seconds)


def _others(model: nn.Module) -> Tensor:
    """As much memory as a network reads between two calls of a layer, or as the second caches hold twice."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return torch.zeros(min(weights, 2 * cache_size(2) * torch.get_num_threads() // 4))


def _measure(site: Site, others: Tensor, seconds: float) -> LayerReport:
    """Measure a layer as it is in the network: its input was just made, and all else left the caches.

    others: see `_others`.
    """
    module, geometry = site.module, site.geometry
    x = site.input.contiguous(memory_format=torch.channels_last)
    zeros = float((x == 0).float().mean())
    norm: Any = site.norm_module
    options: dict[str, Any] = {
        "norm": norm,
        "activation": site.activation,
        "channels_last": True,
        "geometry": None if is_plain(module) else geometry,
    }
    mirrored = [
        x.flip(axes).contiguous(memory_format=torch.channels_last) for axes in ((), (2,), (3,), (2, 3))
    ]
    convolutions: dict[Any, FastConv2d] = {}
    sparse = geometry.groups == 1 and tuple(module.dilation) == (1, 1)
    for method in dense_methods(module):
        convolutions[method] = dense = DenseConv2d.of(module, **options)
        dense.method = method
    if sparse:
        for tiling in _to_try(geometry, zeros):
            ring = SparseConv2d.of(module, **options)
            ring.tiling, ring.min_zeros = tiling, 0.0
            convolutions[tiling] = ring
    shape = (len(x), geometry.filters, *geometry.output)
    residual = torch.zeros(shape).contiguous(memory_format=torch.channels_last)
    given = x

    def between() -> None:
        nonlocal given
        given = next(turn)
        others.add_(1)
        given.amax()

    def run(made: FastConv2d) -> Callable[[], Tensor]:
        if site.is_summed:
            return lambda: made.compute(given, residual, "relu", None, False)
        return lambda: made(given)

    # all get the same in turn: a single input's branches would be predicted
    turn = cycle([x for x in mirrored for _ in convolutions])
    times = clock({key: run(made) for key, made in convolutions.items()}, seconds, between)
    tiles = {key: value for key, value in times.items() if isinstance(key, Tiling)}
    by_method = {key: value for key, value in times.items() if isinstance(key, str)}
    for tiling, value in tiles.items():
        by_method[tiling.method] = min(value, by_method.get(tiling.method, value))
    report = LayerReport(site.name, geometry, zeros, by_method, "", 0.0, {}, tiles)
    report.choice = _dense(by_method)
    if sparse:
        best = _fastest(by_method, tuple(SPARSE))
        if by_method[best] < MARGIN * by_method[report.choice]:
            report.choice = best
        report.compression_ratios = _ratios(x, module.weight, report)
    chosen = convolutions[_best_tiling(report, report.choice) or report.choice]
    weight, bias = chosen.folded()
    expected = F.conv2d(
        padded(x.double(), geometry),
        weight.double(),
        None if bias is None else bias.double(),
        module.stride,
        0,
        module.dilation,
        module.groups,
    )
    if site.relu:
        expected = expected.clamp(0, 6) if site.activation == "relu6" else expected.relu()
    report.difference = _difference(chosen(x), expected)
    return report


def _to_try(geometry: Geometry, zeros: float) -> list[Tiling]:
    best = tilings(geometry, True, zeros)[:TRIED]
    return [*best, best[0]._replace(patterns=False)]


def _fastest(times: dict[str, float], methods: Sequence[str]) -> str:
    return min((name for name in methods if name in times), key=lambda name: times[name])


def _dense(times: dict[str, float]) -> str:
    """The fastest dense method, or one of ours that is nearly as fast: they gain by following each other."""
    ours = [name for name in OURS if name in times]
    best = _fastest(times, DENSE)
    own = _fastest(times, ours) if ours else best
    return best if times[best] < LARGE * times[own] - CALL else own


def _best_tiling(layer: LayerReport, method: str) -> Tiling | None:
    own = [tiling for tiling in layer.tilings if tiling.method == method]
    return min(own, key=lambda tiling: layer.tilings[tiling]) if own else None


def _ratios(x: Tensor, weights: Tensor, layer: LayerReport) -> dict[str, float]:
    """Compression ratios of the methods that change the form of the input."""
    geometry = layer.geometry
    ratios = {
        "im2col": im2col.compress(x, geometry).compression_ratio,
        "mec": mec.compress(x, geometry).compression_ratio,
    }
    for method in SPARSE:
        tiling = _best_tiling(layer, method)
        assert tiling is not None
        lists = RingConvolution(geometry, weights, None, tiling).compress(x)
        ratios[method] = len(x) * geometry.im2col_elements / lists.memory().elements
    return ratios


def _planned(site: Site, layer: LayerReport) -> LayerPlan:
    tiling = _best_tiling(layer, layer.choice)
    min_zeros, dense = 0.0, _fastest(layer.times, DENSE)
    if tiling:
        # time grows with the non-zeros: how many more there may be before dense is faster
        gain = layer.times[dense] / layer.times[layer.choice]
        min_zeros = round(max(0.0, 1 - (1 - layer.zeros) * gain), 3)
    return LayerPlan(
        site.name, layer.geometry, layer.choice, tiling, min_zeros, site.norm, site.relu, dense=dense
    )


def _joined(plan: Plan, readers: dict[str, str | None], layers: Sequence[LayerReport]) -> Plan:
    """The plan with sparse layers joined by lists, if they follow each other and their tilings allow it."""
    planned = {layer.name: layer for layer in plan.layers}
    reports = {layer.name: layer for layer in layers}
    for name, reader in readers.items():
        if reader is None or reader not in planned:
            continue
        first, second = planned[name], planned[reader]
        if first.tiling is None or second.tiling is None:
            continue
        times = reports[reader].tilings
        fitting = [tiling for tiling in times if first.tiling.can_feed(tiling)]
        best = min(fitting, key=lambda tiling: times[tiling], default=None)
        if best and times[best] < 1.03 * times[second.tiling]:
            planned[reader] = replace(second, tiling=best, method=best.method)
            planned[name] = replace(first, onward=reader)
            reports[reader].choice = best.method
    return replace(plan, layers=tuple(planned[layer.name] for layer in plan.layers))


def _cautious(plan: Plan, dense: Plan, layers: Sequence[LayerReport]) -> Plan:
    """The plan for layers that gain much, and the dense plan for the others.

    A layer that is measured alone has the caches to itself, so small gains are uncertain.
    """
    kept = {
        layer.name
        for layer in layers
        if layer.choice in SPARSE
        and layer.times[layer.choice] < CLEAR * layer.times[_fastest(layer.times, DENSE)]
    }
    mixed = [
        replace(ours, onward=ours.onward if ours.onward in kept else None) if ours.name in kept else theirs
        for ours, theirs in zip(plan.layers, dense.layers, strict=True)
    ]
    return replace(plan, layers=tuple(mixed))


def _settle(
    model: nn.Module,
    inputs: tuple[Any, ...],
    plans: dict[str, Plan],
    layers: list[LayerReport],
    seconds: float,
) -> Report:
    """Measure the network with each plan, and leave it with the fastest."""
    own = original(model)
    modules = {name: modules_of(own, one) for name, one in plans.items()}
    with torch.inference_mode():
        expected = _tensor(model(*inputs))
        differences = {"original": 0.0}
        for name in ("dense", "plan", "cautious"):
            for fused in (True, False):
                try:
                    install(model, modules[name], fused)
                    y = _tensor(model(*inputs))
                except Exception:  # of fx, and of the network's own Python, which may not run as a graph
                    restore_(model)
                    if fused:
                        continue
                    raise
                plans[name] = replace(plans[name], fused=fused)
                differences[name] = _difference(y, expected)
                if differences[name] <= TOLERANCE:
                    break

        def run(name: str) -> Callable[[], Any]:
            def call() -> None:
                model(*inputs)

            call.prepare = lambda: install(model, modules[name], plans[name].fused)  # type: ignore[attr-defined]
            return call

        usable = [name for name, value in differences.items() if value <= TOLERANCE]
        network = clock({name: run(name) for name in usable}, seconds)
    choice = min(usable, key=lambda name: network[name])
    install(model, modules[choice], plans[choice].fused)
    if choice == "original":
        restore_(model)
    return Report(plans[choice], layers, network, choice, differences[choice])


def _difference(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).abs().max()) / max(1e-30, float(expected.abs().max()))


def _tensor(output: Any) -> Tensor:
    """The first tensor of an output."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
