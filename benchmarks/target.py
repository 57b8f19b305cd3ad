"""Encoding to a target: how small the files get, and what networks that were asked, or not, read in them.

    python benchmarks/target.py --network zoo.py:resnet18 --network zoo.py:mobilenet_v2 \
        --data val --labels val.csv

Of each network, and of all together, or of those that `--ask` names, as resnet18+resnet50. The table `own` is
the one that is named after the network, or `universal` for several; {others} in the path of a table stands
for those that are not asked. An interrupted run goes on where it was; what is done is in the results.
"""

import inspect
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import platformdirs
from common import RESULTS, write
from ruler import hasten
from tqdm import tqdm

from dnnjpeg import adaptive, encode_to_target
from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.evaluate.curves import Curve, per_cent
from dnnjpeg.evaluate.ladder import Ladder, goodness, shaped
from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.evaluate.measure import measure as measure_codec
from dnnjpeg.evaluate.statistics import Estimate, Samples, means
from dnnjpeg.files.cache import Arrays, Cache, key
from dnnjpeg.files.dataset import Dataset, load_dataset
from dnnjpeg.networks import criterion
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.measurer import Measurer, by_name
from dnnjpeg.networks.readings import Readings
from dnnjpeg.table.library import load_table
from dnnjpeg.table.table import Table
from dnnjpeg.target import pruning, search, target

GROUP = 50
PILLOW = "pillow-optimize"
QUALITIES = range(5, 100, 5)
FINEST = 92, 94, 96, 97, 98, 99, 100  # of Pillow's, that some top-1 takes
TOLERANCE = 0.005  # of top-1, for the milder of two comparisons


class Encoder:
    """Encoding to a target with a cache, one file for each group of pictures."""

    def __init__(self, dataset: Dataset, threads: int, folder: Path) -> None:
        self.dataset, self.threads, self.cache = dataset, threads, Cache(folder)
        sources = [
            inspect.getsource(what)
            for what in (target, search, criterion, pruning, adaptive, inspect.getmodule(Table))
        ]
        self.state = key(sources, dataset.identity)

    def __call__(self, networks: Sequence[Network], table: Table, keep: str, prune: bool) -> dict[str, Any]:
        """Files, and by picture whether the criterion is kept, of all pictures; and a name for all that they
        depend on.
        """
        what = f"{', '.join(network.name for network in networks)}: {table.name}, {keep}{', pruned' * prune}"
        state = key(self.state, table.to_json(), [n.digest for n in networks], keep, prune)
        files: list[bytes] = []
        kept: list[bool] = []
        for start in tqdm(range(0, len(self.dataset), GROUP), what, unit=f" x {GROUP} pictures"):
            name = key(state, start, GROUP)
            part = self.cache.load(name)
            if not part:
                part = self._encode(start, networks=networks, table=table, keep=keep, prune=prune)
                self.cache.save(name, part)
            data, ends = part["data"].tobytes(), part["ends"].tolist()
            files += [data[a:b] for a, b in pairwise([0, *ends])]
            kept += part["kept"].tolist()
        return {"files": files, "kept": kept, "state": state}

    def _encode(self, start: int, **how: Any) -> Arrays:
        pictures = list(self.dataset.pictures[start : start + GROUP])
        found = encode_to_target(pictures, threads=self.threads, signature=False, progressive="auto", **how)
        data = np.frombuffer(b"".join(one.data for one in found), np.uint8)
        ends = np.cumsum([len(one.data) for one in found])
        return {"data": data, "ends": ends, "kept": np.array([one.met for one in found])}


def as_codec(dataset: Dataset, files: Sequence[bytes], name: str) -> Codec:
    """Files that are there already, as a codec that makes them."""
    known = {picture.tobytes(): file for picture, file in zip(dataset.pictures, files, strict=True)}
    return Codec(name, lambda picture, _quality: known[picture.tobytes()])


def saving(found: Measurement, name: str, pillow: Sequence[Measurement], tolerance: float) -> dict[str, Any]:
    """Per cent of bytes against the smallest Pillow quality whose top-1 comes up to that of the files, less a
    tolerance. Where none does, quality 100 stands in, and the true saving is larger.
    """
    top1 = means([accuracy(found.readings[name])])[:, 0] - tolerance
    reached = means([accuracy(one.readings[name]) for one in pillow]) >= top1[:, None]
    first = np.where(reached.any(1), reached.argmax(1), len(pillow) - 1)
    sizes = means([one.bytes for one in pillow])
    change = 100 * (means([found.bytes])[:, 0] / sizes[np.arange(len(sizes)), first] - 1)
    return {
        "bytes_change": estimate(change),
        "pillow_quality": pillow[first[0]].quality,
        "pillow_bytes": round(float(sizes[0, first[0]])),
        "reached": bool(reached[0].any()),
    }


def accuracy(read: Readings) -> np.ndarray:
    """Top-1; without labels, how often the class is that of the original."""
    return read.metrics.get("top1", read.agrees)


