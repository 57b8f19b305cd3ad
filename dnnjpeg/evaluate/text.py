"""A report as tables of plain text."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

Estimated = dict[str, float | None]  # value, low, high

_METRICS = {"top1": "top-1", "top5": "top-5", "loss": "loss", "divergence": "divergence"}


def as_text(report: dict[str, Any]) -> str:
    """By network what each setting costs and gives; then by network, reference and metric the comparisons."""
    parts = [line for network in report["clean"] for line in _settings(report, network)]

    for _, rows in groupby(report["comparisons"], itemgetter("network", "metric", "reference")):
        parts += _comparison(list(rows), report["rate"])
    return "\n".join(parts)


def _settings(report: dict[str, Any], network: str) -> Iterator[str]:
    clean = report["clean"][network]
    labelled = "loss" in clean
    yield f"{network}, of the originals: {_clean(clean) if labelled else 'no labels'}"
    rows = [["codec", "quality", "bytes", "headerless", "bpp"]]
    rows[0] += ["top-1 %", "top-5 %", "loss"] if labelled else []
    rows[0] += ["divergence", "agreement %", "PSNR dB"]
    for one in report["settings"]:
        read, scan = one["networks"][network], one["scan_bytes"]
        row = [one["codec"], f"{one['quality']:g}", f"{one['bytes']['value']:,.0f}"]
        row += [f"{scan['value']:,.0f}" if scan else "-", f"{one['bits_per_pixel']:.3f}"]
        if labelled:
            row += [_spread(read["top1"], 100, 1), f"{100 * read['top5']['value']:.1f}"]
            row += [_spread(read["loss"], 1, 3)]
        row += [_spread(read["divergence"], 1, 3) if not labelled else f"{read['divergence']['value']:.3f}"]
        row += [f"{100 * read['agreement']['value']:.1f}", f"{one['psnr']['value']:.2f}"]
        rows.append(row)
    yield from _aligned(rows)


def _clean(clean: dict[str, Estimated]) -> str:
    return f"top-1 {_spread(clean['top1'], 100, 1)} %, loss {_spread(clean['loss'], 1, 3)}"


def _comparison(rows: Sequence[dict[str, Any]], rate: str) -> Iterator[str]:
    network, reference, metric = (rows[0][key] for key in ("network", "reference", "metric"))
    size = "bytes" if rate == "bytes" else "headerless bytes"
    points = [f"q{point['quality']:g}" for point in rows[0]["points"]]
    yield f"{network}: {size} at equal {_METRICS[metric]}, % of change from {reference}"
    table = [["codec", *points, "BD-rate"]]
    for row in rows:
        changes = [point["bytes_change"] for point in row["points"]]
        table.append([row["codec"], *(_interval(x, 1) for x in (*changes, row["bd_rate"]))])
    yield from _aligned(table)
    if metric == "top1":
        yield f"{network}: top-1 at equal {size}, points more than {reference}"
        table = [["codec", *points]]
        for row in rows:
            changes = [point["metric_change"] for point in row["points"]]
            table.append([row["codec"], *(_interval(x, 100) for x in changes)])
        yield from _aligned(table)


def _spread(estimate: Estimated, scale: float, digits: int) -> str:
    """A value and half its interval."""
    value, low, high = (scale * (estimate[key] or 0) for key in ("value", "low", "high"))
    return f"{value:.{digits}f} ±{(high - low) / 2:.{digits}f}"


def _interval(estimate: Estimated, scale: float) -> str:
    value, low, high = (
        "beyond" if x is None else f"{scale * x:+.1f}" for x in map(estimate.get, ("value", "low", "high"))
    )
    return value if value == "beyond" else f"{value} ({low}..{high})"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns two blanks apart, the first one to the left, and an empty line behind."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()
    yield ""
