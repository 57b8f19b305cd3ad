"""Draw what the site's page of concepts explains, each for a light and a dark page.

python benchmarks/drawings.py                 into docs/assets
"""

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from plots import ASSETS, Theme, draw_all, results

from dnnjpeg import load_table


def table(theme: Theme) -> Figure:
    """The luma steps of the standard table and of a learned one, at one quality."""
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2), ("standard", "universal"), strict=True):
        steps = np.reshape(load_table(name).at(50).luma, (8, 8))
        panel.pcolormesh(steps, cmap="Blues", norm=LogNorm(4, 255))
        for (y, x), step in np.ndenumerate(steps):
            colour = "white" if step > 60 else "black"
            panel.text(x + 0.5, y + 0.5, step, ha="center", va="center", color=colour, fontsize=8)
        panel.set_title(f"{name}, luma, quality 50", fontsize=10)
        panel.set_xlabel("horizontal frequency →")
        panel.set_ylabel("← vertical frequency")
        panel.set(xticks=[], yticks=[], aspect="equal")
        panel.invert_yaxis()
    return figure


def point(theme: Theme) -> Figure:
    """The typical luma step of a table at each quality, and its points."""
    figure = Figure(figsize=(7.4, 2.9), layout="constrained")
    panel = figure.subplots()
    universal = load_table("universal")

    def typical(steps: tuple[int, ...]) -> float:
        return float(np.exp(np.log(steps).mean()))

    qualities = np.arange(10, 97)
    for name, colour in (("standard", theme.others), ("universal", theme.ours)):
        curve = [typical(load_table(name).at(quality).luma) for quality in qualities]
        panel.plot(qualities, curve, color=colour, label=f"{name} table", lw=1.5)
    for subsampling, marker in (("4:2:0", "o"), ("4:4:4", "s")):
        points = [one for one in universal.points if one.subsampling == subsampling]
        typicals = [typical(one.luma) for one in points]
        label = f"point of the universal table, {subsampling}"
        panel.plot([one.quality for one in points], typicals, marker, color=theme.ours, ms=7, label=label)
    panel.set_yscale("log")
    panel.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    panel.minorticks_off()
    panel.set_xlabel("quality")
    panel.set_ylabel("luma step, geometric mean")
    panel.legend(frameon=False, fontsize=8)
    panel.grid()
    return figure


def quality(theme: Theme) -> Figure:
    """What a network loses over the bytes, and the bytes of two files in which it loses as much."""
    network, at = "resnet50", 50
    found = results("ruler")
    figure = Figure(figsize=(7.4, 3.2), layout="constrained")
    panel = figure.subplots()
    for codec, label, colour in (
        ("pillow-optimize", "Pillow", theme.others),
        ("dnnjpeg:universal", "universal table", theme.ours),
    ):
        some = [row for row in found["settings"] if row["codec"] == codec and network in row["networks"]]
        some.sort(key=lambda row: row["bytes"]["value"])
        sizes = [row["bytes"]["value"] / 1000 for row in some]
        lost = [row["networks"][network]["divergence"]["value"] for row in some]
        panel.plot(sizes, lost, "o-", ms=3, color=colour, label=label)
    (reference,) = (r for r in found["settings"] if (r["codec"], r["quality"]) == ("pillow-optimize", at))
    (row,) = (
        r
        for r in found["comparisons"]
        if (r["codec"], r["network"], r["metric"]) == ("dnnjpeg:universal", network, "divergence")
    )
    (ours,) = (p for p in row["points"] if p["quality"] == at)
    x, y = reference["bytes"]["value"] / 1000, reference["networks"][network]["divergence"]["value"]
    arrow = {"arrowstyle": "->", "color": theme.ink, "lw": 1.5, "shrinkA": 4, "shrinkB": 4}
    panel.annotate("", (ours["bytes"]["value"] / 1000, y), (x, y), arrowprops=arrow)
    panel.annotate(f"Pillow's quality {at}", (x, y), (6, 6), textcoords="offset points")
    panel.text(x * 0.88, y * 0.8, "same divergence, fewer bytes", ha="right", va="top")
    panel.set(xscale="log", yscale="log", xlabel=f"kB a picture ({network}, 200 pictures)")
    panel.set_ylabel("divergence, nat")
    panel.set_xticks([10, 20, 30, 40], ["10", "20", "30", "40"])
    panel.set_yticks([0.05, 0.1, 0.2, 0.5], ["0.05", "0.1", "0.2", "0.5"])
    panel.minorticks_off()
    panel.legend(frameon=False)
    panel.grid()
    return figure


def hardness(theme: Theme) -> Figure:
    """The probability of the index 1, by coefficient."""
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    panel = figure.subplots()
    coefficient = np.linspace(0, 2, 401)
    indices = np.arange(-6, 9)
    for kappa, line in ((5, "--"), (20, "-")):
        weights = np.exp(-kappa * (coefficient[:, None] - indices) ** 2)
        panel.plot(
            coefficient,
            weights[:, indices == 1].ravel() / weights.sum(1),
            line,
            color=theme.ours,
            label=f"hardness {kappa}",
        )
    panel.step([0, 0.5, 1.5, 2], [0, 1, 0, 0], where="post", color=theme.others, label="rounding")
    panel.set_xlabel("coefficient, in steps")
    panel.set_ylabel("probability of index 1")
    panel.legend(frameon=False)
    panel.grid()
    return figure


def bin_width(theme: Theme) -> Figure:
    """Which coefficients become which index, and what these decode to."""
    figure = Figure(figsize=(7.4, 2.2), layout="constrained")
    panel = figure.subplots()
    for y, width in enumerate((1, 1.2)):
        for index in (-2, -1, 0, 1, 2):
            left, right = (index - 0.5) * width, (index + 0.5) * width
            panel.barh(y, right - left, 0.5, left, color=theme.ours, alpha=0.15 + 0.2 * (index % 2))
            panel.text((left + right) / 2, y - 0.36, f"index {index}", ha="center", fontsize=8)
            panel.plot([index], [y], "o", color=theme.ink, ms=5)
    panel.plot([], [], "o", color=theme.ink, label="what a decoder makes of the index")
    panel.set_yticks([0, 1], ["bin width 1", "bin width 1.2"])
    panel.set_ylim(1.4, -0.6)
    panel.set_xlabel("coefficient, in steps")
    panel.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.25), fontsize=9)
    return figure


DRAWINGS: dict[str, Callable[[Theme], Figure]] = {
    "table": table,
    "point": point,
    "quality": quality,
    "hardness": hardness,
    "bin_width": bin_width,
}


@click.command()
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=ASSETS)
def main(output: Path) -> None:
    """Draw the concepts."""
    for path in draw_all(DRAWINGS, output):
        click.echo(path)


if __name__ == "__main__":
    main()
