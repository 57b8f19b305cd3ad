"""Reports, learned tables, and logs of trainings, as pictures of curves."""

import io
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from dnnjpeg.learn.recipe import Epoch
from dnnjpeg.table.point import OperatingPoint

_LABELS = {
    "divergence": "mean divergence, nat",
    "loss": "mean cross-entropy, nat",
    "top1": "top-1 accuracy, %",
}
_MARKERS = "osD^vP*Xph<>"


def plot(report: dict[str, Any], title: str) -> bytes:
    """A PNG: a row of panels for each network, the divergence, and with labels the cross-entropy and the
    accuracy, over the bytes.

    A line a codec, dnnjpeg's drawn stronger; dashed is what the network makes of the originals. The intervals
    are left out: they are of the pictures, which all curves share.
    """
    networks = list(report["clean"])
    metrics = [metric for metric in _LABELS if metric in report["clean"][networks[0]]]
    figure = Figure(figsize=(6.5 * len(metrics), 4.6 * len(networks) + 0.6), dpi=120, layout="constrained")
    panels = figure.subplots(len(networks), len(metrics), squeeze=False)
    for row, network in zip(panels, networks, strict=True):
        for panel, metric in zip(row, metrics, strict=True):
            _panel(panel, report, network, metric)
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=2 * len(metrics), fontsize=8)
    figure.suptitle(title, fontsize=11)
    return _png(figure)


def plot_table(report: dict[str, Any], points: Sequence[OperatingPoint]) -> bytes:
    """A PNG: the loss over the bytes, of standard files, of the candidates for a table, and of its points.

    report: `standard` and `candidates`, as `dnnjpeg learn-table` writes them.
    """
    figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
    panel = figure.subplots()
    lines = {
        "standard, 4:2:0": (report["standard"], "k.--"),
        "candidates": ([one["measured"] for one in report["candidates"]], "C0x"),
        "points of the table": ([point.measured for point in points], "C3o-"),
    }
    for label, (records, style) in lines.items():
        panel.plot([one["bytes"] for one in records], [one["loss"] for one in records], style, label=label)
    _axes(panel, "bytes" if report["provenance"]["data"]["bytes"] == "files" else "scan_bytes", "loss")
    panel.legend()
    return _png(figure)


def plot_training(log: Sequence[Epoch], point: OperatingPoint | None) -> bytes:
    """A PNG, a row of panels: the losses and the accuracy over the epochs, and each table of the point as its
    64 steps, where a layer was trained.
    """
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
        values = [scale * one["networks"][network][metric]["value"] for one in settings]
        panel.plot(
            sizes,
            values,
            linestyle="-" if index < 10 else ":",  # there are ten colours
            linewidth=2.4 if codec.startswith("dnnjpeg:") else 1.2,
            color=f"C{index % 10}",
            marker=marker,
            markersize=5,
            label=codec,
        )
    if metric == "divergence":  # of the originals it is 0
        panel.set_yscale("log")
    else:
        clean = report["clean"][network][metric]["value"]
        panel.axhline(scale * clean, color="black", linestyle="--", linewidth=1)
    _axes(panel, rate, metric)
    panel.set_title(network, fontsize=10)


def _axes(panel: Axes, rate: str, metric: str) -> None:
    """A metric over the bytes, on a logarithmic scale."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("bytes a picture" if rate == "bytes" else "bytes a picture, without headers")
    panel.set_ylabel(_LABELS[metric])
    panel.grid(alpha=0.3)
