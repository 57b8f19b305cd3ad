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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import platformdirs
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg.cache import Cache
from dnnjpeg.dataset import load_dataset
from dnnjpeg.evaluate.codecs import load_codec
from dnnjpeg.evaluate.ladder import Ladder, climb
from dnnjpeg.evaluate.measure import Measurement, measure
from dnnjpeg.evaluate.report import report
from dnnjpeg.evaluate.text import interval, mean_and_worst
from dnnjpeg.measurer import Measurer, by_name
from dnnjpeg.models import Network, load_network

REFERENCE = "pillow-optimize"
CODECS = (
    "dnnjpeg:universal",
    "dnnjpeg:{network}",
    "pillow-optimize,subsampling=4:4:4",
    "pillow-optimize,reduce={reduced}",
    "mozjpeg",
    "jpegli",
    "webp",
)
NETWORKS = ("mobilenet_v1_075", "mobilenet_v2", "resnet18", "resnet50")


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
        metrics = ("divergence", "loss") if labelled else ("divergence",)
        climb(ladders, readers, [REFERENCE], qualities, metrics)
    return {
        row: [one for codec in dict.fromkeys(own.values()) for one in ladders[codec].settings]
        for row, own in wanted.items()
    }


def as_markdown(results: dict[str, Any]) -> str:
    """Means and worst networks; then, by row and network, the divergence at the nominal quality."""
    qualities = results["qualities"]
    parts = []
    for metric, title in (("divergence", "equal divergence"), ("loss", "equal cross-entropy")):
        some = [row for row in results["comparisons"] if row["metric"] == metric]
        if not some:
            continue
        means = {row["codec"]: row for row in some if row["network"] is None or len(results["clean"]) == 1}
        parts.append(_heads([f"bytes at {title}, %", *(f"quality {q:g}" for q in qualities)]))
        parts += [
            _row([name, *(mean_and_worst(point, 0) for point in row["points"])])
            for name, row in means.items()
        ]
        parts += ["", _heads([f"by network, {title}", *(f"quality {q:g}" for q in qualities)])]
        for row in some:
            if row["network"] is not None:
                cells = [_interval(point["bytes_change"]) for point in row["points"]]
                parts.append(_row([f"{row['network']}: {row['codec']}", *cells]))
        parts.append("")
    nominal = results["nominal"]
    tables = dict.fromkeys(
        (row["codec"], row["network"]) for row in nominal if row["codec"].startswith("dnnjpeg:")
    )
    parts.append(_heads(["divergence at the same quality, %", *(f"quality {q:g}" for q in qualities)]))
    for codec, network in tables:
        known = {
            row["quality"]: {key: 100 * (value - 1) for key, value in row["ratio"].items()}
            for row in nominal
            if (row["codec"], row["network"]) == (codec, network)
        }
        parts.append(_row([f"{network}: {codec}", *(_interval(known[q]) for q in qualities)]))
    return "\n".join(parts)


def _heads(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n|---|{'---:|' * (len(cells) - 1)}"


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
@click.option("--name", default="ruler", show_default=True, help="Of the file of results.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and measure nothing.")
def main(
    specs: tuple[str, ...],
    codecs: tuple[str, ...],
    data: Path | None,
    labels: Path | None,
    crop: int | None,
    limit: int | None,
    qualities: str,
    cache: Path | None,
    name: str,
    show: bool,
) -> None:
    """Measure, print the table, and write benchmarks/results/NAME.json."""
    if not show:
        root = Path(os.environ.get("DNNJPEG_DATA", "."))
        columns = sorted({float(quality) for quality in qualities.split(",")})
        loaded = [load_network(spec) for spec in specs or [f"{root}/models/zoo.py:{one}" for one in NETWORKS]]
        networks = by_name(loaded)
        dataset = load_dataset(data or root / "data/full/val", labels, size=crop, limit=limit)
        kept = Cache(cache or platformdirs.user_cache_path("dnnjpeg") / "readings")
        measurer = Measurer(dataset, networks, kept)
        labelled = labels is not None
        found = measured(measurer, rows(codecs, networks), columns, labelled)
        results = report(
            found,
            measurer.originals,
            [REFERENCE],
            columns,
            pixels=dataset.pixels,
            labelled=labelled,
            headerless=False,
        )
        facts = {"pictures": len(dataset), "crop": crop, "qualities": columns}
        write(name, {**facts, "networks": {key: one.digest for key, one in networks.items()}, **results})
    click.echo(as_markdown(json.loads((RESULTS / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
