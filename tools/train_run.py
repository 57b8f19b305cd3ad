"""The run of `dnnjpeg train`: load what the arguments name, train, test, and write the results."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg import __version__
from dnnjpeg.checks import one_line
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, short
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import OperatingPoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dnnjpeg.files.dataset import Dataset
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.learn.recipe import Epoch, Recipe
    from dnnjpeg.networks.load import Network

LAYER = (  # options of the JPEG layer
    "kappa", "alpha", "learn_hardness", "levels", "least", "integer_steps", "rounds", "subsampling",
)  # fmt: skip
STATE, NETWORK, REPORT = "state.pt", "network.safetensors", "report.json"


@dataclass(frozen=True)
class Training:
    """All that the arguments name, loaded."""

    network: "Network"
    layer: "JPEGLayer | None"
    points: list[OperatingPoint]
    learning: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"
    recipe: "Recipe"


def prepare(
    *,
    spec: str,
    weights: Path | None,
    data: Path,
    labels: Path | None,
    validation: float,
    test: Path | None,
    test_labels: Path | None,
    table: str | None,
    qualities: tuple[float, ...],
    layer: bool | None,
    size: int | None,
    device: str,
    seed: int,
    start: str,
    sensitive: str | None,
    **rest: Any,
) -> Training:
    import torch

    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.learn.batches import check_labels
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.learn.recipe import Recipe
    from dnnjpeg.networks.load import load_network

    options = {name: rest.pop(name) for name in LAYER}
    recipe = Recipe(seed=seed, **rest)
    points = [] if table is None else [load_table(table).at(quality) for quality in qualities]
    if has_layer := layer or (layer is None and table is None):
        JPEGLayer(**options)  # wrong options are refused before pictures and networks are loaded
    torch.manual_seed(seed)
    network = load_network(spec, weights=weights, device=device)
    size = size or network.preprocess.size
    held_out, learning = load_dataset(data, labels, size=size).split(validation, seed)
    tested = None if test is None else load_dataset(test, test_labels, size=size)
    if tested is not None and tested.labels is None:
        raise ValueError(f"{test} has no labels, and --test needs them: give --test-labels")
    if tested is not None:
        check_labels(network, tested)  # before a long training, not after it
    jpeg = _layer(start, sensitive, learning, device, options) if has_layer else None
    return Training(network, jpeg, points, learning, held_out, tested, recipe)


def _layer(
    start: str, sensitive: str | None, learning: "Dataset", device: str, options: dict[str, Any]
) -> "JPEGLayer":
    from dnnjpeg.learn.first_steps import magnitude_steps, sensitivity_steps
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.learn.objective import Objective
    from dnnjpeg.learn.sensitivity import fisher
    from dnnjpeg.networks.load import load_network

    subsampling = options["subsampling"]
    if sensitive is not None:
        unlabelled = replace(learning, labels=None)  # the network's classes may be others
        objective = Objective([load_network(sensitive, device=device)], unlabelled)
        return JPEGLayer(sensitivity_steps(fisher(objective, subsampling)), **options)
    if start == "magnitude":
        return JPEGLayer(magnitude_steps(learning, subsampling), **options)
    if start == "standard":
        return JPEGLayer.from_point(load_table("standard").at(75), **options)
    return JPEGLayer(**options)


def run(training: Training, output: Path) -> None:
    """Train, test, write."""
    from dnnjpeg.learn.batches import accuracies
    from dnnjpeg.learn.recipe import best_epoch
    from dnnjpeg.learn.training import train

    state = output / STATE
    with _progress(training.recipe.epochs, output / "log.jsonl") as show:
        log = train(
            training.network, training.learning, training.validation, training.recipe,
            layer=training.layer, points=training.points, state=state, on_epoch=show,
        )  # fmt: skip
    best = best_epoch(log, training.recipe, len(training.validation))
    provenance = _provenance(training)
    found = (
        {}
        if training.test is None
        else accuracies(training.network, training.test, training.layer, training.points)
    )
    test = {name: round(accuracy, 5) for name, accuracy in found.items()}
    report = provenance | {"best": asdict(best), "test": test or None}
    _save(output / NETWORK, training.network.module.state_dict(), provenance)
    if training.layer is not None:
        _save(output / "jpeg.safetensors", training.layer.state_dict(), provenance)
        for which in range(len(training.layer.points())):
            name = "jpeg" if not which else f"jpeg-{which + 1}"
            description = f"trained as a JPEG layer before {training.network.name}"
            table = training.layer.to_table(name, which=which, description=description, provenance=provenance)
            table.save(output / f"{name}.json")
    write_atomic(output / REPORT, json.dumps(report, indent=1).encode() + b"\n")
    with suppress(ModuleNotFoundError):  # without matplotlib
        from dnnjpeg.evaluate.plot import plot_training

        point = None if training.layer is None else training.layer.points()[0]
        write_atomic(output / "log.png", plot_training(log, point))
    state.unlink()
    what = "agreement with the originals" if training.recipe.finetune == "distill" else "top-1"
    click.echo(f"epoch {best.epoch} is kept. Validation pictures: {what} {100 * best.val_top1:.1f} %")
    for form, accuracy in test.items():
        click.echo(f"test pictures, {form}: top-1 {100 * accuracy:.1f} %")
    if training.layer is not None and len(points := training.layer.points()) == 1:
        options = f"--table {shlex.quote(str(output / 'jpeg.json'))} --quality {points[0].quality}"
        click.echo(one_line(f"To encode files for this network: dnnjpeg encode PICTURES -o FILES {options}"))


def _provenance(training: Training) -> dict[str, Any]:
    return {
        "model": training.network.name,
        "data": {
            "name": short(training.learning.source),
            "training": len(training.learning),
            "validation": len(training.validation),
        },
        "recipe": asdict(training.recipe),
        "layer": None if training.layer is None else repr(training.layer),
        "files": [point.to_json() for point in training.points],
        "command": command(),
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _save(path: Path, tensors: "dict[str, Tensor]", provenance: dict[str, Any]) -> None:
    from safetensors.torch import save

    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomic(path, save(whole, {"dnnjpeg": json.dumps(provenance)}))


@contextmanager
def _progress(count: int, log: Path) -> "Iterator[Callable[[Epoch], None]]":
    """A progress bar and a log with a line an epoch. Yields the function to call after each epoch."""
    from tqdm import tqdm

    lines: list[str] = []
    with tqdm(total=count, desc="epochs", leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(epoch: "Epoch") -> None:
            lines.append(json.dumps(asdict(epoch)) + "\n")
            write_atomic(log, "".join(lines).encode())
            bar.set_postfix_str(f"validation {100 * epoch.val_top1:.1f} %", refresh=False)
            bar.update(epoch.epoch - bar.n)

        yield show