def read_by(name: str, pillow: Ladder) -> list[Measurement]:
    """The settings that a network has read: those around an answer are read by the one that it is about."""
    return [one for one in pillow.settings if name in one.readings]


def at_equal(metric: str, found: Measurement, name: str, pillow: Ladder) -> dict[str, Any]:
    """Per cent of bytes against Pillow where it has the mean divergence, or cross-entropy, of the files; and
    the smallest of its qualities that is read as well, None where none is.
    """
    pillow.settle(name, metric, goodness(found.readings[name], metric))
    settings = read_by(name, pillow)
    read = shaped(means([getattr(one.readings[name], metric) for one in (found, *settings)]), metric)
    sizes = means([one.bytes for one in (found, *settings)])
    reference = Curve(sizes[:, 1:], read[:, 1:]).log_bytes_at(read[:, 0])
    reached = [one.quality for one, value in zip(settings, read[0, 1:], strict=True) if value >= read[0, 0]]
    return {
        metric: estimate(means([getattr(found.readings[name], metric)])[:, 0], 4),
        "bytes_change": estimate(per_cent(np.log(sizes[:, 0]) - reference)),
        "pillow_quality": min(reached, default=None),
    }


def estimate(samples: Samples, digits: int = 2) -> dict[str, float | None]:
    """None is beyond all of Pillow's qualities."""
    found = asdict(Estimate.of(samples))
    return {key: round(value, digits) if math.isfinite(value) else None for key, value in found.items()}


def row(found: Measurement, asked: Sequence[str], measurer: Measurer, pillow: Ladder) -> dict[str, Any]:
    """What a setting is worth: bytes; by network top-1, its change from the original's, and agreement."""
    networks = {}
    for name, read in found.readings.items():
        original = measurer.originals[name]
        top1, clean, agrees = means([accuracy(read), accuracy(original), read.agrees]).T
        networks[name] = {
            "asked": name in asked,
            "top1": estimate(100 * top1),
            "top1_change": estimate(100 * (top1 - clean)),
            "agrees": estimate(100 * agrees),
            "equal_divergence": at_equal("divergence", found, name, pillow),
        }
        if "loss" in read.metrics:
            networks[name]["equal_loss"] = at_equal("loss", found, name, pillow)
        if name in asked:
            networks[name]["equal_top1"] = saving(found, name, read_by(name, pillow), 0)
            networks[name]["near_top1"] = saving(found, name, read_by(name, pillow), TOLERANCE)
    return {
        "bytes": estimate(means([found.bytes])[:, 0], 0),
        "psnr": estimate(means([found.psnr])[:, 0]),
        "networks": networks,
    }


def settings(
    networks: Sequence[Network], ask: Sequence[str], tables: Sequence[str], rules: Sequence[str]
) -> Iterator[tuple[list[Network], str, str]]:
    """Who is asked, the table, and the criterion."""
    names = [network.name for network in networks]
    groups = [group.split("+") for group in ask] or [[name] for name in names] + [names] * (len(names) > 1)
    by_name = dict(zip(names, networks, strict=True))
    for keep, table, asked in itertools.product(rules, tables, groups):
        own = asked[0] if len(asked) == 1 else "universal"
        others = "+".join(name for name in names if name not in asked)
        yield [by_name[name] for name in asked], own if table == "own" else table.format(others=others), keep


