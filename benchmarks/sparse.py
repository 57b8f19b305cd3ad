"""Speed and memory of sparse convolution beside im2col, MEC and torch: single layers, and whole networks.

    python benchmarks/sparse.py layers
    python benchmarks/sparse.py published --name sparse-znver3
    DNNJPEG_DATA=folder python benchmarks/sparse.py networks
    python benchmarks/sparse.py show

`layers` times the ring kernel with its two kinds of lists, `published` also CPO and CPS in the order that was
published. Everything that is compared takes turns in one process. With one thread, processor time is
measured, with several wall time. Compressing the input is part of the time, and the memory is that of what
it makes. Results go to benchmarks/results/NAME.json, item by item: what is there is measured again only with
--again, or, where other guests of the host make the machine slower for minutes, several times with --least.
Each processor has a file of its own, named sparse and what follows; `show` prints the first in full, sums up
those with layers, and prints the networks of the others, and what is published wherever it was measured.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import torch
from common import RESULTS, write
from sparse_tables import as_markdown, by_processor, networks_table, published_table
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.sparse import apply_, cpo, cps, im2col, mec, optimize_, restore_
from dnnjpeg.sparse.clock import clock
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import Lists
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.select import TRIED
from dnnjpeg.sparse.tiling import SPARSE, Tiling, tilings

LAYERS = {
    "64x56x56->64 3x3": Geometry(64, 56, 56, 64, (3, 3), (1, 1), (1, 1)),
    "128x28x28->128 3x3": Geometry(128, 28, 28, 128, (3, 3), (1, 1), (1, 1)),
    "256x14x14->256 3x3": Geometry(256, 14, 14, 256, (3, 3), (1, 1), (1, 1)),
    "512x7x7->512 3x3": Geometry(512, 7, 7, 512, (3, 3), (1, 1), (1, 1)),
    "96x27x27->256 5x5": Geometry(96, 27, 27, 256, (5, 5), (1, 1), (2, 2)),
    "192x17x17->192 1x7": Geometry(192, 17, 17, 192, (1, 7), (1, 1), (0, 3)),
    "192x17x17->192 7x1": Geometry(192, 17, 17, 192, (7, 1), (1, 1), (3, 0)),
    "64x56x56->128 3x3 stride 2": Geometry(64, 56, 56, 128, (3, 3), (2, 2), (1, 1)),
    "32x16x16->32 3x3": Geometry(32, 16, 16, 32, (3, 3), (1, 1), (1, 1)),
}
ZEROS = (0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 0.95)
NETWORKS = ("cifar_resnet20", "cifar_resnet56", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v1_075")
PUBLISHED_ZEROS = (0.5, 0.8, 0.95)
INPUTS = 8  # that take turns: of one alone a processor learns by heart where its lists end
Pair = tuple[Tensor, Tensor]  # an input with channels first, and with channels last


def measure_layer(
    geometry: Geometry, zeros: float, seconds: float, published: bool = False
) -> dict[str, Any]:
    """Milliseconds by method, tilings chosen beforehand; memory of what each makes of an input; largest
    difference of the ring kernel.
    """
    random = torch.Generator().manual_seed(0)
    shape = (1, geometry.channels, geometry.height, geometry.width)
    inputs = []  # channels first, and last
    for _ in range(INPUTS):
        first = torch.randn(shape, generator=random).abs()
        first[torch.rand(shape, generator=random) < zeros] = 0
        inputs.append((first, first.contiguous(memory_format=torch.channels_last)))
    first, last = inputs[0]
    weights = torch.randn(geometry.filters, *shape[1:2], *geometry.kernel, generator=random)
    bias = torch.randn(geometry.filters, generator=random)

    def measure(functions: dict[Any, Callable[[Pair], Tensor]], seconds: float) -> dict[Any, float]:
        return clock({key: over(inputs, function) for key, function in functions.items()}, seconds)

    candidates = {
        tiling: ring(geometry, weights, bias, tiling) for tiling in tilings(geometry, True, zeros)[:TRIED]
    }
    times = measure({tiling: run for tiling, (run, _) in candidates.items()}, seconds / 2)
    best = min(times, key=lambda tiling: times[tiling])
    runs, makers = peers(geometry, weights, bias), {"im2col": im2col.compress, "mec": mec.compress}
    if published:
        makers |= {"cpo": cpo.compress, "cps": cps.compress}
        runs["cpo"] = lambda x: cpo.convolve(cpo.compress(x[0], geometry), weights)
        runs["cps"] = lambda x: cps.convolve(cps.compress(x[0], geometry), weights)
    memory = {name: compress(first, geometry).memory() for name, compress in makers.items()}
    for tiling in (best._replace(patterns=False), best):
        runs[tiling.method], compress = ring(geometry, weights, bias, tiling)
        memory[tiling.method] = compress(last).memory()
    found = measure(runs, seconds)
    found["im2col"] = min(found.pop("im2col_last"), found["im2col"])
    expected = F.conv2d(first.double(), weights.double(), bias.double(), geometry.stride, geometry.padding)
    differences = [(runs[method](inputs[0]) - expected).abs().max() for method in SPARSE]
    return {
        "milliseconds": {name: round(value, 4) for name, value in found.items()},
        "elements": {name: value.elements for name, value in memory.items()},
        "bytes": {name: value.bytes for name, value in memory.items()},
        "difference": float(max(differences) / expected.abs().max()),
    }


def over(inputs: Iterable[Pair], function: Callable[[Pair], Any]) -> Callable[[], Any]:
    """Call the function with each input in turn. For a single input, branches would be predicted."""
    turn = cycle(inputs)
    return lambda: function(next(turn))


def ring(
    geometry: Geometry, weights: Tensor, bias: Tensor, tiling: Tiling
) -> tuple[Callable[[Pair], Tensor], Callable[[Tensor], Lists]]:
    """The ring kernel with a tiling, compression included; and the compression."""
    layer = RingConvolution(geometry, weights, bias, tiling, threads=torch.get_num_threads())

    def run(x: Pair) -> Tensor:
        y, _ = layer.convolve(layer.compress(x[1]))
        assert y is not None
        return y

    return run, layer.compress


def peers(geometry: Geometry, weights: Tensor, bias: Tensor) -> dict[str, Callable[[Pair], Tensor]]:
    """Each with the layout that suits it."""
    stride, padding = list(geometry.stride), list(geometry.padding)
    weights_last = weights.contiguous(memory_format=torch.channels_last)
    shape = [1, geometry.channels, geometry.height, geometry.width]
    packed = torch.ops.mkldnn._reorder_convolution_weight(weights.clone(), padding, stride, [1, 1], 1, shape)
    pointwise = torch.ops.mkldnn._convolution_pointwise
    return {
        "torch": lambda x: F.conv2d(x[0], weights, bias, stride, padding),
        "channels_last": lambda x: F.conv2d(x[1], weights_last, bias, stride, padding),
        "prepacked": lambda x: pointwise(x[1], packed, bias, padding, stride, [1, 1], 1, "none", [], ""),
        "im2col": lambda x: im2col.convolve(im2col.compress(x[0], geometry), weights),
        "im2col_last": lambda x: im2col.convolve(im2col.compress(x[1], geometry), weights),
        "mec": lambda x: mec.convolve(mec.compress(x[1], geometry), weights),
    }


def measure_network(name: str, seconds: float) -> dict[str, Any]:
    """Milliseconds of the network as it is, compiled by torch, in ONNX Runtime and OpenVINO, and with the
    plan, on real pictures that take turns; the plan is made for the first.
    """
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.networks.load import load_network

    data = Path(os.environ["DNNJPEG_DATA"])
    spec = f"{data / 'models' / 'zoo.py'}:{name}"
    network = load_network(spec)
    size = network.preprocess.size
    folder = data / "data" / ("cifar10/test_0000.png" if size == 32 else "imagenet/val")
    if size == 32:
        import numpy as np
        from PIL import Image

        pictures = np.asarray(Image.open(folder)).reshape(-1, 32, 32, 3)[:INPUTS]
    else:
        pictures = load_dataset(folder, folder.with_suffix(".csv"), size=size, limit=INPUTS).pictures
    given: list[Any] = []
    hook = network.module.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    for picture in pictures:
        network.read(picture[None])
    hook.remove()
    module = network.module
    report = optimize_(module, given[0])
    restore_(module)
    inputs = [(x.contiguous(), x) for x in given]
    eager_first = load_network(spec).module.to(memory_format=torch.contiguous_format)
    compiled = torch.compile(load_network(spec).module, dynamic=False)
    planned = load_network(spec).module
    apply_(planned, report.plan)
    functions: dict[str, Callable[[Pair], Any]] = {
        "eager": lambda x: eager_first(x[0]),
        "eager_channels_last": lambda x: module(x[1]),
        "compiled": lambda x: compiled(x[1]),
        **servers(eager_first, inputs[0][0]),
        "plan": lambda x: planned(x[1]),
    }
    found = clock({name: over(inputs, function) for name, function in functions.items()}, seconds)
    convolutions = [layer.times for layer in report.layers]
    saving = {
        method: sum(times.get(method, times["torch"]) for times in convolutions)
        for method in ("im2col", "torch", "channels_last", "prepacked")
    }
    saving["plan"] = sum(layer.times[layer.choice] for layer in report.layers)
    return {
        "milliseconds": {key: round(value, 4) for key, value in found.items()},
        "convolutions": {key: round(value, 4) for key, value in saving.items()},
        "difference": report.difference,
        "report": report.to_json(),
    }


def servers(module: torch.nn.Module, example: Tensor) -> dict[str, Callable[[Pair], Any]]:
    """The network in ONNX Runtime and in OpenVINO, in float32, on as many threads as torch has; those that
    are installed.
    """
    threads = torch.get_num_threads()
    found: dict[str, Callable[[Pair], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "network.onnx")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(module, (example,), file, external_data=False, verbose=False)
        with suppress(ImportError):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 3
            session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            found["onnxruntime"] = lambda x: session.run(None, {name: x[0].numpy()})
        with suppress(ImportError):
            import openvino

            hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
            request = openvino.Core().compile_model(file, "CPU", hints).create_infer_request()
            found["openvino"] = lambda x: request.infer([x[0].numpy()])
    return found


def _load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {part: found.get(part, {}) for part in ("layers", "networks", "published")}


ONLY = click.option("--only", multiple=True, type=click.Choice(list(LAYERS)))
AGAIN = click.option("--again", is_flag=True, help="Also what was measured before.")
FILE = click.option("--name", "file", default="sparse", show_default=True, help="Of the file of results.")


@click.group()
def main() -> None:
    """Measure, or show what was measured."""


@main.command()
@click.option("--threads", type=int, default=1, show_default=True)
@click.option(
    "--seconds", type=float, default=1, show_default=True, help="For each layer and share of zeros."
)
@ONLY
@AGAIN
@click.option("--least", is_flag=True, help="Measure again, and keep the lesser time of each method.")
@FILE
def layers(threads: int, seconds: float, only: tuple[str, ...], again: bool, least: bool, file: str) -> None:
    """Single layers."""
    torch.set_num_threads(threads)
    for name in only or LAYERS:
        results = _load(file)
        place = results["layers"].setdefault(str(threads), {})
        if name not in place or again or least:
            with torch.inference_mode():
                row = {str(zeros): measure_layer(LAYERS[name], zeros, seconds) for zeros in ZEROS}
            if least and name in place:
                for zeros, item in row.items():
                    times, before = item["milliseconds"], place[name][zeros]["milliseconds"]
                    times |= {key: min(times[key], before[key]) for key in times}
            place[name] = row
            results["layers"][str(threads)] = {key: place[key] for key in LAYERS if key in place}
            write(file, {"torch": torch.__version__, **results})


@main.command()
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--seconds", type=float, default=8, show_default=True, help="For each network.")
@click.option("--only", multiple=True, type=click.Choice(NETWORKS))
@AGAIN
@FILE
def networks(threads: int, seconds: float, only: tuple[str, ...], again: bool, file: str) -> None:
    """Whole networks."""
    torch.set_num_threads(threads)
    for name in only or NETWORKS:
        results = _load(file)
        place = results["networks"].setdefault(str(threads), {})
        if name not in place or again:
            with torch.inference_mode():
                place[name] = measure_network(name, seconds)
            results["networks"][str(threads)] = {key: place[key] for key in NETWORKS if key in place}
            write(file, {"torch": torch.__version__, **results})


@main.command()
@click.option(
    "--seconds", type=float, default=5, show_default=True, help="For each layer and share of zeros."
)
@ONLY
@AGAIN
@FILE
def published(seconds: float, only: tuple[str, ...], again: bool, file: str) -> None:
    """Single layers with one thread, and CPO and CPS as published."""
    torch.set_num_threads(1)
    for name in only or LAYERS:
        results = _load(file)
        place = results["published"]
        if name not in place or again:
            with torch.inference_mode():
                place[name] = {
                    str(zeros): measure_layer(LAYERS[name], zeros, seconds, published=True)
                    for zeros in PUBLISHED_ZEROS
                }
            results["published"] = {key: place[key] for key in LAYERS if key in place}
            write(file, {"torch": torch.__version__, **results})


@main.command()
def show() -> None:
    """Print the tables of the site."""
    results = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("sparse*.json"))]
    parts = [as_markdown(_load("sparse")), by_processor([one for one in results if one["layers"]])]
    for one in results:
        if one["networks"] and not one["layers"]:
            title = f"{one['machine']['cpu']}, milliseconds a picture"
            parts.append("\n".join(networks_table(one, title)))
    parts += [published_table(one) for one in results if one.get("published")]
    click.echo("\n\n".join(parts))


if __name__ == "__main__":
    main()
