"""A page about a run: bytes, histograms, pictures, failures. One HTML file, which loads no other file."""

import base64
import heapq
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from typing import Any

from dnnjpeg.checks import one_line
from dnnjpeg.files.images import open_picture
from dnnjpeg.jobs.tasks import Result, Totals

_SHOWN = 10  # the number of pictures that shrank most, and of those that shrank least
_LISTED = 200  # the most failures that are listed
_SIDE = 128  # the longer side of a thumbnail, in pixels
_SAVINGS = ("larger", *(f"{p}-{p + 5} %" for p in range(0, 100, 5)))
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem; color: #222 }
h1, h2 { line-height: 1.2 }
table { border-collapse: collapse }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; font-weight: normal }
.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { fill: #3f51b5 }
svg text { font-size: 11px; text-anchor: middle; fill: currentColor }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 132px; font-size: 13px }
figure div { height: 132px; display: flex; align-items: center; justify-content: center; background: #eee }
figcaption, li { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body { background: #181818; color: #ddd }
  figure div { background: #333 }
  .bar { fill: #9fa8da }
}
"""


@dataclass(frozen=True, order=True)
class _Seen:
    rank: float
    number: int  # minus the number of the picture: among equal ranks, the first pictures stay
    name: str = field(compare=False)
    result: Result = field(compare=False)
    content: bytes | None = field(compare=False)


class RunReport:
    """Collects the results of a run, one by one. It keeps few of them, so memory does not grow."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._savings: Counter[int] = Counter()  # by place in _SAVINGS
        self._qualities: Counter[int] = Counter()
        self._most: list[_Seen] = []
        self._least: list[_Seen] = []
        self._failures: list[tuple[str, str]] = []

    def add(self, name: str, result: Result, quality: float, content: bytes | None = None) -> None:
        """Add a result.

        quality: the quality of the run. It is used if the result has no quality of its own.
        content: the picture file, if the source is not a file.
        """
        self.totals.add(result)
        if result.status == "failed" and len(self._failures) < _LISTED:
            self._failures.append((name, result.reason))
        if result.status not in ("encoded", "copied"):
            return
        saving = 1 - result.bytes_after / result.bytes_before if result.bytes_before else 0.0
        self._savings[0 if saving < 0 else 1 + min(int(20 * saving), 19)] += 1
        if result.status == "encoded":
            self._qualities[round(result.found.quality if result.found else quality)] += 1
        for kept, rank in ((self._most, saving), (self._least, -saving)):
            seen = _Seen(rank, -self.totals.done, name, result, content)
            (heapq.heappush if len(kept) < _SHOWN else heapq.heappushpop)(kept, seen)

    def html(self, facts: Iterable[tuple[str, Any]]) -> str:
        """The page. facts: further rows of its first table, for example ("Seconds", "1.5")."""
        totals = self.totals
        change = (
            f"{100 * (totals.bytes_after / totals.bytes_before - 1):+.1f} %" if totals.bytes_before else "-"
        )
        rows = [
            ("Pictures encoded", f"{totals.encoded:,}"),
            ("Copied as they were", f"{totals.copied:,}"),
            ("Skipped", f"{totals.skipped:,}"),
            ("Failed", f"{totals.failed:,}"),
            ("Bytes before", f"{totals.bytes_before:,}"),
            ("Bytes after", f"{totals.bytes_after:,}"),
            ("Change", change),
            ("Bits per pixel", f"{totals.bits_per_pixel:.2f}"),
            *facts,
        ]
        cells = "".join(
            f"<tr><th>{_escaped(k)}</th><td class=n>{_escaped(str(v))}</td></tr>" for k, v in rows
        )
        qualities = range(1, 101)
        parts = [
            f"<h1>dnnjpeg encode</h1><table id=totals>{cells}</table>",
            "<h2>Bytes saved, by picture</h2>",
            _histogram(_SAVINGS, [self._savings[i] for i in range(len(_SAVINGS))], "savings"),
            "<h2>Quality, by picture</h2>",
            _histogram([*map(str, qualities)], [self._qualities[q] for q in qualities], "qualities"),
            "<h2>Shrank most</h2>", _gallery(sorted(self._most, reverse=True), "most"),
            "<h2>Shrank least</h2>", _gallery(sorted(self._least, reverse=True), "least"),
            f"<h2>Failures: {totals.failed:,}</h2>{_list(self._failures)}",
        ]  # fmt: skip
        if totals.failed > len(self._failures):
            parts.append(f"<p>The first {_LISTED} are listed.</p>")
        return (
            "<!doctype html><html lang=en><meta charset=utf-8><title>dnnjpeg encode</title>"
            "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; "
            "style-src 'unsafe-inline'\"><meta name=viewport content='width=device-width'>"
            f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
        )


def _escaped(text: str) -> str:
    return escape(one_line(text))


def _histogram(labels: Sequence[str], counts: Sequence[int], name: str) -> str:
    most = max([*counts, 1])
    step = -(-len(labels) // 21)  # labels that find room
    width = 920 / len(labels)
    bars = []
    for i, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = 120 * count / most
        told = f"<title>{_escaped(label)}: {count:,}</title>"
        place = f"x={i * width + 1:.1f} y={140 - height:.1f} width={width - 2:.1f} height={height:.1f}"
        bars.append(f"<rect class=bar {place}>{told}</rect>")
        centre = (i + 0.5) * width
        if count and len(labels) <= 21:
            bars.append(f"<text x={centre:.1f} y={136 - height:.1f}>{count:,}</text>")
        if i % step == 0:
            short = _escaped(label.removesuffix(" %"))
            bars.append(f"<text x={centre:.1f} y=155>{short}</text>")
    return f"<svg id={name} viewBox='0 0 920 160' role=img>{''.join(bars)}</svg>"


def _gallery(several: list[_Seen], name: str) -> str:
    return f"<div class=pictures id={name}>{''.join(map(_figure, several))}</div>"


def _figure(seen: _Seen) -> str:
    result = seen.result
    change = 100 * (result.bytes_after / result.bytes_before - 1) if result.bytes_before else 0
    caption = (
        f"{_escaped(seen.name)}<br>{result.bytes_before:,} to {result.bytes_after:,} bytes ({change:+.1f} %)"
    )
    return f"<figure><div>{_thumbnail(seen)}</div><figcaption>{caption}</figcaption></figure>"


def _thumbnail(seen: _Seen) -> str:
    from dnnjpeg.encoder import encode

    with suppress(Exception):  # a picture that cannot be shown has its place without it
        source = seen.result.source if seen.content is None else io.BytesIO(seen.content)
        image = open_picture(source, metadata="strip", background=(255, 255, 255)).image.convert("RGB")
        image.thumbnail((_SIDE, _SIDE))
        data = base64.b64encode(encode(image, quality=75, signature=False)).decode()
        return f"<img alt='' src='data:image/jpeg;base64,{data}'>"
    return ""


def _list(failures: list[tuple[str, str]]) -> str:
    if not failures:
        return ""
    lines = (f"<li>{_escaped(name)}: {_escaped(reason)}</li>" for name, reason in failures)
    return f"<ul id=failures>{''.join(lines)}</ul>"
