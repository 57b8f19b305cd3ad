"""`dnnjpeg train`: networks trained behind a JPEG layer with trainable steps, or adapted to given files."""

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
from click.core import ParameterSource

from dnnjpeg import __version__
from dnnjpeg.checks import check_quality
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, short
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import OperatingPoint

from .paths import NamedPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dnnjpeg.files.dataset import Dataset
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.learn.recipe import Epoch, Recipe
    from dnnjpeg.networks.load import Network

_PATH = click.Path(exists=True, path_type=Path)
_LAYER = (
    "kappa", "alpha", "learn_hardness", "levels", "least", "integer_steps", "rounds", "subsampling",
)  # fmt: skip
_STATE, _NETWORK, _REPORT = "state.pt", "network.safetensors", "report.json"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _qualities(_context: click.Context, _parameter: click.Parameter, text: str) -> list[float]:
    try:
        return sorted({check_quality(float(word)) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of qualities 1 to 100, as 10,20,30") from None


# fmt: off
@click.command(short_help="Train a network behind a JPEG layer, or on JPEG files.")
@click.option("--network", "spec", metavar="SPEC", required=True,
              help="Network: torchvision:NAME, timm:NAME, FILE.py:FUNCTION or MODULE:FUNCTION. The first two "
                   "come trained; a function may return fresh weights, which are drawn with --seed.")
@click.option("--weights", metavar="FILE", type=_FILE,
              help="Of the network, in place of its own: .safetensors, .pt or .pth.")
@click.option("--data", metavar="DIR|FILE.npy", required=True, type=_PATH,
              help="Pictures to train on: a folder, or one of a folder a class; or an array.")
@click.option("--labels", metavar="FILE", type=_FILE,
              help="CSV with the columns file and label; .npy for an array. Distillation needs none.")
@click.option("--validation", metavar="SHARE", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.1, show_default=True, help="Of the pictures: they choose the epoch that is kept.")
@click.option("--test", metavar="DIR|FILE.npy", type=_PATH, help="Other pictures, read once, at the end.")
@click.option("--test-labels", metavar="FILE", type=_FILE,
              help="Labels of the --test pictures, in the form of --labels.")
@click.option("-o", "--output", metavar="DIR", required=True, type=NamedPath(file_okay=False),
              help="Where all results go; made if missing.")
@click.option("--layer/--no-layer", default=None,
              help="A JPEG layer before the network, trained with it.  [default: unless --table is given]")
@click.option("--start", type=click.Choice(["standard", "sensitivity", "magnitude", "ones"]),
              default="standard", show_default=True,
              help="The layer's first steps. standard: the standard table at quality 75; sensitivity: small "
                   "where the network --sensitive feels a change most, as JPEG-DL begins; magnitude: in "
                   "proportion to the mean coefficients; ones: all 1, which quantizes next to nothing and "
                   "stays there unless --price pulls.")
@click.option("--sensitive", metavar="SPEC", help="A trained network, for --start sensitivity.")
@click.option("--kappa", type=click.FloatRange(0, min_open=True),
              help="Hardness by step.  [default: 5, without --alpha]")
@click.option("--alpha", type=click.FloatRange(0, min_open=True), help="Hardness, whatever the step.")
@click.option("--learn-hardness", is_flag=True, help="Train it, by frequency.")
@click.option("--levels", type=click.IntRange(3),
              help="Hold coefficients to so many indices, as 255.")
@click.option("--least", type=click.FloatRange(0, 255, min_open=True), default=1.0, show_default=True,
              help="The smallest step; below 1, where files have 1, with --levels, to hold coefficients to "
                   "closer bounds, or with --real-steps.")
@click.option("--integer-steps/--real-steps", default=True, show_default=True,
              help="Round steps while training, as files hold them; or only for files, which then differ.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Layers in a row.")
@click.option("--subsampling", type=click.Choice(list(SUBSAMPLINGS)), default="4:4:4", show_default=True,
              help="Of the chroma in the layer and in its files.")
@click.option("--price", metavar="NAT", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Loss that a byte of the layer's files is worth, as 1e-4; of one round.")
@click.option("--table", metavar="NAME|FILE.json",
              help="Train on pictures as files of this table leave them.")
@click.option("--quality", "qualities", metavar="LIST", callback=_qualities, default="75", show_default=True,
              help="Of --table; of several, each picture has one drawn.")
@click.option("--finetune", type=click.Choice(["all", "bn", "distill"]),
              help="From the network as it is, statistics and dropout off: all weights; those of batch norms "
                   "alone; or all, towards what it read in the originals, which takes no labels.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True,
              help="Passes over the training pictures. Rates fall to the end of the last one.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True,
              help="Pictures a training step. Fewer take less memory; then lower --lr in proportion.")
@click.option("--lr", type=click.FloatRange(0), default=0.05, show_default=True,
              help="Of the weights; to fine-tune, 0.001 is more like it.")
@click.option("--decay", type=click.FloatRange(0), default=5e-4, show_default=True, help="Of the weights.")
@click.option("--layer-lr", type=click.FloatRange(0), default=0.03, show_default=True,
              help="Of the logarithms of the layer's steps.")
@click.option("--schedule", type=click.Choice(["cosine", "steps"]), default="cosine", show_default=True,
              help="How --lr and --layer-lr fall. cosine: smoothly to 0; steps: to a tenth after 5/8, 3/4 "
                   "and 7/8 of the epochs.")
@click.option("--pad", type=click.IntRange(0), default=4, show_default=True,
              help="Pixels of black around pictures before they are cut at random.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror every other picture.")
@click.option("--size", type=click.IntRange(1, 65535),
              help="Pictures are loaded at this side, and cut to the network's.  [default: the network's]")
@click.option("--bfloat16", is_flag=True, help="Run the network in it: twice as fast on some processors.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of the random numbers: fresh weights, validation pictures, order, cuts and mirroring. "
                   "The same seed gives the same training.")
@click.option("--device", default="cpu", show_default=True, help="Where it runs, as cuda.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted training.")
def train(output: Path, resume: bool, **how: Any) -> None:
    """Train a network, by default behind a JPEG layer whose quantization steps are trained with it.

    DIR gets network.safetensors (for --weights); jpeg.safetensors and jpeg.json, the layer and its table,
    which writes real files; report.json with the accuracies; log.jsonl and, with matplotlib, log.png.

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise click.UsageError("torch is missing, and train needs it: pip install 'dnnjpeg[learn]'") from None
    _check_use(how)
    _check_folder(output, resume)
    try:
        try:
            job = _prepare(**how)
        except (ValueError, OSError) as error:
            raise click.UsageError(str(error)) from None
        output.mkdir(parents=True, exist_ok=True)
        _run(job, output)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        is_kept = (output / _STATE).exists()
        hint = "the same command with --resume goes on from here" if is_kept else "no epoch was finished"
        click.echo(f"interrupted; {hint}", err=True)
        raise SystemExit(130) from None
# fmt: on


def _check_use(how: dict[str, Any]) -> None:
    """Refuses options of what is not there, and one of two that go together."""
    context, layer, table = click.get_current_context(), how["layer"], how["table"]
    has_layer = layer or (layer is None and table is None)
    idle = [] if has_layer else [*_LAYER, "start", "sensitive", "layer_lr", "price"]
    for option in context.command.params:
        if context.get_parameter_source(option.name or "") is not ParameterSource.COMMANDLINE:
            continue
        if option.name in idle:
            given = (option.secondary_opts if how[option.name] is False else option.opts)[0]
            why = ", and --no-layer is given" if layer is False else ": give --layer"
            raise click.UsageError(f"{given} is of a layer{why}")
        if option.name == "qualities" and table is None:
            raise click.UsageError("--quality is of a table: give --table")
    if how["test_labels"] is not None and how["test"] is None:
        raise click.UsageError("--test-labels is of --test, which is not given")
    if (how["start"] == "sensitivity") != (how["sensitive"] is not None):
        raise click.UsageError("--start sensitivity and --sensitive SPEC go together: one is from the other")
    if how["price"] and how["rounds"] > 1:
        raise click.UsageError(f"--price is of the files of one round, and --rounds is {how['rounds']}")


def _check_folder(output: Path, resume: bool) -> None:
    """Refuses to overwrite a training, and to go on with what is not there."""
    if (output / _STATE).exists():
        if not resume:
            raise click.UsageError(f"{output} has an interrupted training: go on with --resume, or delete it")
    elif any((output / name).exists() for name in (_NETWORK, _REPORT)):
        raise click.UsageError(f"{output} has a finished training: give another folder, or delete it")
    elif resume:
        raise click.UsageError(f"{output} has no interrupted training: begin one without --resume")


@dataclass(frozen=True)
class _Job:
    """What the arguments name, loaded."""

    network: "Network"
    layer: "JPEGLayer | None"
    points: list[OperatingPoint]
    learning: "Dataset"
    validation: "Dataset"
    test: "Dataset | None"
    recipe: "Recipe"


def _prepare(
    *,
    spec: str,
    weights: Path | None,
    data: Path,
    labels: Path | None,
    validation: float,
    test: Path | None,
    test_labels: Path | None,
    table: str | None,
    qualities: list[float],
    layer: bool | None,
    size: int | None,
    device: str,
    seed: int,
    start: str,
    sensitive: str | None,
    **rest: Any,
) -> _Job:
    import torch

    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.learn.batches import check_labels
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.learn.recipe import Recipe
    from dnnjpeg.networks.load import load_network

    options = {name: rest.pop(name) for name in _LAYER}
    recipe = Recipe(seed=seed, **rest)
    points = [] if table is None else [load_table(table).at(quality) for quality in qualities]
    if has_layer := layer or (layer is None and table is None):
        JPEGLayer(**options)  # what it refuses is refused before pictures and networks are loaded
    torch.manual_seed(seed)
    network = load_network(spec, weights=weights, device=device)
    size = size or network.preprocess.size
    held_out, learning = load_dataset(data, labels, size=size).split(validation, seed)
    tested = None if test is None else load_dataset(test, test_labels, size=size)
    if tested is not None and tested.labels is None:
        raise ValueError(f"{test} has no labels to test against: give --test-labels")
    if tested is not None:
        check_labels(network, tested)  # before a long training, not after it
    jpeg = _layer(start, sensitive, learning, device, options) if has_layer else None
    return _Job(network, jpeg, points, learning, held_out, tested, recipe)


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


def _run(job: _Job, output: Path) -> None:
    """Train, test, write."""
    from dnnjpeg.learn.batches import accuracies
    from dnnjpeg.learn.recipe import best_epoch
    from dnnjpeg.learn.training import train as run

    state = output / _STATE
    with _progress(job.recipe.epochs, output / "log.jsonl") as show:
        log = run(
            job.network, job.learning, job.validation, job.recipe,
            layer=job.layer, points=job.points, state=state, on_epoch=show,
        )  # fmt: skip
    best = best_epoch(log, job.recipe, len(job.validation))
    provenance = _provenance(job)
    found = {} if job.test is None else accuracies(job.network, job.test, job.layer, job.points)
    test = {name: round(accuracy, 5) for name, accuracy in found.items()}
    report = provenance | {"best": asdict(best), "test": test or None}
    _save(output / _NETWORK, job.network.module.state_dict(), provenance)
    if job.layer is not None:
        _save(output / "jpeg.safetensors", job.layer.state_dict(), provenance)
        for which in range(len(job.layer.points())):
            name = "jpeg" if not which else f"jpeg-{which + 1}"
            description = f"trained with {job.network.name} as a JPEG layer before it"
            table = job.layer.to_table(name, which=which, description=description, provenance=provenance)
            table.save(output / f"{name}.json")
    write_atomic(output / _REPORT, json.dumps(report, indent=1).encode() + b"\n")
    with suppress(ModuleNotFoundError):  # without matplotlib
        from dnnjpeg.evaluate.plot import plot_training

        point = None if job.layer is None else job.layer.points()[0]
        write_atomic(output / "log.png", plot_training(log, point))
    state.unlink()
    how = "read as the originals were" if job.recipe.finetune == "distill" else "right"
    share = f"{100 * best.val_top1:.1f} % of the validation pictures"
    click.echo(f"epoch {best.epoch} is kept: {share} are {how}")
    for form, accuracy in test.items():
        click.echo(f"test pictures, {form}: {100 * accuracy:.1f} %")
    if job.layer is not None and len(points := job.layer.points()) == 1:
        options = f"--table {shlex.quote(str(output / 'jpeg.json'))} --quality {points[0].quality}"
        click.echo(f"files for it: dnnjpeg encode PICTURES -o FILES {options}")


def _provenance(job: _Job) -> dict[str, Any]:
    return {
        "model": job.network.name,
        "data": {
            "name": short(job.learning.source),
            "training": len(job.learning),
            "validation": len(job.validation),
        },
        "recipe": asdict(job.recipe),
        "layer": None if job.layer is None else repr(job.layer),
        "files": [point.to_json() for point in job.points],
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
    """A progress bar and the log, a line an epoch, moved by what it yields."""
    from tqdm import tqdm

    lines: list[str] = []
    with tqdm(total=count, desc="epochs", leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(epoch: "Epoch") -> None:
            lines.append(json.dumps(asdict(epoch)) + "\n")
            write_atomic(log, "".join(lines).encode())
            bar.set_postfix_str(f"validation {100 * epoch.val_top1:.1f} %", refresh=False)
            bar.update(epoch.epoch - bar.n)

        yield show
