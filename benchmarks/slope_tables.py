"""The shipped tables, from the slopes that were measured for them.

    python benchmarks/slope_tables.py            write the tables that are named in the results
    python benchmarks/slope_tables.py --check    say whether they are what the slopes give

The tables are universal, one for each network alone, and results/universal/without-NETWORK.json: universal
as it would be without a network, to judge it by a network that took no part.

`results/slopes.json` has the slopes of `dnnjpeg.learn.slopes` by network: 33 trials in four rounds around the
universal table, each on 72 to 80 learning pictures, squares and files as stored, of no class of full/val. A
table for other networks is fitted to the same trials, with the shares of its own. By table it has places as
well: at some x, the quality of the standard files that lose as much, on 400 of these pictures, the mean of
networks, squares and files in logarithms. Points lie between the places.
"""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import RESULTS

import dnnjpeg
from dnnjpeg.learn.bench import as_point
from dnnjpeg.learn.smooth import Slope, SmoothTables, coordinate
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

TABLES = Path(__file__).parents[1] / "tables"
LEFT_OUT = "without-"  # and the name of a network
COMMAND = "python benchmarks/slope_tables.py"


def fitted(trials: list[dict[str, Any]], networks: list[str], subsampling: str) -> SmoothTables:
    """Each network's share counts alike."""
    slopes = []
    for trial in trials:
        if trial["subsampling"] == subsampling:
            shares = [trial["networks"][name] for name in networks]
            slopes.append(
                Slope(
                    trial["x"],
                    np.array(trial["log_steps"]),
                    np.mean([one["damage"] for one in shares], axis=0),
                    np.sum([one["variance"] for one in shares], axis=0) / len(shares) ** 2,
                    np.array(trial["bytes"]),
                )
            )
    return SmoothTables(slopes, 2)


def point_at(fit: SmoothTables, quality: float, placed: dict[str, Any], subsampling: str) -> OperatingPoint:
    """The point that loses as much as the standard file of a quality: by a line through the places."""
    known = np.array([[coordinate(q), x] for x, q in placed[subsampling]])
    degree = min(len(known) - 1, 2)
    x = float(np.polynomial.Polynomial.fit(*known.T, degree)(coordinate(quality)))
    return as_point(fit.log_steps(x), subsampling)


def made(results: dict[str, Any], name: str) -> Table:
    """A table by its name in the results."""
    placed = results["tables"][name]
    fits = {one: fitted(results["trials"], placed["networks"], one) for one in ("4:2:0", "4:4:4")}
    points = []
    for quality, widths in zip(results["qualities"], placed["bin_width"], strict=True):
        subsampling = "4:2:0" if quality <= placed["last_subsampled"] else "4:4:4"
        point = point_at(fits[subsampling], quality, placed["placed"], subsampling)
        points.append(OperatingPoint(quality, subsampling, point.luma, point.chroma, bin_width=[widths, 1]))
    provenance = {
        "models": [{"name": one, "weights": results["networks"][one]} for one in placed["networks"]],
        "data": results["data"],
        "seed": 0,
        "command": COMMAND,
        "version": dnnjpeg.__version__,
        "date": results["date"],
    }
    return Table(name, points, f"learned for {', '.join(placed['networks'])} by slopes", provenance)


def file_of(name: str) -> Path:
    return (RESULTS / "universal" if name.startswith(LEFT_OUT) else TABLES) / f"{name}.json"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a table is another.")
def main(check: bool) -> None:
    """Make the tables."""
    results = json.loads((RESULTS / "slopes.json").read_text())
    for name in results["tables"]:
        table = made(results, name)
        if not check:
            table.save(file_of(name))
        elif Table.load(file_of(name)) != table:
            raise click.ClickException(f"{file_of(name)} is not what the slopes give: run {COMMAND}")


if __name__ == "__main__":
    main()
