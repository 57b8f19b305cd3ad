"""Draw the plots of README.md and of the site from benchmarks/results, each for a light and a dark page.

python benchmarks/plots.py                    into docs/assets
"""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import matplotlib
from common import RESULTS
from encode import PROCESSORS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ruler import NAMES

AGAINST_PILLOW = "bytes compared with Pillow, %"
ASSETS = Path(__file__).parents[1] / "docs" / "assets"
OURS = ("universal table", "the same, progressive", "own table", "JPEG-DL")


@dataclass(frozen=True)
class Theme:
    name: str
    ink: str
    faint: str
    ours: str
    others: str


THEMES = (
    Theme("light", "#1f2328", "#d0d7de", "#0969da", "#6e7781"),
    Theme("dark", "#e6edf3", "#3d444d", "#4c9dff", "#9198a1"),
)


def results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def ruler(theme: Theme, name: str) -> Figure:
    """The change of bytes at equal divergence: a panel a quality, a row a codec."""
    found = results(name)
    rows = {row["codec"]: row["points"] for row in found["comparisons"] if _is_mean(row)}
    labels = {label: rows[codec] for codec, label in NAMES.items() if codec in rows}
    figure = Figure(figsize=(9.2, 0.9 + 0.34 * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(found["qualities"]), sharex=True, sharey=True)
    for i, (panel, quality) in enumerate(zip(panels, found["qualities"], strict=True)):
        changes = {label: points[i]["bytes_change"] for label, points in labels.items()}
        _intervals(panel, theme, changes, -40)
        panel.set_title(f"quality {quality:g}", fontsize=10)
        panel.set_xlabel(AGAINST_PILLOW)
    return figure


def _is_mean(row: dict[str, Any]) -> bool:
    return row["network"] is None and row["metric"] == "divergence"


def _intervals(
    panel: Axes, theme: Theme, rows: dict[str, dict[str, Any]], beyond: float, digits: int = 0
) -> None:
    """A dot and a bar a row, from top to bottom. beyond: see `_ends`."""
    for y, (label, found) in enumerate(rows.items()):
        colour = theme.ours if label.endswith(OURS) else theme.others
        panel.plot(_ends(found, beyond), [y, y], color=colour, lw=2, solid_capstyle="butt", alpha=0.55)
        panel.plot([found["value"]], [y], "o", color=colour, ms=6)
        panel.annotate(
            f"{found['value']:+.{digits}f}",
            (found["value"], y),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontsize=8,
        )
    panel.axvline(0, color=theme.ink, lw=1)
    panel.set_yticks(range(len(rows)), list(rows))
    panel.set_ylim(len(rows) - 0.5, -0.7)
    panel.grid(axis="x")


def _ends(found: dict[str, Any], beyond: float) -> list[float]:
    """The ends of an interval. One that is not known is `beyond`, or on the other side of 0."""
    ends = {"low": beyond, "high": -beyond}
    return [end if found[key] is None else found[key] for key, end in ends.items()]


def targets(theme: Theme) -> Figure:
    """What each network saves that is asked alone, at three prices; and what the others make of its files."""
    found, edge = results("target_price"), -85
    prices = list(dict.fromkeys(row["keep"] for row in found["settings"]))
    figure = Figure(figsize=(9.2, 2.8), layout="constrained")
    panels = figure.subplots(1, len(prices), sharex=True, sharey=True)
    for panel, price in zip(panels, prices, strict=True):
        some = [row for row in found["settings"] if row["keep"] == price]
        for y, row in enumerate(some):
            for name, reader in row["networks"].items():
                change = reader["equal_divergence"]["bytes_change"]
                if name in row["asked"]:
                    panel.plot(_ends(change, edge), [y, y], lw=2, alpha=0.55, color=theme.ours)
                    panel.plot([change["value"]], [y], "o", ms=6, color=theme.ours)
                else:
                    panel.plot([change["value"]], [y], "x", ms=6, color=theme.others)
        panel.axvline(0, color=theme.ink, lw=1)
        panel.set_title(price.replace("=", " "), fontsize=10)
        panel.set_xlabel(AGAINST_PILLOW)
        panel.set_yticks(range(len(some)), [f"{row['asked'][0]} asked" for row in some])
        panel.set_ylim(len(some) - 0.5, -0.5)
        panel.set_xlim(edge, 15)
        panel.grid(axis="x")
    panels[0].plot([], [], "o", color=theme.ours, label="read by the network that was asked")
    panels[0].plot([], [], "x", color=theme.others, label="read by the others")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def training(theme: Theme) -> Figure:
    """What the JPEG layer adds to the accuracy, in points, with intervals."""
    panels_of = {"jpegdl_ten": "17 flowers, 10 pictures a class", "jpegdl_cifar_20": "CIFAR-10, 20 epochs"}
    figure = Figure(figsize=(9.2, 2.6), layout="constrained")
    for panel, (name, title) in zip(figure.subplots(1, 2), panels_of.items(), strict=True):
        gains = {
            f"{gain['of'].removeprefix('ten_flowers_').replace('_narrow', '')}: {_arm(gain['arm'])}": gain
            for gain in results(name)["gains, points"]
        }
        _intervals(panel, theme, gains, -20, digits=1)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("top-1, points of gain")
        panel.tick_params(axis="y", labelsize=8)
    return figure


def _arm(arm: str) -> str:
    return {"JPEG-DL, close bounds": "JPEG-DL", "close bounds, untrained": "untrained"}[arm]


def sparse(theme: Theme) -> Figure:
    """The speed of the ring kernel over torch's fastest, by share of zeros."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    panel = figure.subplots()
    for (name, colour), threads in product(
        (("sparse", theme.ours), ("sparse-emeraldrapids", theme.others)), ("1", "2")
    ):
        found = results(name)
        layers = found["layers"][threads].values()
        zeros = list(next(iter(layers)))
        speeds = [statistics.geometric_mean(_speed(layer[share]) for layer in layers) for share in zeros]
        label = f"{found['machine']['cpu']}, {threads} thread{'s' * (threads > '1')}"
        x = [100 * float(share) for share in zeros]
        panel.plot(x, speeds, "o-" if threads == "1" else "s--", color=colour, label=label, ms=4)
    panel.axhline(1, color=theme.ink, lw=1)
    panel.set_yscale("log")
    panel.set_yticks([1, 2, 4, 8], ["1x", "2x", "4x", "8x"])
    panel.minorticks_off()
    panel.set_xlabel("zeros in the layer's input, %")
    panel.set_ylabel("speed over torch")
    panel.grid()
    panel.legend(fontsize=8, frameon=False)
    return figure


def _speed(layer: dict[str, Any]) -> float:
    times = layer["milliseconds"]
    dense = min(times[name] for name in ("torch", "channels_last", "prepacked"))
    return dense / min(times["ring-patterns"], times["ring-numbered"])


def speed(theme: Theme) -> Figure:
    """Milliseconds to encode a picture of 500 x 375, by processor."""
    names = ("dnnjpeg", "simplejpeg", "OpenCV", "Pillow", "Pillow, optimize")
    figure = Figure(figsize=(9.2, 2.2), layout="constrained")
    for panel, (name, title) in zip(
        figure.subplots(1, len(PROCESSORS), sharex=True, sharey=True), PROCESSORS.items(), strict=True
    ):
        encoders = results(name)["groups"]["500x375"]["encoders"]
        times = [encoders[encoder]["milliseconds"] for encoder in names]
        colours = [theme.ours if encoder == "dnnjpeg" else theme.others for encoder in names]
        bars = panel.barh(range(len(names)), times, color=colours, height=0.6)
        panel.bar_label(bars, [f"{time:.2f} ms" for time in times], color=theme.ink, fontsize=8, padding=3)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlim(0, 2.3)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("milliseconds a picture, one thread")
    return figure


def rate(theme: Theme) -> Figure:
    """How far the estimated rates are from real files."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    panel = figure.subplots()
    lines = {"scan": ("scan estimate", theme.ours), "entropy": ("entropy of indices", theme.others)}
    for kind, (label, colour) in lines.items():
        errors = results("rate")["error, %"][kind]["4:2:0"]["by quality"]
        panel.plot([float(q) for q in errors], list(errors.values()), "o-", color=colour, label=label, ms=4)
    panel.axhline(0, color=theme.ink, lw=1)
    panel.set_xlabel("quality of the standard table, 4:2:0")
    panel.set_ylabel("mean error of the bytes, %")
    panel.grid()
    panel.legend(frameon=False, fontsize=9)
    return figure


def cluster(theme: Theme) -> Figure:
    """The hours that a billion pictures take, by the number of cores. Measured at 1 and 2."""
    found, speeds = results("cluster"), results("bucket")["one_processor"]
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    panel = figure.subplots()
    lines = {
        "full": ("500x375, 112 kB", theme.ours),
        "flowers17": ("144x144, progressive, 10 kB", theme.others),
    }
    for name, (label, colour) in lines.items():
        hours = 1e9 / speeds[name]["pictures_per_second"] / 3600
        panel.plot([1, 1000], [hours, hours / 1000], "--", color=colour, label=f"extrapolated: {label}")
    pictures = found["shards"] * found["pictures_a_shard"]
    took = [statistics.median(found["seconds"][f"Ray, {count} nodes"]) for count in (1, 2)]
    measured = [1e9 / pictures * seconds / 3600 for seconds in took]
    panel.plot([1, 2], measured, "o", color=theme.ink, ms=6, label="measured: Ray, both kinds mixed")
    for hours, name in ((24, "a day"), (168, "a week")):
        panel.axhline(hours, color=theme.faint, lw=1)
        panel.text(1000, hours, name, ha="right", va="bottom", fontsize=8)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    panel.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    panel.set_xlabel("cores")
    panel.set_ylabel("hours for a billion pictures")
    panel.legend(frameon=False, fontsize=8)
    return figure


PLOTS: dict[str, Callable[[Theme], Figure]] = {
    "ruler": lambda theme: ruler(theme, "ruler"),
    "ruler_crops": lambda theme: ruler(theme, "ruler_crops"),
    "targets": targets,
    "training": training,
    "sparse": sparse,
    "speed": speed,
    "rate": rate,
    "cluster": cluster,
}


def style(theme: Theme) -> dict[str, Any]:
    """Of matplotlib: text as text, no background, and the same file each time."""
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "dnnjpeg",
        "font.family": "sans-serif",
        "font.size": 9,
        "grid.color": theme.faint,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        **dict.fromkeys(ink, theme.ink),
    }


def draw_all(plots: dict[str, Callable[[Theme], Figure]], folder: Path) -> Iterator[Path]:
    """Draw each plot once a theme, as NAME-light.svg and NAME-dark.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for (name, plot), theme in product(plots.items(), THEMES):
        path = folder / f"{name}-{theme.name}.svg"
        with matplotlib.rc_context(style(theme)):
            plot(theme).savefig(path, format="svg", metadata={"Date": None})
        yield path


@click.command()
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=ASSETS)
@click.option("--only", multiple=True, metavar="NAME", type=click.Choice(list(PLOTS)))
def main(output: Path, only: Sequence[str]) -> None:
    """Draw the plots from benchmarks/results."""
    for path in draw_all({name: PLOTS[name] for name in only or PLOTS}, output):
        click.echo(path)


if __name__ == "__main__":
    main()
