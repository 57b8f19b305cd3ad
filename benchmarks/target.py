"""Encoding to a target: how small the files get, and what networks that were asked, or not, read in them.

    python benchmarks/target.py --model zoo.py:resnet18 --model zoo.py:mobilenet_v2 \
        --data val --labels val.csv

Of each network, and of all together. An interrupted run goes on where it was; what is done is in the results.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import platformdirs
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg import encode_to_target, pruning, rule, target
from dnnjpeg.dataset import Dataset, load_dataset
from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.evaluate.measure import Bench, Measurement
from dnnjpeg.evaluate.statistics import Estimate, Samples, means
from dnnjpeg.models import Network, load_network
from dnnjpeg.table import load_table

GROUP = 50
PILLOW = "pillow-optimize"
QUALITIES = (
    5,
    10,
    15,
    20,
    25,
    30,
    35,
    40,
    45,
    50,
    55,
    60,
    65,
    70,
    75,
    80,
    85,
    90,
    92,
    94,
    95,
    96,
    97,
    98,
    99,
    100,
)
TOLERANCE = 0.005  # of top-1, for the milder of two comparisons


class Encoder:
    """Encoding to a target with a memory on disk, one file for each group of pictures."""

    def __init__(self, dataset: Dataset, table: str, threads: int, folder: Path) -> None:
        self.dataset, self.table, self.threads, self.folder = dataset, load_table(table), threads, folder
        folder.mkdir(parents=True, exist_ok=True)
        sources = [inspect.getsource(module) for module in (target, rule, pruning)]
        state = repr((sources, self.table.to_json()))
        self.state = hashlib.sha256(state.encode() + dataset.pictures.tobytes()).hexdigest()

    def __call__(self, networks: Sequence[Network], keep: str, prune: bool) -> dict[str, Any]:
        """Files, and by picture whether the rule is kept, of all pictures."""
        what = f"{', '.join(network.name for network in networks)}: {keep}{', pruned' * prune}"
        files: list[bytes] = []
        kept: list[bool] = []
        for start in tqdm(range(0, len(self.dataset), GROUP), what, unit=f" x {GROUP} pictures"):
            key = repr((self.state, [n.digest for n in networks], keep, prune, start, GROUP))
            path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
            if not path.exists():
                self._encode(path, start, networks=networks, keep=keep, prune=prune)
            with np.load(path) as part:
                data, ends = part["data"].tobytes(), part["ends"].tolist()
                files += [data[a:b] for a, b in pairwise([0, *ends])]
                kept += part["kept"].tolist()
        return {"files": files, "kept": kept}

    def _encode(self, path: Path, start: int, **how: Any) -> None:
        pictures = list(self.dataset.pictures[start : start + GROUP])
        size = pictures[0].shape[0]
        found = encode_to_target(
            pictures, self.table, size=size, threads=self.threads, signature=False, progressive="auto", **how
        )
        data = np.frombuffer(b"".join(one.data for one in found), np.uint8)
        ends = np.cumsum([len(one.data) for one in found])
        temporary = path.with_suffix(".part.npz")
        np.savez(temporary, data=data, ends=ends, kept=[one.kept for one in found])
        temporary.replace(path)


def as_codec(dataset: Dataset, files: Sequence[bytes], name: str) -> Codec:
    """Files that are there already, as a codec that makes them."""
    known = {picture.tobytes(): file for picture, file in zip(dataset.pictures, files, strict=True)}
    return Codec(name, lambda picture, _quality: known[picture.tobytes()])


def saving(found: Measurement, name: str, pillow: Sequence[Measurement], tolerance: float) -> dict[str, Any]:
    """Per cent of bytes against the smallest Pillow quality whose top-1 comes up to that of the files, less a
    tolerance. Where none does, quality 100 stands in, and the true saving is larger.
    """
    top1 = means([found.readings[name].top1])[:, 0] - tolerance
    reached = means([one.readings[name].top1 for one in pillow]) >= top1[:, None]
    first = np.where(reached.any(1), reached.argmax(1), len(pillow) - 1)
    sizes = means([one.bytes for one in pillow])
    change = 100 * (means([found.bytes])[:, 0] / sizes[np.arange(len(sizes)), first] - 1)
    return {
        "bytes_change": estimate(change),
        "pillow_quality": pillow[first[0]].quality,
        "pillow_bytes": round(float(sizes[0, first[0]])),
        "reached": bool(reached[0].any()),
    }


def estimate(samples: Samples, digits: int = 2) -> dict[str, float]:
    one = Estimate.of(samples)
    return {"value": round(one.value, digits), "low": round(one.low, digits), "high": round(one.high, digits)}


def row(
    found: Measurement, asked: Sequence[str], bench: Bench, pillow: Sequence[Measurement]
) -> dict[str, Any]:
    """What a setting is worth: bytes; by network top-1, its change from the original's, and agreement."""
    networks = {}
    for name, read in found.readings.items():
        top1, clean, agrees = means([read.top1, bench.clean[name].top1, read.agrees]).T
        networks[name] = {
            "asked": name in asked,
            "top1": estimate(100 * top1),
            "top1_change": estimate(100 * (top1 - clean)),
            "agrees": estimate(100 * agrees),
        }
        if name in asked:
            networks[name]["equal_top1"] = saving(found, name, pillow, 0)
            networks[name]["near_top1"] = saving(found, name, pillow, TOLERANCE)
    return {
        "bytes": estimate(means([found.bytes])[:, 0], 0),
        "psnr": estimate(means([found.psnr])[:, 0]),
        "networks": networks,
    }


