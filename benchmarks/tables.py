"""Print the small tables of the site from benchmarks/results.

python benchmarks/tables.py startup           or memory, or rate
"""

import json
from collections.abc import Iterator, Sequence

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
    name = "the same with nothing compiled, wall seconds"
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


TABLES = {"startup": startup, "memory": memory, "rate": rate}


@click.command()
@click.argument("name", type=click.Choice(list(TABLES)))
def main(name: str) -> None:
    """Print a Markdown table."""
    head, *rows = TABLES[name](json.loads((RESULTS / f"{name}.json").read_text()))
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
