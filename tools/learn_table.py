"""`dnnjpeg learn-table`: quantization tables learned for networks, from pictures."""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnjpeg import __version__
from dnnjpeg.checks import check_quality
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, short
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.point import OperatingPoint

from .paths import NamedPath, one_line

if TYPE_CHECKING:
    from dnnjpeg.learn.methods import MethodOptions, Show
    from dnnjpeg.learn.objective import Losses, Objective

T = TypeVar("T")

_HELD_OUT = 0.3  # of the pictures, of which candidates know nothing
_LEAST = 8  # readings of all pictures that learning needs at least
_PUBLISHED = {"method": "j4d", "rate": "entropy", "relaxation": "soft", "hardness": "learned"}


def _qualities(_context: click.Context, _parameter: click.Parameter, text: str | None) -> list[float] | None:
    try:
        return None if text is None else sorted({check_quality(float(word)) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of qualities 1 to 100, as 20,50,75") from None


# fmt: off
@click.command(short_help="Learn a quantization table for networks from pictures.")
@click.option("--network", "specs", metavar="SPEC", multiple=True, required=True,
              help="Network: torchvision:NAME, timm:NAME, FILE.py:FUNCTION or MODULE:FUNCTION. Repeat it to "
                   "learn one table for several networks.")
@click.option("--weights", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Weights for the network, in place of its own: .safetensors, .pt or .pth.")
@click.option("--data", metavar="DIR|FILE.npy", required=True, type=click.Path(exists=True, path_type=Path),
              help="Folder of pictures, folder with one folder a class, or array file.")
@click.option("--labels", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="CSV file with the columns file and label, or a .npy file for an array. Labels add top-1 "
                   "to the report. They change what is learned only with --loss cross-entropy.")
@click.option("--loss", type=click.Choice(["divergence", "cross-entropy"]), default="divergence",
              show_default=True,
              help="Loss to minimise: the divergence from the networks' predictions on the originals, or the "
                   "cross-entropy with the labels, minus that of the originals.")
@click.option("-o", "--output", metavar="FILE.json", required=True, type=NamedPath(dir_okay=False),
              help="Where to write the table. The folder FILE.report beside it gets all measurements and a "
                   "plot.")
@click.option("--name", help="Name of the table.  [default: the name of the file]")
@click.option("--method", type=click.Choice(["slopes", "j4d", "sensitivity", "deepn", "given"]),
              default="slopes", show_default=True,
              help="slopes: what each step costs in damage and saves in bytes, measured around the tables, "
                   "and spent evenly; j4d: gradient descent "
                   "through a differentiable JPEG; sensitivity: closed form, without "
                   "training; deepn: from the pictures alone, in the manner of DeepN-JPEG; given: the points "
                   "of the table --start, chosen and placed anew.")
@click.option("--start", metavar="sensitivity|NAME|FILE.json", default="sensitivity", show_default=True,
              help="Where gradient descent starts: from the closed form, or from a table, for example "
                   "standard.")
@click.option("--published", is_flag=True,
              help="J4D as published: --method j4d --rate entropy --relaxation soft --hardness learned.")
@click.option("--rate", type=click.Choice(["scan", "entropy"]), default="scan", show_default=True,
              help="Rate that j4d minimises. scan: the bits of a real file, with runs and headers; entropy: "
                   "the entropy of each frequency's indices.")
@click.option("--relaxation", type=click.Choice(["straight-through", "soft"]), default="straight-through",
              show_default=True,
              help="What networks see while j4d learns. straight-through: rounded coefficients (sampled "
                   "ones if hardness is learned), with the gradients of the soft quantizer; soft: the "
                   "output of the soft quantizer.")
@click.option("--points", type=click.IntRange(1, 50), default=9, show_default=True,
              help="How many points to learn, near qualities 10 to 90. The best are kept.")
@click.option("--qualities", metavar="LIST", callback=_qualities,
              help="Learn near these qualities, for example 20,50,75, in place of --points.")
@click.option("--subsampling", "subsamplings", type=click.Choice(list(SUBSAMPLINGS)), multiple=True,
              default=("4:4:4", "4:2:2", "4:2:0"), show_default=True,
              help="Chroma subsampling to try. Repeat it to try several: each point gets the best.")
@click.option("--tables", type=click.IntRange(2, 3), default=2, show_default=True,
              help="Number of quantization tables. 2: Cb and Cr share one.")
@click.option("--steps", type=click.IntRange(1), default=150, show_default=True,
              help="Gradient steps of j4d for each candidate.")
@click.option("--hardness", type=click.Choice(["annealed", "learned"]), default="annealed", show_default=True,
              help="Hardness in j4d. annealed: for rounding to the nearest; learned: for the probabilistic "
                   "quantizer.")
@click.option("--time-budget", metavar="MINUTES", type=click.FloatRange(0, min_open=True),
              help="Time for the whole run, kept within 10 %. The methods slopes and j4d stop early if "
                   "they must. A time too short for any table is an error.")
@click.option("--headerless", is_flag=True,
              help="Count only entropy-coded data, with the standard Huffman codes. Use it when many "
                   "pictures share one set of tables.")
@click.option("--crop", type=click.IntRange(1, 65535), metavar="SIDE",
              help="Cut pictures to squares before they are encoded.  [default: files as they are stored]")
@click.option("--check", metavar="DIR|FILE.npy", type=click.Path(exists=True, path_type=Path),
              help="Pictures that are not used for learning. The table's qualities are compared with the "
                   "standard table's on them, and the result is written into the table.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Use at most N pictures, drawn at random.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all random "
                   "choices.")
@click.option("--device", default="cpu", show_default=True, help="Device that runs the networks, for "
                   "example cuda.")
@click.option("--bfloat16", is_flag=True, help="Run the networks in bfloat16: faster, a little less exact.")
@click.option("--cache", metavar="DIR", type=NamedPath(file_okay=False),
              help="Folder that keeps what networks read in files, so that an interrupted run goes on from "
                   "there.  [default: in the user's cache folder]")
@click.option("--resume", is_flag=True,
              help="Go on with an interrupted run of --method j4d. The other methods need no --resume.")
def learn_table(
    output: Path,
    name: str | None,
    points: int,
    qualities: list[float] | None,
    resume: bool,
    published: bool,
    **how: Any,
) -> None:
    """Learn a table: quantization steps that cost a network less than the standard ones, byte for byte.

    Pictures are encoded as they are stored. Networks see them as their own preprocessing says: resized and
    cropped.

    Candidates are learned on 70 % of the pictures, near the rates of standard JPEG files of several
    qualities. Then they are measured on all pictures, as real files. The best candidates become the points of
    the table. A point gets the quality of the standard JPEG, 4:2:0, that costs the networks as much. Five
    folds measure how much of a candidate's gain is luck, and this part is not counted. More points are added
    where a quality between two points would cost more or less than the standard JPEG does.

    If a run is interrupted, give the same command again (with --resume for --method j4d): it goes on from the
    measurements in the cache.

    The printed gains are optimistic, because the same pictures chose the points. The last line names the
    command that measures the gains on other pictures.

    With several processes: torchrun --nproc-per-node N --no-python dnnjpeg learn-table ...

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    began = time.monotonic()
    if not output.parent.is_dir():
        raise click.UsageError(f"{output} cannot be written: there is no folder {output.parent}")
    folder = output.with_suffix(".report")
    if published:
        how = _as_published(how)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise click.UsageError(
            "torch is missing, and learn-table needs it: pip install 'dnnjpeg[learn]'"
        ) from None
    if not resume and any(folder.glob("*.pt")):
        raise click.UsageError(f"{folder} has an interrupted run: go on with --resume, or delete it")
    spread = [round(10 + 80 * i / (points - 1)) for i in range(points)] if points > 1 else [50]
    from dnnjpeg.learn.processes import is_first, processes

    with processes():
        try:
            try:
                prepared = _prepare(began=began, qualities=qualities or spread, **how)
            except (ValueError, OSError) as error:
                raise click.UsageError(str(error)) from None
            _run(*prepared, output, name or output.stem, began)
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            how_to = " with --resume" if how["method"] == "j4d" else ""
            click.echo(f"interrupted; the same command{how_to} goes on from here", err=True)
            raise SystemExit(130) from None
    if is_first():
        click.echo(one_line(_advice(output, **how)))
# fmt: on


def _advice(output: Path, *, specs: Sequence[str], weights: Path | None, crop: int | None, headerless: bool,
            **_: Any) -> str:  # fmt: skip
    """How the gains are measured on other pictures."""
    options = [part for spec in specs for part in ("--network", spec)]
    options += ["--weights", str(weights)] if weights else []
    options += ["--crop", str(crop)] if crop else []
    options += ["--headerless"] if headerless else []
    options += ["--codec", f"dnnjpeg:{output}", "--data", "OTHER_PICTURES"]
    return (
        "These gains are optimistic: the same pictures have chosen the points. To measure them on other "
        f"pictures: dnnjpeg evaluate {shlex.join(options)}"
    )


def _as_published(how: dict[str, Any]) -> dict[str, Any]:
    """The options of J4D as published; others that were given besides are refused."""
    source = click.get_current_context().get_parameter_source
    for name, value in _PUBLISHED.items():
        if source(name) is click.core.ParameterSource.COMMANDLINE and how[name] != value:
            raise click.UsageError(f"--published means --{name} {value}, and --{name} {how[name]} is given")
    return how | _PUBLISHED


def _prepare(
    *,
    began: float,
    specs: Sequence[str],
    weights: Path | None,
    data: Path,
    labels: Path | None,
    check: Path | None,
    crop: int | None,
    loss: Any,
    limit: int | None,
    seed: int,
    device: str,
    bfloat16: bool,
    headerless: bool,
    cache: Path | None,
    steps: int,
    rate: Any,
    relaxation: str,
    hardness: Any,
    time_budget: float | None,
    **search: Any,
) -> "tuple[Objective, Objective, Objective | None, MethodOptions]":
    """What to learn on, what to choose on besides, what to check on, and how to search."""
    import platformdirs

    from dnnjpeg.files.cache import Cache
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.learn.j4d import Settings
    from dnnjpeg.learn.methods import MethodOptions
    from dnnjpeg.learn.objective import Objective
    from dnnjpeg.networks.load import load_network

    if weights and len(specs) > 1:
        raise ValueError("--weights needs exactly one --network, several are given")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    networks = [load_network(spec, weights=weights, device=device) for spec in dict.fromkeys(specs)]
    dataset = load_dataset(data, labels, size=crop, limit=limit, seed=seed)
    kept = Cache(cache or platformdirs.user_cache_path("dnnjpeg") / "readings")
    make = partial(Objective, networks, autocast=bfloat16, headerless=headerless, cache=kept)
    held_out, learning = (make(part, loss) for part in dataset.split(_HELD_OUT, seed))
    unseen = None if check is None else make(load_dataset(check, size=crop))
    drawn: Any = "sampled" if hardness == "learned" else "hard"
    mode: Any = "soft" if relaxation == "soft" else drawn
    settings = Settings(steps=steps, rate=rate, hardness=hardness, mode=mode, seed=seed)
    end = None if time_budget is None else began + 60 * time_budget
    return learning, held_out, unseen, MethodOptions(settings=settings, deadline=end, **search)


def _run(
    learning: "Objective",
    held_out: "Objective",
    unseen: "Objective | None",
    search: "MethodOptions",
    output: Path,
    name: str,
    began: float,
) -> None:
    """Learn, measure, choose, check, write."""
    from dnnjpeg.evaluate.gain import bytes_change
    from dnnjpeg.learn.methods import candidates
    from dnnjpeg.learn.points import CHECKED, QUALITIES, Selection, StandardCurve, check
    from dnnjpeg.learn.processes import by_first, is_first
    from dnnjpeg.table.library import standard_table
    from dnnjpeg.table.table import Table

    folder = output.with_suffix(".report")
    folder.mkdir(exist_ok=True)

    def measure_one(point: OperatingPoint) -> "Losses":
        return learning.measure(point).beside(held_out.measure(point))

    def measure(points: Sequence[OperatingPoint], what: str) -> "list[Losses]":
        return [measure_one(point) for point in _bar(points, what)]

    def measure_standard() -> "tuple[list[Losses], float | None]":
        """And until when candidates may be looked for."""
        found, longest, end = [], 0.0, search.deadline
        for quality in _bar(QUALITIES, "measuring standard JPEG"):
            start = time.monotonic()
            found.append(measure_one(standard_table().at(quality)))
            if search.deadline is not None and len(found) > 1:  # the first also waits for what is loaded
                longest = max(longest, time.monotonic() - start)
                end = search.deadline - longest * _readings(learning, held_out, unseen, search)
                _check_budget(began, search.deadline, end, longest, len(QUALITIES) - len(found))
        return found, end

    standard, end = by_first(measure_standard)
    means = [(one.bytes.mean(), one.loss.mean()) for one in standard]
    curve = StandardCurve.of(QUALITIES, *zip(*means, strict=True))
    found = list(candidates(learning, replace(search, deadline=end), curve, folder, _steps))
    if not is_first():
        return
    measured = measure(found, "measuring candidates")
    minutes = round((time.monotonic() - began) / 60, 2)
    provenance = _provenance(learning, held_out, search)
    report = {
        "provenance": provenance,
        "minutes": minutes,
        "standard": [{"quality": q, **one.record()} for q, one in zip(QUALITIES, standard, strict=True)],
        "candidates": [
            replace(point, measured=one.record()).to_json()
            for point, one in zip(found, measured, strict=True)
        ],
    }
    write_atomic(folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    selection = Selection(found, measured, standard)
    points = selection.points()
    table = Table(name, points)
    checked = [table.at(q) for q in CHECKED]
    pairs = list(zip(checked, measure(checked, "measuring between points"), strict=True))
    points = tuple(sorted([*points, *selection.between(points, pairs)], key=lambda point: point.quality))
    networks = ", ".join(network.name for network in learning.networks)
    how = "chosen and placed" if search.method == "given" else f"learned by {search.method}"
    table = Table(name, points, f"{how} for {networks}", provenance)
    if unseen is not None:
        ratios = check(table, unseen)
        facts = {"name": short(unseen.dataset.source), "pictures": len(unseen), "loss_ratio": ratios}
        table = replace(table, provenance={**provenance, "check": facts})
        for network, by_quality in ratios.items():
            told = ", ".join(f"{quality}: {100 * (x - 1):+.0f} %" for quality, x in by_quality.items())
            click.echo(one_line(f"{network}, loss at the same quality against the standard table's: {told}"))
    table.save(output)
    with suppress(ModuleNotFoundError):  # without matplotlib
        from dnnjpeg.evaluate.plot import plot_table

        write_atomic(folder / "curve.png", plot_table(report, points))
    for state in folder.glob("*.pt"):
        state.unlink()
    for point, one in zip(points, measure(points, "reading what was measured"), strict=True):
        change = bytes_change(QUALITIES, standard, one, selection.luck)
        how = "fewer" if change.value < 0 else "more"
        click.echo(
            f"quality {point.quality:5} {point.subsampling}  {one.bytes.mean():8,.0f} bytes, loss "
            f"{one.loss.mean():.4f}, {abs(change.value):.1f} % {how} bytes than the standard table "
            f"(95 % interval of the change: {change.low:+.1f} to {change.high:+.1f} %)"
        )
    click.echo(one_line(f"{output}: {len(points)} points, of {len(found)} candidates, in {minutes} minutes"))


def _readings(
    learning: "Objective", held_out: "Objective", unseen: "Objective | None", search: "MethodOptions"
) -> float:
    """How often all pictures are read, at most, after the candidates are found."""
    from dnnjpeg.learn.methods import most_candidates
    from dnnjpeg.learn.points import CHECKED

    count = len(learning) + len(held_out)
    of_candidates = most_candidates(search) * len(held_out) / count
    of_check = 0 if unseen is None else 2 * len(CHECKED) * len(unseen) / count
    return of_candidates + len(CHECKED) + of_check


def _check_budget(began: float, deadline: float, end: float, reading: float, left: int) -> None:
    """Refuses a budget that leaves no time to learn in, as soon as that is known.

    end: when looking for candidates must end. reading: seconds for one of all pictures; left: further ones of
    the standard table.
    """
    needed = reading * (left + _LEAST)
    if time.monotonic() + needed > end:
        minutes = (time.monotonic() + needed + deadline - end - began) / 60
        raise ValueError(
            f"--time-budget is {(deadline - began) / 60:.3g}: to read all pictures once takes "
            f"{reading:.1f} seconds, and the shortest run {minutes:.1f} minutes; give these, or --limit"
        )


def _provenance(objective: "Objective", held_out: "Objective", search: "MethodOptions") -> dict[str, Any]:
    accuracies = objective.clean_top1 or (None,) * len(objective.networks)
    return {
        "models": [
            {"name": network.name, "weights": network.digest, "clean_top1": top1}
            for network, top1 in zip(objective.networks, accuracies, strict=True)
        ],
        "data": {
            "name": short(objective.dataset.source),
            "pictures": len(objective),
            "held_out": len(held_out),
            "labels": objective.dataset.labels is not None,
            "loss": objective.loss,
            "bytes": "scans" if objective.headerless else "files",
        },
        "seed": search.settings.seed,
        "command": command(),
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _bar(items: Iterable[T], what: str) -> Iterable[T]:
    from tqdm import tqdm

    return tqdm(items, what, leave=False, disable=_is_silent())


@contextmanager
def _steps(what: str, count: int) -> "Iterator[Show]":
    """A progress bar, moved by what it yields."""
    from tqdm import tqdm

    with tqdm(total=count, desc=what, leave=False, disable=_is_silent()) as bar:

        def show(found: tuple[float, float]) -> None:
            bar.set_postfix_str(f"loss {found[0]:.3f}, {found[1]:,.0f} bytes", refresh=False)
            bar.update()

        yield show


def _is_silent() -> bool:
    from dnnjpeg.learn.processes import is_first

    return not (sys.stderr.isatty() and is_first())
