"""Networks fine-tuned to read small files: what accuracy they win back on Pillow's files of low quality.

    python benchmarks/finetune.py run --work DIR      trains and measures what is missing in DIR
    python benchmarks/finetune.py collect --work DIR  writes results/finetune.json, prints the table

Needs DNNJPEG_DATA, with data/cifar10, data/imagenet and models/zoo.py. Trained on real files of the standard
table at qualities 10, 20 and 30, of data/imagenet/learn or the training pictures of data/cifar10; measured on
Pillow's files of data/imagenet/val, there in bfloat16, or the test pictures.
"""

import io
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common import RESULTS, write
from jpegdl import WORK
from PIL import Image
from trainings import check_epochs, data, root

from dnnjpeg.evaluate.statistics import Estimate, means
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.dataset import Dataset, load_dataset
from dnnjpeg.learn.batches import cut, read
from dnnjpeg.learn.recipe import Recipe
from dnnjpeg.learn.training import train
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.readings import Readings, compare, decode
from dnnjpeg.table.library import standard_table

QUALITIES = (10, 20, 30)
COMMON = {"batch": 32, "decay": 1e-4, "pad": 0, "bfloat16": True}
RATES = {  # by network and kind; those of ImageNet networks the best of a few on validation pictures
    ("cifar_resnet20", "distill"): 0.002,
    ("cifar_resnet20", "bn"): 0.01,
    ("cifar_resnet20", "all"): 0.002,
    ("mobilenet_v1_075", "distill"): 1e-4,  # its batch norms are folded into its convolutions: no "bn"
    ("resnet18", "distill"): 3e-4,
    ("resnet18", "bn"): 1e-3,
}


def parts(name: str, size: int) -> tuple[Dataset, Dataset, Dataset]:
    """To learn from, to choose the epoch by, to measure on."""
    if name.startswith("cifar"):
        return data("cifar10", seed=0)
    folder = root() / "data" / "imagenet"
    learn = load_dataset(folder / "learn", folder / "learn.csv", size=size * 29 // 28)  # of ImageNet, 232
    validation, learning = learn.split(0.1, seed=0)
    return learning, validation, load_dataset(folder / "val", folder / "val.csv", size=size)


def pillow(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return decode(file.getvalue())


@lru_cache(1)
def originals(name: str, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pictures to measure on, as they are and as Pillow's files leave them, and their labels."""
    test = parts(name, size)[2]
    files = {f"quality {q}": np.stack([pillow(one, q) for one in test.pictures]) for q in QUALITIES}
    return {key: cut(some, size) for key, some in {"original": test.pictures, **files}.items()}, test.labels


def readings(network: Network, name: str) -> dict[str, Readings]:
    pictures, labels = originals(name, network.preprocess.size)
    is_large = network.preprocess.size > 32
    with torch.autocast("cpu", torch.bfloat16, enabled=is_large):  # in half the time
        logits = {key: read(network, some) for key, some in pictures.items()}
    return {key: compare(one, one, labels) for key, one in logits.items()}


@lru_cache(1)
def untrained(name: str) -> dict[str, Readings]:
    return readings(load_network(f"{root()}/models/zoo.py:{name}"), name)


def run_job(name: str, kind: str, work: Path, epochs: int) -> dict[str, Any]:
    network, before = load_network(f"{root()}/models/zoo.py:{name}"), untrained(name)
    learning, validation, test = parts(name, network.preprocess.size)
    recipe = Recipe(finetune=kind, lr=RATES[name, kind], epochs=epochs, **COMMON)
    points = [standard_table().at(quality) for quality in QUALITIES]
    log = train(
        network, learning, validation, recipe, points=points, state=work / f"{name}-{kind}.pt",
        on_epoch=lambda epoch: click.echo(f"{name} {kind}: {epoch}"),
    )  # fmt: skip
    after = readings(network, name)
    return {
        "network": name,
        "kind": kind,
        "recipe": asdict(recipe),
        "pictures": [len(learning), len(validation), len(test)],
        "log": [asdict(epoch) for epoch in log],
        "top-1, %": {key: _change(before[key], after[key]) for key in before},
    }


def _change(before: Readings, after: Readings) -> dict[str, float]:
    """Accuracies in percent; the difference with its 95 % interval, paired by picture."""
    samples = 100 * means([before.top1, after.top1])
    gain = Estimate.of(samples[:, 1] - samples[:, 0])
    numbers = {"before": samples[0, 0], "after": samples[0, 1], **asdict(gain)}
    return {key: round(float(value), 2) for key, value in numbers.items()}


@click.group()
def main() -> None:
    """Fine-tune, collect."""


@main.command()
@WORK
@click.option("--epochs", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--only", default="", help="Networks whose name holds this.")
def run(work: Path, epochs: int, threads: int, only: str) -> None:
    """Train and measure what is missing."""
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    files = {(name, kind): work / f"{name}-{kind}.json" for name, kind in RATES if only in name}
    for file in files.values():
        check_epochs(file, epochs)
    for (name, kind), file in files.items():
        if not file.exists():
            write_atomic(file, json.dumps(run_job(name, kind, work, epochs)).encode() + b"\n")
            (work / f"{name}-{kind}.pt").unlink()


@main.command()
@WORK
def collect(work: Path) -> None:
    """Write the results, and print the table of the site."""
    files = (work / f"{name}-{kind}.json" for name, kind in RATES)
    write("finetune", {"runs": [json.loads(file.read_text()) for file in files if file.exists()]})
    click.echo(table())


@main.command()
def show() -> None:
    """Print the table of the site."""
    click.echo(table())


def table() -> str:
    runs = json.loads((RESULTS / "finetune.json").read_text())["runs"]
    columns = list(runs[0]["top-1, %"])
    lines = [f"| top-1, % | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for one in runs:
        cells = [
            f"{x['before']:.1f} to {x['after']:.1f} ({x['low']:+.1f}..{x['high']:+.1f})"
            for x in one["top-1, %"].values()
        ]
        lines.append(f"| {one['network']}, {one['kind']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
