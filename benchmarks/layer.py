"""What the JPEG layer costs in training: time and memory beside a step of ResNet-18 at 128 x 128 pixels.

taskset -c 0 python benchmarks/layer.py
"""

import time
from collections.abc import Callable
from statistics import median

import click
import networks
import numpy as np
import torch
from common import write
from torch import nn
from torch.nn import functional as F

from dnnjpeg.learn.jpegdl import JPEGLayer
from dnnjpeg.table.library import standard_table

LAYERS = {
    "kappa 5": {"kappa": 5},
    "kappa 1": {"kappa": 1},
    "alpha 5, 255 levels": {"alpha": 5, "levels": 255},
}


def medians(functions: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Milliseconds of this thread's time: they take turns, each after a call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            began = time.thread_time()
            function()
            if turn:
                times[name].append(1000 * (time.thread_time() - began))
    return {name: median(values) for name, values in times.items()}


def kept(function: Callable[[], object]) -> int:
    """Bytes of the tensors that autograd keeps for backward, counted once each."""
    storages: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: storages.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
    ):
        function()
    return sum(x.untyped_storage().nbytes() for x in storages.values())


@click.command()
@click.option("--turns", type=click.IntRange(1), default=9, show_default=True)
@click.option("--batch", type=click.IntRange(2), default=16, show_default=True, help="Pictures a step.")
@click.option("--size", type=click.IntRange(16), default=128, show_default=True, help="Of the pictures.")
def main(turns: int, batch: int, size: int) -> None:
    """Measure, print, and write benchmarks/results/layer.json."""
    torch.set_num_threads(1)
    network = networks.flowers_resnet18().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9)
    labels = torch.arange(batch) % 17
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, 3, size, size))).float()
    pixels = F.avg_pool2d(pixels, 5, 1, 2)  # noise that is not white
    point = standard_table().at(75)

    def step(layer: nn.Module, bfloat16: bool) -> Callable[[], object]:
        def once() -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                inputs = (layer(pixels) / 255).contiguous(memory_format=torch.channels_last)
                loss = F.cross_entropy(network(inputs).float(), labels)
            loss.backward()
            optimizer.step()

        return once

    results = {}
    for name, options in LAYERS.items():
        layer = JPEGLayer.from_point(point, subsampling="4:4:4", **options)
        functions = {
            "layer alone": lambda layer=layer: layer(pixels).sum().backward(),
            **{
                f"{precision}, {which}": step(before, precision == "bfloat16")
                for precision in ("float32", "bfloat16")
                for which, before in (("without", nn.Identity()), ("with", layer))
            },
        }
        found = medians(functions, turns)
        for precision in ("float32", "bfloat16"):
            ratio = found[f"{precision}, with"] / found[f"{precision}, without"]
            found[f"{precision}, overhead, %"] = 100 * (ratio - 1)
        found["kept for backward, of the pictures in float32"] = (
            kept(lambda layer=layer: layer(pixels)) / pixels.nbytes
        )
        results[name] = {key: round(value, 3) for key, value in found.items()}
        click.echo(f"{name}: {results[name]}")
    write("layer", {"batch": batch, "size": size, "milliseconds a step": results})


if __name__ == "__main__":
    main()