def as_markdown(results: dict[str, Any]) -> str:
    """A row for each setting; networks that were asked in bold."""
    clean = results["clean_top1"]
    if not any(criterion.Criterion.parse(one["keep"]).is_bound for one in results["settings"]):
        return _at_equal(results)
    lines = [
        f"| asked | keep | table | bytes | against Pillow at its top-1 | {' | '.join(clean)} |",
        f"|---|---|---|---:|---:|{'---:|' * len(clean)}",
        f"| originals | | | | | {' | '.join(f'{top1:.1f}' for top1 in clean.values())} |",
    ]
    for one in results["settings"]:
        savings = [_saving(net["equal_top1"]) for net in one["networks"].values() if net["asked"]]
        cells = (
            _asked(one),
            one["keep"],
            one["table"] + ", pruned" * one["prune"],
            f"{one['bytes']['value']:,.0f} ({one['bytes']['low']:,.0f}..{one['bytes']['high']:,.0f})",
            ", ".join(savings),
            *(
                f"{'**' * net['asked']}{net['top1']['value']:.1f}{'**' * net['asked']}"
                for net in one["networks"].values()
            ),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _at_equal(results: dict[str, Any]) -> str:
    """Bytes against Pillow at equal mean divergence, by network, and the quality that it takes for that.
    Results from before the divergence was read have the cross-entropy.
    """
    names = list(results["clean_top1"])
    lines = [
        f"| asked | keep | table | bytes | {' | '.join(names)} |",
        f"|---|---|---|---:|{'---:|' * len(names)}",
    ]
    for one in results["settings"]:
        cells = [
            _asked(one),
            one["keep"],
            one["table"],
            f"{one['bytes']['value']:,.0f}",
        ]
        for net in one["networks"].values():
            equal = net.get("equal_divergence") or net["equal_loss"]
            change, quality = equal["bytes_change"], equal["pillow_quality"]
            value, low, high = ("?" if x is None else f"{x:+.0f}" for x in change.values())
            text = "beyond" if value == "?" else f"{value} % ({low}..{high}) at {quality:g}"
            cells.append(f"**{text}**" if net["asked"] else text)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _asked(setting: dict[str, Any]) -> str:
    return ", ".join(setting["asked"]) if len(setting["asked"]) < len(setting["networks"]) else "all"


def _saving(found: dict[str, Any]) -> str:
    """With a ~ where no quality of Pillow's reaches as much."""
    change = found["bytes_change"]
    text = f"{change['value']:+.0f} % ({change['low']:+.0f}..{change['high']:+.0f})"
    return text if found["reached"] else f"~{text}"


def measure(
    measurer: Measurer, encoder: Encoder, settings: Sequence[tuple[list[Network], str, str]], prune: bool
) -> Iterator[dict[str, Any]]:
    """The results, after each setting."""
    dataset = measurer.dataset
    keeps_top1 = any(criterion.Criterion.parse(keep).is_bound for _, _, keep in settings)
    qualities = sorted([*QUALITIES, *FINEST * keeps_top1])
    pillow = Ladder(load_codec(PILLOW), partial(measure_codec, measurer))
    for quality in tqdm(qualities, PILLOW):
        pillow.at(quality, measurer.networks)
    results: dict[str, Any] = {
        "pictures": len(dataset),
        "clean_top1": _top1(measurer.originals),
        "pillow": [
            {
                "quality": one.quality,
                "bytes": round(float(one.bytes.mean())),
                "top1": _top1(one.readings),
            }
            for one in pillow.settings
        ],
        "settings": [],
    }
    for networks, table, keep in settings:
        found = encoder(networks, load_table(table), keep, prune)
        names = [network.name for network in networks]
        what = {
            "asked": names,
            "keep": keep,
            "table": Path(table).stem,
            "prune": prune,
            "kept": round(100 * float(np.mean(found["kept"])), 2),
        }
        measured = measure_codec(measurer, as_codec(dataset, found["files"], found["state"]), 1)
        results["settings"].append(what | row(measured, names, measurer, pillow))
        yield results


def _top1(readings: Mapping[str, Readings]) -> dict[str, float]:
    return {name: round(100 * float(accuracy(read).mean()), 2) for name, read in readings.items()}


@click.command()
@click.option(
    "--network", "specs", metavar="SPEC", multiple=True, help="Network; may be given several times."
)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Pictures.")
@click.option("--labels", type=click.Path(exists=True, path_type=Path), help="CSV: file, label.")
@click.option(
    "--ask", metavar="NAME[+NAME]...", multiple=True, help="Whom to ask.  [default: each network, and all]"
)
@click.option("--table", "tables", multiple=True, default=["standard"], show_default=True)
@click.option("--keep", "rules", multiple=True, default=["top1", "divergence=0.3"], show_default=True)
@click.option("--prune", is_flag=True, help="Prune the files.")
@click.option("--crop", type=click.IntRange(1), help="Cut pictures to this side before they are encoded.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures.")
@click.option("--threads", default=2, show_default=True, help="Of the encoder.")
@click.option("--dense", is_flag=True, help="Run the networks as they are, and not on dnnjpeg.sparse.")
@click.option("--name", default="target", show_default=True, help="Of the file of results.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and encode nothing.")
def main(
    specs: tuple[str, ...],
    data: Path,
    labels: Path,
    ask: tuple[str, ...],
    tables: tuple[str, ...],
    rules: tuple[str, ...],
    prune: bool,
    crop: int | None,
    limit: int | None,
    threads: int,
    dense: bool,
    name: str,
    show: bool,
) -> None:
    """Measure, print a Markdown table, and write benchmarks/results/NAME.json after each setting."""
    if not show:
        dataset = load_dataset(data, labels, size=crop, limit=limit)
        folder = platformdirs.user_cache_path("dnnjpeg")
        networks = [load_network(spec) for spec in specs]
        for network in [] if dense else networks:
            hasten(network, dataset.pictures[:8], folder / "plans")
        encoder = Encoder(dataset, threads, folder / "target")
        readings = Cache(folder / "readings")
        measurer = Measurer(dataset, by_name(networks), readings, batch=None if dense else 1)
        # pruning needs gradients, which dnnjpeg.sparse does not give
        asked = [load_network(spec) for spec in specs] if prune else networks
        for results in measure(measurer, encoder, list(settings(asked, ask, tables, rules)), prune):
            write(name, results)
    click.echo(as_markdown(json.loads((RESULTS / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