def settings(networks: Sequence[Network], rules: Sequence[str]) -> Iterator[tuple[list[Network], str, bool]]:
    groups = [[network] for network in networks] + ([list(networks)] if len(networks) > 1 else [])
    for prune in (False, True):
        for asked in groups:
            for keep in rules:
                yield asked, keep, prune


def as_markdown(results: dict[str, Any]) -> str:
    """A row for each setting; top-1 of networks that were asked in bold."""
    clean = results["clean_top1"]
    lines = [
        f"| asked | keep | bytes | against Pillow at its top-1 | {' | '.join(clean)} |",
        f"|---|---|---:|---:|{'---:|' * len(clean)}",
        f"| originals | | | | {' | '.join(f'{top1:.1f}' for top1 in clean.values())} |",
    ]
    for one in results["settings"]:
        asked = ", ".join(one["asked"]) if len(one["asked"]) < len(clean) else "all"
        savings = [_saving(net["equal_top1"]) for net in one["networks"].values() if net["asked"]]
        cells = (
            asked,
            one["keep"] + ", pruned" * one["prune"],
            f"{one['bytes']['value']:,.0f} ({one['bytes']['low']:,.0f}..{one['bytes']['high']:,.0f})",
            ", ".join(savings),
            *(
                f"{'**' * net['asked']}{net['top1']['value']:.1f}{'**' * net['asked']}"
                for net in one["networks"].values()
            ),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _saving(found: dict[str, Any]) -> str:
    """With a ~ where no quality of Pillow's reaches as much."""
    change = found["bytes_change"]
    text = f"{change['value']:+.0f} % ({change['low']:+.0f}..{change['high']:+.0f})"
    return text if found["reached"] else f"~{text}"


@click.command()
@click.option("--model", "models", metavar="SPEC", multiple=True, help="Network; may be given several times.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Pictures.")
@click.option("--labels", type=click.Path(exists=True, path_type=Path), help="CSV: file, label.")
@click.option("--table", default="standard", show_default=True)
@click.option("--keep", "rules", multiple=True, default=["top1", "divergence=0.3"], show_default=True)
@click.option("--size", default=224, show_default=True, help="To which pictures are cut.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures.")
@click.option("--threads", default=2, show_default=True, help="Of the encoder.")
@click.option("--name", default="target", show_default=True, help="Of the file of results.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and encode nothing.")
def main(
    models: tuple[str, ...],
    data: Path,
    labels: Path,
    table: str,
    rules: tuple[str, ...],
    size: int,
    limit: int | None,
    threads: int,
    name: str,
    show: bool,
) -> None:
    """Measure, print a Markdown table, and write benchmarks/results/NAME.json after each setting."""
    if not show:
        dataset = load_dataset(data, labels, size=size, limit=limit)
        networks = [load_network(spec) for spec in models]
        folder = platformdirs.user_cache_path("dnnjpeg") / "target"
        bench = Bench(dataset, {network.name: network for network in networks}, folder)
        encoder = Encoder(dataset, table, threads, folder)
        pillow = [bench.measure(load_codec(PILLOW), quality) for quality in tqdm(QUALITIES, PILLOW)]
        results: dict[str, Any] = {
            "table": table,
            "pictures": len(dataset),
            "clean_top1": {key: round(100 * float(read.top1.mean()), 2) for key, read in bench.clean.items()},
            "pillow": [
                {
                    "quality": one.quality,
                    "bytes": round(float(one.bytes.mean())),
                    "top1": {
                        key: round(100 * float(read.top1.mean()), 2) for key, read in one.readings.items()
                    },
                }
                for one in pillow
            ],
            "settings": [],
        }
        for asked, keep, prune in settings(networks, rules):
            found = encoder(asked, keep, prune)
            names = [network.name for network in asked]
            codec = as_codec(dataset, found["files"], f"{encoder.state} {names} {keep} {prune}")
            what = {
                "asked": names,
                "keep": keep,
                "prune": prune,
                "kept": round(100 * float(np.mean(found["kept"])), 2),
            }
            results["settings"].append(what | row(bench.measure(codec, 0), names, bench, pillow))
            write(name, results)
    click.echo(as_markdown(json.loads((RESULTS / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
