"""The ruler: in how many bytes networks lose as much as in Pillow's files. Codecs are judged by this.

    python benchmarks/ruler.py                    files as stored: $DNNJPEG_DATA/data/full/val
    python benchmarks/ruler.py --data $DNNJPEG_DATA/data/imagenet/val \
        --labels $DNNJPEG_DATA/data/imagenet/val.csv --crop 224 --name ruler_crops
                                                  squares that were cut before they were encoded
    python benchmarks/ruler.py --show             the table of the last run

A row is a codec, as `dnnjpeg evaluate --codec` takes it. {network} in its name stands for each network, which
then reads its own; {reduced} for the shorter side to which the network's own preprocessing reduces. A file
that is not there leaves the network out. A column is a quality of Pillow's, 4:2:0 with `optimize=True`. A
cell is the change of bytes at equal divergence from what the networks read in the originals: the mean of the
networks with its 95 % interval, and the worst network.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
import numpy as np
import platformdirs
import torch
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg.evaluate.codecs import load_codec
from dnnjpeg.evaluate.ladder import Ladder, climb
from dnnjpeg.evaluate.measure import Measurement, measure
from dnnjpeg.evaluate.report import report
from dnnjpeg.evaluate.text import interval, mean_and_worst
from dnnjpeg.files.cache import Cache
from dnnjpeg.files.dataset import load_dataset
from dnnjpeg.files.view import Pictures
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.measurer import Measurer, by_name
from dnnjpeg.sparse import optimize_, restore_
from dnnjpeg.sparse.plan import Plan, apply_

REFERENCE = "pillow-optimize"
CODECS = (
    "dnnjpeg:universal",
    "dnnjpeg:universal,progressive=auto",
    "dnnjpeg:{network}",
    "pillow-optimize,subsampling=4:4:4",
    "pillow-optimize,reduce={reduced}",
    "mozjpeg",
    "jpegli",
)
NAMES = dict(
    zip(
        CODECS,
        (
            "dnnjpeg, universal table",
            "the same, progressive",
            "dnnjpeg, own table",
            "Pillow 4:4:4",
            "Pillow, reduced first",
            "mozjpeg",
            "jpegli",
        ),
        strict=True,
    )
) | {"dnnjpeg:universal,adaptive=read": "the same and a reader"}
NETWORKS = ("mobilenet_v1_075", "mobilenet_v2", "resnet18", "resnet50")


def hasten(network: Network, pictures: Pictures, folder: Path) -> None:
    """Run a network's convolutions on `dnnjpeg.sparse`, one picture at a time, by a plan that is made once
    for this machine. Left as it is where its logits change by more than 1e-5 of the largest.
    """
    file = folder / f"{network.name}-{network.digest}-{torch.get_num_threads()}.json"
    before = network.read(pictures, 1)
    try:
        apply_(network.module, Plan.load(file))
    except (OSError, ValueError):  # none, or one of another machine
        inputs = network.inputs(torch.tensor(pictures[0]).permute(2, 0, 1)[None])
        file.parent.mkdir(parents=True, exist_ok=True)
        optimize_(network.module, inputs, seconds=0.05).plan.save(file)
    if np.abs(network.read(pictures, 1) - before).max() > 1e-5 * np.abs(before).max():
        restore_(network.module)


def rows(codecs: Sequence[str], networks: dict[str, Network]) -> dict[str, dict[str, str]]:
    """By row, the codec that each network reads."""
    found = {}
    for row in (REFERENCE, *codecs):
        own = {}
        for name, network in networks.items():
            view = network.preprocess.view
            reduced = view.resize or round(view.size * 8 / 7)
            codec = row.format(network=name, reduced=reduced)
            path = Path(codec.partition(":")[2])
            if path.suffix != ".json" or path.exists():
                own[name] = codec
        found[row] = own
    return found


def measured(
    measurer: Measurer, wanted: dict[str, dict[str, str]], qualities: Sequence[float], labelled: bool
) -> dict[str, list[Measurement]]:
    """By row, its settings."""
    readers: dict[str, list[str]] = {}
    for own in wanted.values():
        for network, codec in own.items():
            if network not in readers.setdefault(codec, []):
                readers[codec].append(network)
    ladders = {codec: Ladder(load_codec(codec), partial(measure, measurer)) for codec in readers}
    with tqdm(unit=" readings", disable=not sys.stderr.isatty()) as bar:
        for ladder in ladders.values():
            ladder.on_reading = bar.update
        scores = {name: {"loss": -1} if labelled else {} for name in measurer.networks}
        climb(ladders, readers, [REFERENCE], qualities, scores)
    return {
        row: [one for codec in dict.fromkeys(own.values()) for one in ladders[codec].settings]
        for row, own in wanted.items()
    }


METRICS = {"divergence": "equal divergence", "loss": "equal cross-entropy", "top1": "equal top-1"}


def as_markdown(results: dict[str, Any]) -> str:
    """The mean of the networks, and the worst, by divergence and by cross-entropy; then what tables lose at
    the quality of the same number.
    """
    parts = []
    for metric, rows in _by_metric(results):
        means = [row for row in rows if row["network"] is None or len(results["clean"]) == 1]
        if metric != "top1" and means:
            parts += _table(f"bytes at {METRICS[metric]}, %", results["qualities"])
            parts += [_row([row["codec"], *(mean_and_worst(x, 0) for x in row["points"])]) for row in means]
            parts.append("")
    parts += _table("divergence at the same quality, %", results["qualities"])
    ratios = {(row["codec"], row["network"], row["quality"]): row["ratio"] for row in results["nominal"]}
    for codec, network in dict.fromkeys(key[:2] for key in ratios if key[0].startswith("dnnjpeg:")):
        cells = [_interval(_per_cent(ratios[codec, network, q])) for q in results["qualities"]]
        parts.append(_row([f"{network}: {codec}", *cells]))
    return "\n".join(parts)


def by_network(results: dict[str, Any]) -> str:
    """Each network, by all metrics there are."""
    parts = []
    for metric, rows in _by_metric(results):
        parts += _table(f"bytes at {METRICS[metric]}, %", results["qualities"])
        for row in sorted((row for row in rows if row["network"]), key=itemgetter("network")):
            cells = [_interval(point["bytes_change"]) for point in row["points"]]
            parts.append(_row([f"{row['network']}: {row['codec']}", *cells]))
        parts.append("")
    return "\n".join(parts[:-1])


def at_quality(results: dict[str, Any], quality: float) -> str:
    """The bytes at equal divergence, a row a network, a column a codec."""
    rows = [row for row in results["comparisons"] if row["metric"] == "divergence"]
    codecs = [codec for codec in NAMES if any(row["codec"] == codec for row in rows)]
    heads = [f"bytes at quality {quality:g}, %", *(NAMES[codec] for codec in codecs)]
    parts = [_row(heads), f"|---|{'---:|' * len(codecs)}"]
    for network in results["clean"]:
        cells = []
        for codec in codecs:
            (row,) = (one for one in rows if (one["codec"], one["network"]) == (codec, network))
            (point,) = (point for point in row["points"] if point["quality"] == quality)
            cells.append(_interval(point["bytes_change"]))
        parts.append(_row([network, *cells]))
    return "\n".join(parts)


def _by_metric(results: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for metric in METRICS:
        if rows := [row for row in results["comparisons"] if row["metric"] == metric]:
            yield metric, rows


def _table(title: str, qualities: Sequence[float]) -> list[str]:
    heads = [title, *(f"quality {quality:g}" for quality in qualities)]
    return [_row(heads), f"|---|{'---:|' * len(qualities)}"]


def _per_cent(ratio: dict[str, float | None]) -> dict[str, float | None]:
    return {key: None if value is None else 100 * (value - 1) for key, value in ratio.items()}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(change: dict[str, float | None]) -> str:
    return interval(change, 1, 0)


@click.command()
@click.option(
    "--network", "specs", metavar="SPEC", multiple=True, help="[default: the four of models/zoo.py]"
)
@click.option("--codec", "codecs", metavar="NAME", multiple=True, default=CODECS, show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="[default: data/full/val]")
@click.option("--labels", type=click.Path(exists=True, path_type=Path), help="CSV: file, label.")
@click.option("--crop", type=click.IntRange(1), help="Cut pictures to this side before they are encoded.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures, drawn at random.")
@click.option("--quality", "qualities", metavar="LIST", default="20,50,75", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="[default: in the user's cache folder]")
@click.option("--dense", is_flag=True, help="Run the networks as they are, and not on dnnjpeg.sparse.")
@click.option("--name", default="ruler", show_default=True, help="Of the file of results.")
@click.option("--show", is_flag=True, help="Print the tables of the last run, and measure nothing.")
@click.option("--at", type=click.FloatRange(1, 100), help="Print one quality: a row a network.")
@click.option("--by-network", "single", is_flag=True, help="Print each network in place of their mean.")
def main(
    specs: tuple[str, ...],
    codecs: tuple[str, ...],
    data: Path | None,
    labels: Path | None,
    crop: int | None,
    limit: int | None,
    qualities: str,
    cache: Path | None,
    dense: bool,
    name: str,
    show: bool,
    at: float | None,
    single: bool,
) -> None:
    """Measure, print the table, and write benchmarks/results/NAME.json."""
    if not show:
        root = Path(os.environ.get("DNNJPEG_DATA", "."))
        columns = sorted({float(quality) for quality in qualities.split(",")})
        loaded = [load_network(spec) for spec in specs or [f"{root}/models/zoo.py:{one}" for one in NETWORKS]]
        networks = by_name(loaded)
        dataset = load_dataset(data or root / "data/full/val", labels, size=crop, limit=limit)
        folder = cache or platformdirs.user_cache_path("dnnjpeg")
        for network in [] if dense else loaded:
            hasten(network, dataset.pictures[:8], folder / "plans")
        measurer = Measurer(dataset, networks, Cache(folder / "readings"), batch=None if dense else 1)
        labelled = labels is not None
        found = measured(measurer, rows(codecs, networks), columns, labelled)
        results = report(
            found,
            measurer.originals,
            [REFERENCE],
            columns,
            pixels=dataset.pixels,
            scores={key: one.task.scores if labelled else {} for key, one in networks.items()},
            headerless=False,
        )
        facts = {"pictures": len(dataset), "crop": crop, "qualities": columns}
        write(name, {**facts, "networks": {key: one.digest for key, one in networks.items()}, **results})
    results = json.loads((RESULTS / f"{name}.json").read_text())
    click.echo(at_quality(results, at) if at else by_network(results) if single else as_markdown(results))


if __name__ == "__main__":
    main()
