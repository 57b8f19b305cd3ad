"""Plots of evaluations, learned tables and trainings."""

import io
import textwrap
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dnnjpeg.checks import one_line
from dnnjpeg.learn.recipe import Epoch
from dnnjpeg.table.point import OperatingPoint

_LABELS = {
    "divergence": "mean divergence, nat",
    "loss": "mean cross-entropy, nat",
    "top1": "top-1 accuracy, %",
}
_NAMES = {
    "divergence": "divergence from the originals, less is better",
    "loss": "cross-entropy, less is better",
    "top1": "top-1, more is better",
}
_COMMAND = FontProperties(family="monospace", size=7)
_MARKERS = "osD^vP*Xph<>"
_plain = rc_context({"text.parse_math": False})  # a $ in a path is no mathematics


@_plain
def plot(report: dict[str, Any], title: str, caption: str = "") -> bytes:
    """Plot an evaluation. Returns a PNG file.

    Each network has a row of panels: divergence over bytes, and with labels also the metrics of its task, for
    example cross-entropy and accuracy. Each codec has a line, and a band for its 95 % intervals. Lines of
    dnnjpeg are thicker. A dashed line shows the network on the originals. All curves share their pictures. So
    codecs can differ even if their bands overlap.

    report: from `dnnjpeg.evaluate.report.report`.
    caption: text below the panels, for example the command.
    """
    networks = list(report["clean"])
    every = report["clean"].values()
    shared = [name for name in report["clean"][networks[0]] if all(name in clean for clean in every)]
    metrics = [name for name in shared if name not in ("agreement", "top5")]
    figure = Figure(figsize=(6.5 * len(metrics), 4.6 * len(networks) + 0.9), dpi=120, layout="constrained")
    panels = figure.subplots(len(networks), len(metrics), squeeze=False)
    for row, network in zip(panels, networks, strict=True):
        for panel, metric in zip(row, metrics, strict=True):
            _panel(panel, report, network, metric)
    handles = [
        handle for panel in panels[0] for handle in zip(*panel.get_legend_handles_labels(), strict=True)
    ]
    by_name = {name: line for line, name in handles}
    legend = figure.legend(
        by_name.values(),
        by_name.keys(),
        loc="outside lower center",
        ncols=2 * len(metrics),
        fontsize=8,
        title=_wrapped(caption, 100 * len(metrics)),
        title_fontproperties=_COMMAND,
    )
    legend.get_title().set_color("0.35")
    figure.suptitle(f"{title}; bands are 95 % intervals", fontsize=11)
    return _png(figure)


@_plain
def plot_table(report: dict[str, Any], points: Sequence[OperatingPoint]) -> bytes:
    """Plot loss over bytes for standard files, and for a table's candidates and points. Returns a PNG file.

    report: `provenance`, `standard` and `candidates`, as in the report of `dnnjpeg learn-table`.
    """
    provenance = report["provenance"]
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    panel = figure.subplots()
    lines = {
        "standard table, 4:2:0": (report["standard"], "k.--"),
        "candidates": ([one["measured"] for one in report["candidates"]], "C0x"),
        "points of the table": ([point.measured for point in points], "C3o-"),
    }
    for label, (records, style) in lines.items():
        seen = [one for one in records if one["loss"] > 0]  # the axis is logarithmic
        panel.plot([one["bytes"] for one in seen], [one["loss"] for one in seen], style, label=label)
    for point in points:
        record = point.measured or {}
        if record["loss"] > 0:
            panel.annotate(
                f"q {point.quality:g}", (record["bytes"], record["loss"]), (-5, -9),
                textcoords="offset points", fontsize=8, color="C3", ha="right",
            )  # fmt: skip
    _axes(panel, "bytes" if provenance["data"]["bytes"] == "files" else "scan_bytes")
    _log_loss(panel)
    kind = (
        "divergence" if provenance["data"]["loss"] == "divergence" else "cross-entropy above the originals'"
    )
    panel.set_ylabel(f"mean {kind}, nat")
    panel.set_title("further left at the same height is better", fontsize=10)
    panel.legend()
    command = _wrapped(provenance.get("command", ""), 110)
    figure.supxlabel(command, fontproperties=_COMMAND, color="0.35")
    return _png(figure)


@_plain
def plot_training(log: Sequence[Epoch], point: OperatingPoint | None) -> bytes:
    """Plot losses and accuracy of a training, and the 64 steps of each table of the point. Returns a PNG."""
    tables = () if point is None else point.tables
    figure = Figure(figsize=(4.4 * (2 + len(tables)), 3.8), dpi=120, layout="constrained")
    losses, accuracy, *panels = figure.subplots(1, 2 + len(tables))
    epochs = [epoch.epoch for epoch in log]
    passes = [epoch for epoch in log if epoch.loss is not None]
    losses.plot([epoch.epoch for epoch in passes], [epoch.loss for epoch in passes], label="training")
    losses.plot(epochs, [epoch.val_loss for epoch in log], label="validation")
    losses.set(xlabel="epoch", ylabel="loss, nat")
    losses.legend()
    accuracy.plot(epochs, [100 * epoch.val_top1 for epoch in log])
    accuracy.set(xlabel="epoch", ylabel="validation pictures, top-1, %")
    names = ("Y", "Cb, Cr") if len(tables) == 2 else ("Y", "Cb", "Cr")
    for panel, table, name in zip(panels, tables, names, strict=False):
        image = panel.imshow([table[row : row + 8] for row in range(0, 64, 8)], cmap="viridis")
        panel.set(title=f"steps of {name}", xticks=[], yticks=[])
        figure.colorbar(image, ax=panel, shrink=0.8)
    for panel in (losses, accuracy):
        panel.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _panel(panel: Axes, report: dict[str, Any], network: str, metric: str) -> None:
    scale = 100 if metric == "top1" else 1
    rate = report["rate"]
    codecs = dict.fromkeys(one["codec"] for one in report["settings"])
    for index, (codec, marker) in enumerate(zip(codecs, cycle(_MARKERS), strict=False)):
        settings = [one for one in report["settings"] if one["codec"] == codec and network in one["networks"]]
        settings.sort(key=lambda one: one[rate]["value"])
        sizes = [one[rate]["value"] for one in settings]
        read = [one["networks"][network][metric] for one in settings]
        low, values, high = ([scale * one[key] for one in read] for key in ("low", "value", "high"))
        colour = f"C{index % 10}"
        panel.fill_between(sizes, low, high, color=colour, alpha=0.12, linewidth=0)
        panel.plot(
            sizes,
            values,
            linestyle="-" if index < 10 else ":",  # there are ten colours
            linewidth=2.4 if codec.startswith("dnnjpeg:") else 1.2,
            color=colour,
            marker=marker,
            markersize=5,
            label=one_line(codec),  # it may hold a path
        )
    if metric == "divergence":  # it is 0 for the originals
        _log_loss(panel)
    else:
        clean = scale * report["clean"][network][metric]["value"]
        panel.axhline(clean, color="black", linestyle="--", linewidth=1, label="originals")
    _axes(panel, rate)
    panel.set_ylabel(_LABELS.get(metric, f"mean {metric}"))
    panel.set_title(f"{network}: {_NAMES.get(metric, metric)}", fontsize=10)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)[:4])


def _log_loss(panel: Axes) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _axes(panel: Axes, rate: str) -> None:
    """Set up a logarithmic axis of bytes."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("bytes a picture" if rate == "bytes" else "bytes a picture, without headers")
    panel.grid(alpha=0.3)
