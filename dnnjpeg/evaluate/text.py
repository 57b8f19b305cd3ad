"""An evaluation as tables of plain text."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

Estimated = Mapping[str, float | None]  # value, low, high

_BEYOND = (
    (r"\(beyond\.\.beyond\)", "(unknown)"),
    (r"\(beyond\.\.(\S+)\)", r"(at most \1)"),
    (r"\((\S+)\.\.beyond\)", r"(at least \1)"),
    ("beyond", "not reached"),
)
_NOTE = (
    "(a..b) is the 95 % interval. at least, at most: the other end lies beyond the qualities measured.",
    "not reached: the codec has no file that is as good, or none that is as bad, within its qualities.",
)
_METRICS = {"top1": "top-1", "loss": "cross-entropy"}
_COLUMNS = {"top1": "top-1 %", "top5": "top-5 %", "loss": "cross-entropy"}


def as_text(report: dict[str, Any]) -> str:
    """The report as text.

    First come the comparisons by metric and reference: the mean of the networks with the worst one, then each
    network. Then come the divergences at equal quality, and all settings.
    """
    parts: list[str] = []
    for _, group in groupby(report["comparisons"], itemgetter("metric", "reference")):
        rows = list(group)
        for network in (None, *report["clean"]):
            if some := [row for row in rows if row["network"] == network]:
                parts += _comparison(some, report["rate"])
    parts += [*_NOTE, ""] if parts else []
    parts += _nominal(report["nominal"])
    parts += [line for network in report["clean"] for line in _settings(report, network)]
    return "\n".join(parts)


def _comparison(rows: Sequence[dict[str, Any]], rate: str) -> Iterator[str]:
    network, reference, metric = (rows[0][key] for key in ("network", "reference", "metric"))
    size = "bytes" if rate == "bytes" else "headerless bytes"
    points = [f"q{point['quality']:g}" for point in rows[0]["points"]]
    who = network or "mean of the networks, and the worst of them"
    yield f"{who}: {size} at equal {_METRICS.get(metric, metric)}, % of change from {reference}"
    if network is None:
        cells = (
            [row["codec"], *(in_words(mean_and_worst(point)) for point in row["points"])] for row in rows
        )
        yield from _aligned([["codec", *points], *cells])
        return
    table = [["codec", *points, "BD-rate"]]
    for row in rows:
        changes = [point["bytes_change"] for point in row["points"]]
        table.append([row["codec"], *(in_words(interval(x, 1)) for x in (*changes, row["bd_rate"]))])
    yield from _aligned(table)
    if metric == "top1":  # a share
        yield f"{network}: top-1 at equal {size}, points more than {reference}"
        table = [["codec", *points]]
        for row in rows:
            changes = [point["metric_change"] for point in row["points"]]
            table.append([row["codec"], *(in_words(interval(x, 100)) for x in changes)])
        yield from _aligned(table)


def mean_and_worst(point: dict[str, Any], digits: int = 1) -> str:
    """A change with its interval. If it is the mean of several networks, also the change of the worst."""
    worst = point.get("worst")
    beside = "" if worst is None else f", worst {_change(worst['value'], 1, digits)} {worst['network']}"
    return interval(point["bytes_change"], 1, digits) + beside


def _nominal(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each codec and network. Then, for each codec, the ratio that is furthest from 1."""
    if not rows:
        return
    qualities = sorted({row["quality"] for row in rows})
    known = {(row["codec"], row["network"], row["quality"]): row["ratio"] for row in rows}
    yield "divergence at the same quality, divided by the first reference's"
    table = [["codec", "network", *(f"q{quality:g}" for quality in qualities)]]
    for codec, network in dict.fromkeys((row["codec"], row["network"]) for row in rows):
        cells = [known.get((codec, network, quality)) for quality in qualities]
        table.append([codec, network, *("" if cell is None else _ratio(cell) for cell in cells)])
    yield from _aligned(table)
    for codec, group in groupby(rows, itemgetter("codec")):
        worst = max(group, key=lambda row: abs(math.log(max(row["ratio"]["value"], 1e-9))))
        where = f"{worst['network']} at quality {worst['quality']:g}"
        yield f"furthest from 1: {codec}, {_ratio(worst['ratio'])} for {where}"
    yield ""


def _ratio(estimate: Estimated) -> str:
    value, low, high = (f"{estimate[key]:.2f}" for key in ("value", "low", "high"))
    return f"{value} ({low}..{high})"


def _settings(report: dict[str, Any], network: str) -> Iterator[str]:
    clean = report["clean"][network]
    own = [name for name in clean if name not in ("divergence", "agreement")]
    yield f"{network}, of the originals: {_clean(clean, own) if own else 'no labels'}"
    rows = [["codec", "quality", "bytes", "headerless", "bpp", "divergence", "agreement %"]]
    rows[0] += [_COLUMNS.get(name, name) for name in own]
    rows[0] += ["PSNR dB"]
    for one in report["settings"]:
        if network not in one["networks"]:
            continue
        read, scan, psnr = one["networks"][network], one["scan_bytes"], one["psnr"]["value"]
        row = [one["codec"], f"{one['quality']:g}", f"{one['bytes']['value']:,.0f}"]
        row += [f"{scan['value']:,.0f}" if scan else "-", f"{one['bits_per_pixel']:.3f}"]
        row += [_spread(read["divergence"], 1, 3), f"{100 * read['agreement']['value']:.1f}"]
        row += [_metric(read[name], name) for name in own]
        rows.append([*row, "-" if psnr is None else f"{psnr:.2f}"])
    yield from _aligned(rows)


def _clean(clean: dict[str, Estimated], own: Sequence[str]) -> str:
    if "top1" in own:
        return f"top-1 {_metric(clean['top1'], 'top1')} %, cross-entropy {_metric(clean['loss'], 'loss')}"
    return ", ".join(f"{name} {_metric(clean[name], name)}" for name in own)


def _metric(estimate: Estimated, name: str) -> str:
    """A metric of a task. top-1 and top-5 are in per cent."""
    if name == "top5":
        return f"{100 * (estimate['value'] or 0):.1f}"
    return _spread(estimate, 100, 1) if name == "top1" else _spread(estimate, 1, 3)


def _spread(estimate: Estimated, scale: float, digits: int) -> str:
    """A value, and half the width of its interval."""
    value, low, high = (scale * (estimate[key] or 0) for key in ("value", "low", "high"))
    return f"{value:.{digits}f} ±{(high - low) / 2:.{digits}f}"


def interval(estimate: Estimated, scale: float, digits: int = 1) -> str:
    """A change with its interval, for example -6.2 (-8.0..-4.1). "beyond": outside the settings."""
    value, low, high = (_change(estimate[key], scale, digits) for key in ("value", "low", "high"))
    return value if value == "beyond" else f"{value} ({low}..{high})"


def in_words(interval: str) -> str:
    """An interval with words for "beyond", for example +4.0 (at least -22.0), or "not reached"."""
    for pattern, words in _BEYOND:
        interval = re.sub(pattern, words, interval)
    return interval


def _change(value: float | None, scale: float, digits: int) -> str:
    return "beyond" if value is None else f"{scale * value:+.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align columns, the first to the left and the others to the right, and add an empty line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()
    yield ""
