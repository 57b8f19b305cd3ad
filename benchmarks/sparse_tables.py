"""The tables of benchmarks/sparse.py."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from dnnjpeg.sparse.tiling import SPARSE

TORCH = ("torch", "channels_last", "prepacked")
NETWORK = {
    "eager": "torch",
    "eager_channels_last": "torch, channels last",
    "compiled": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "plan": "dnnjpeg",
}
METHODS = {
    "im2col": "im2col and BLAS",
    "mec": "MEC",
    "cpo": "CPO, published",
    "cps": "CPS, published",
    **SPARSE,
}


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    return statistics.geometric_mean(values)


def as_markdown(results: dict[str, Any]) -> str:
    """Speed of the ring kernel over the best of torch's three, and over im2col, by zeros; the means;
    networks.
    """
    lines = []
    for threads, items in results["layers"].items():
        lines += _head(f"{_threads(threads)}, speed over torch (over im2col)", _zeros(items))
        for name, row in items.items():
            lines.append(_row(name, [_speed([item]) for item in row.values()]))
        columns = list(zip(*(row.values() for row in items.values()), strict=True))
        lines.append(_row("geometric mean", [_speed(column) for column in columns]))
        over_mec = [f"{mean(_ratio(item, ['mec'], SPARSE) for item in column):.1f}" for column in columns]
        lines.append(_row("the same over MEC", over_mec))
        for method, name in SPARSE.items():
            cells = [_speed(column, [method]) for column in columns]
            lines.append(_row(f"geometric mean, {name}", cells))
        if threads == "1":
            lines += _smaller(columns)
        lines.append("")
    return "\n".join([*lines, *networks_table(results, "milliseconds a picture")])


def networks_table(results: dict[str, Any], name: str) -> list[str]:
    """Milliseconds of whole networks, and the speed of the plan over the fastest of the others."""
    titles = [*NETWORK.values(), "speed", "convolutions over im2col"]
    lines = _head(name, titles)
    for threads, items in results["networks"].items():
        for network, item in items.items():
            times, convolutions = item["milliseconds"], item["convolutions"]
            cells = [f"{times[key]:.2f}" if key in times else "" for key in NETWORK]
            cells += [
                f"{_network_speed(times):.2f}x",
                f"{convolutions['im2col'] / convolutions['plan']:.1f}x",
            ]
            lines.append(_row(f"{network}, {_threads(threads)}", cells))
    return lines


def _head(name: str, titles: Sequence[str]) -> list[str]:
    return [_row(name, titles), f"|---|{'---:|' * len(titles)}"]


def _zeros(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Titles of the columns of all layers."""
    return [f"{float(zeros):.0%} zeros" for zeros in next(iter(rows.values()))]


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _threads(count: str) -> str:
    return "1 thread" if count == "1" else f"{count} threads"


def _ratio(item: dict[str, Any], others: Iterable[str], ours: Iterable[str]) -> float:
    """Of the least time of some methods over that of others."""
    times = item["milliseconds"]
    return min(times[name] for name in others) / min(times[name] for name in ours)


def _speed(items: Sequence[dict[str, Any]], ours: Iterable[str] = SPARSE) -> str:
    """Mean speed of the faster of some methods, over torch and over im2col."""
    over_torch, over_im2col = (
        mean(_ratio(item, others, ours) for item in items) for others in (TORCH, ["im2col"])
    )
    return f"{over_torch:.2f} ({over_im2col:.1f})"


def _network_speed(times: dict[str, float]) -> float:
    """Of the plan, over the fastest of the others."""
    return min(value for key, value in times.items() if key != "plan") / times["plan"]


def _smaller(columns: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """How many times fewer elements than im2col's what was timed has, where that was noted down."""
    lines = []
    for key in ("mec", *SPARSE):
        if all(key in item["elements"] for column in columns for item in column):
            cells = [
                f"{mean(item['elements']['im2col'] / item['elements'][key] for item in column):.1f}"
                for column in columns
            ]
            lines.append(_row(f"smaller than im2col: {SPARSE.get(key, 'MEC')}", cells))
    return lines


def by_processor(results: Sequence[dict[str, Any]]) -> str:
    """The means of several results, and the speed of networks, by processor."""
    lines = _head("geometric means of the nine layers", _zeros(next(iter(results[0]["layers"].values()))))
    for result in results:
        for threads, items in result["layers"].items():
            columns = zip(*(row.values() for row in items.values()), strict=True)
            cells = [f"{mean(_ratio(item, TORCH, SPARSE) for item in column):.2f}" for column in columns]
            lines.append(_row(f"{result['machine']['cpu']}, {_threads(threads)}", cells))
    lines += ["", *_head("networks", [result["machine"]["cpu"] for result in results])]
    names = {
        (threads, name): None
        for result in results
        for threads, items in result["networks"].items()
        for name in items
    }
    for threads, name in names:
        items = [result["networks"].get(threads, {}).get(name) for result in results]
        cells = [f"{_network_speed(item['milliseconds']):.2f}x" if item else "" for item in items]
        lines.append(_row(f"{name}, {_threads(threads)}", cells))
    return "\n".join(lines)


def published_table(result: dict[str, Any]) -> str:
    """Milliseconds, and kilobytes of what is made of the input, by layer and share of zeros."""
    rows = result["published"]
    lines = _head(f"{result['machine']['cpu']}, 1 thread", [*METHODS.values(), "best of torch"])
    for name, row in rows.items():
        lines += [_row(f"{name}, {float(zeros):.0%} zeros", _costs([item])) for zeros, item in row.items()]
    for zeros in next(iter(rows.values())):
        lines.append(
            _row(f"geometric mean, {float(zeros):.0%} zeros", _costs([row[zeros] for row in rows.values()]))
        )
    return "\n".join(lines)


def _costs(items: Sequence[dict[str, Any]]) -> list[str]:
    """Means of each method."""
    cells = []
    for key in METHODS:
        time = mean(item["milliseconds"][key] for item in items)
        memory = mean(item["bytes"][key] / 1000 for item in items)
        cells.append(f"{_three(time)} ms, {_three(memory)} kB")
    best = mean(min(item["milliseconds"][key] for key in TORCH) for item in items)
    return [*cells, f"{_three(best)} ms"]


def _three(value: float) -> str:
    """Three digits that tell something."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
