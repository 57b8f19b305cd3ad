"""Print the small tables of the site from benchmarks/results.

python benchmarks/tables.py startup           or another name of `TABLES`
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import click
from common import RESULTS


def startup(found: dict) -> Iterator[Sequence[str]]:
    results = found["results"]
    yield "seconds", "median"
    for name in (
        "bare python, seconds",
        "import dnnjpeg, seconds more",
        "dnnjpeg encode one.jpg, wall seconds",
    ):
        yield name, f"{results[name]['median']:.2f}"
    for name in (
        "the same with nothing compiled, wall seconds",
        "the same with nothing compiled, CPU seconds",
    ):
        yield name, f"{results[name]:.2f}"


def memory(found: dict) -> Iterator[Sequence[str]]:
    yield "the process at its largest", "megabytes"
    for name, megabytes in found["megabytes"].items():
        yield name, f"{megabytes:,}"


def rate(found: dict) -> Iterator[Sequence[str]]:
    yield "error, %", "mean", "mean of absolute values", "worst picture"
    for kind, by_subsampling in found["error, %"].items():
        for subsampling, error in by_subsampling.items():
            numbers = f"{error['mean']:+.1f}", f"{error['absolute']:.1f}", f"{error['worst']:.1f}"
            yield f"{kind}, {subsampling}", *numbers


def cluster(found: dict) -> Iterator[Sequence[str]]:
    pictures = found["shards"] * found["pictures_a_shard"]
    yield f"{pictures:,} pictures", "median seconds", "pictures a second"
    for kind, seconds in found["seconds"].items():
        took = median(seconds)
        yield kind.replace("1 nodes", "1 node"), f"{took:.1f}", f"{pictures / took:.0f}"


def transcode_speed(found: dict) -> Iterator[Sequence[str]]:
    groups = found["groups"]
    yield "milliseconds a file", *groups
    for name in next(iter(groups.values())):
        if name.endswith(", ms"):
            yield name.removesuffix(", ms"), *(f"{group[name]:.2f}" for group in groups.values())
    for name in next(iter(groups.values())):
        if not name.endswith(", ms"):
            yield name.replace(" over: ", " against: "), *(f"{group[name]:.2f}x" for group in groups.values())


def transcode_folder(found: dict) -> Iterator[Sequence[str]]:
    groups = found["groups"]
    yield "pictures a second", *(f"{name}, {group['pictures']:,} files" for name, group in groups.items())
    ways = {"coefficients": "by coefficients", "pixels": "by pixels", "before": "before, by pixels"}
    for way, label in ways.items():
        name = f"{way}, pictures a second"
        yield label, *(f"{group[name]:.0f}" for group in groups.values())
    for way in ("pixels", "before"):
        name = f"coefficients over {way}"
        yield name, *(f"{group[name]:.2f}x" for group in groups.values())


KINDS = {
    "flowers17": "144x144, progressive",
    "full": "about 500x375",
    "both": "both, about as in the first table",
}


def cores(found: dict) -> Iterator[Sequence[str]]:
    yield "pictures", "pixels", "bytes before", "bytes after", "a second a core", "core hours for 10^9"
    for kind, label in KINDS.items():
        row = found["one_processor"][kind]
        numbers = (row[name] for name in ("mean_pixels", "mean_bytes", "mean_bytes_after"))
        rate = row["pictures_per_second"]
        yield label, *(f"{number:,}" for number in numbers), f"{rate:.0f}", f"{1e9 / rate / 3600:,.0f}"


def requests(found: dict) -> Iterator[Sequence[str]]:
    yield "pictures a shard", "HEAD", "GET", "PUT", "LIST", "again", "MB in", "MB out", "MB of memory"
    for row in found["bucket"]:
        once = {name: _requests(row, name) for name in ("HEAD", "GET", "PUT", "LIST")}
        again = sum(row["a_shard"]["again"].get(name, 0) for name in once)
        traffic = (row["a_shard"]["shards"][name] / 1e6 for name in ("bytes down", "bytes up"))
        yield (
            f"{row['pictures']:,}", *map(str, once.values()), str(again),
            *(f"{number:.0f}" for number in traffic), str(row["peak_mb"]),
        )  # fmt: skip


def _requests(row: dict, name: str) -> int:
    """Of a shard that is made: before the first shard, and for it."""
    return sum(row["a_shard"][part].get(name, 0) for part in ("start", "shards"))


def plan(found: dict) -> Iterator[Sequence[str]]:
    """A billion of the larger pictures."""
    rate = found["one_processor"]["full"]["pictures_per_second"]
    yield "pictures a shard", "shards", "million requests", "TB in", "TB out", "cores, 1 day", "cores, 1 week"
    for row in found["bucket"]:
        shards = 1e9 / row["pictures"]
        asked = sum(_requests(row, name) for name in ("HEAD", "GET", "PUT", "LIST"))
        traffic = (shards * row["a_shard"]["shards"][name] / 1e12 for name in ("bytes down", "bytes up"))
        days = (math.ceil(1e9 / rate / 86400 / days) for days in (1, 7))
        yield (
            f"{row['pictures']:,}", f"{shards:,.0f}", f"{shards * asked / 1e6:.1f}",
            *(f"{number:.0f}" for number in traffic), *map(str, days),
        )  # fmt: skip


# The table by its name: the file of results, and what makes rows of it.
TABLES: dict[str, tuple[str, Callable[[dict], Iterator[Sequence[str]]]]] = {
    "startup": ("startup", startup),
    "memory": ("memory", memory),
    "rate": ("rate", rate),
    "transcode_speed": ("transcode_speed", transcode_speed),
    "transcode_speed-xeon": ("transcode_speed-xeon", transcode_speed),
    "transcode_folder": ("transcode_folder", transcode_folder),
    "cluster": ("cluster", cluster),
    "cores": ("bucket", cores),
    "requests": ("bucket", requests),
    "plan": ("bucket", plan),
}


@click.command()
@click.argument("name", type=click.Choice(list(TABLES)))
def main(name: str) -> None:
    """Print a Markdown table."""
    file, rows_of = TABLES[name]
    head, *rows = rows_of(json.loads((RESULTS / f"{file}.json").read_text()))
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
