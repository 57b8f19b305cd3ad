"""The run of `dnnjpeg encode` for pictures: encode them, tell what went wrong, and sum up."""

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import click

from dnnjpeg.checks import one_line
from dnnjpeg.machine.startup import no_collection

from .progress import progress
from .shards import write_report
from .target import describe

if TYPE_CHECKING:
    from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result, Totals
    from dnnjpeg.target.search import Encoded


def run(
    tasks: Iterator["FileTask | Result"],
    anew: Callable[[], Iterator["FileTask | Result"]],
    recipe: "FileOptions",
    jobs: int,
    report: Path | None,
    as_json: bool,
    to_stream: bool,
    hint: str,
) -> None:
    """Carry out the tasks, and exit.

    anew: gives the same tasks once more, to be counted.
    to_stream: the file goes to standard output, and no summary is printed.
    hint: end of the line that is printed after an interruption.
    """
    with no_collection():
        from dnnjpeg.jobs.report import RunReport
        from dnnjpeg.jobs.run import run as carry_out

    page, failures, pictures, start = RunReport(), [], [], time.perf_counter()
    totals, is_shown = page.totals, sys.stderr.isatty()
    total = sum(1 for _ in anew()) if is_shown or recipe.target else None
    counted = 0
    with (
        _Signals() as signals,
        warnings.catch_warnings(),
        progress(total, "pictures") if is_shown else _NoBar() as bar,
        suppress(KeyboardInterrupt),
    ):
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata; the codec's is in the results
        results = carry_out(
            tasks,
            recipe,
            jobs,
            on_done=bar.update,
            is_stopped=lambda: bool(signals.received),
            interruptible=signals.interruptible,
        )
        for result in results:
            counted += 1
            page.add(str(result.source), result, recipe.quality)
            if result.warning:
                bar.write(one_line(f"{result.source}: warning: {result.warning}"), file=sys.stderr)
            if result.status == "failed":
                bar.write(one_line(f"{result.source}: {result.reason}"), file=sys.stderr)
                if as_json:
                    failures.append({"source": str(result.source), "reason": result.reason})
            elif as_json and result.found is not None:
                pictures.append(_picture(result, result.found))
            if result.data is not None and not recipe.dry_run:
                sys.stdout.buffer.write(result.data)
                sys.stdout.buffer.flush()
    seconds = time.perf_counter() - start
    if as_json:
        lists = {"failures": failures} | ({"pictures": pictures} if recipe.target else {})
        click.echo(json.dumps(_record(totals, recipe, seconds) | lists))
    elif not to_stream:
        click.echo(_summary(totals, recipe, seconds))
    if report:
        write_report(page, report, recipe, seconds)
    if signals.received:
        of_all = f" of {total}" if total else ""
        click.echo(f"interrupted: {counted}{of_all} done{hint}", err=True)
        raise SystemExit(128 + signals.received[0])
    raise SystemExit(1 if totals.failed else 0 if totals.done else 3)


class _NoBar:
    """In place of `tqdm`, which takes time to load, where nobody would see it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        pass

    def write(self, text: str, file: TextIO) -> None:
        print(text, file=file)


class _Signals:
    """Notes SIGINT and SIGTERM. The first ends the run after the pictures at hand, the second ends it at
    once.

    Inside the context `interruptible`, the first raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._raises = False

    def _note(self, number: int, _frame: object) -> None:
        self.received.append(number)
        signal.signal(number, signal.SIG_DFL)
        if self._raises:
            raise KeyboardInterrupt

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        self._raises = True
        try:
            if self.received:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def __enter__(self) -> Self:
        both = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._note) for number in both}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _picture(result: "Result", found: "Encoded") -> dict[str, Any]:
    """The record of a picture of a run with a target. It says what networks have read, if there are any."""
    record = {"source": str(result.source), "bytes": result.bytes_after, "quality": found.quality}
    if found.tried:
        record |= {"tried": found.tried, "divergence": found.divergence, "agrees": found.agrees}
    return record


def _record(totals: "Totals", recipe: "FileOptions", seconds: float) -> dict[str, Any]:
    counts = asdict(totals)
    read = counts.pop("read")
    if totals.read.pictures:
        counts |= {
            "agreement": round(totals.read.agrees / totals.read.pictures, 6),
            "mean_divergence": round(totals.read.divergence / totals.read.pictures, 6),
            "worst_divergence": round(totals.read.worst, 6),
        }
    return counts | {
        "bits_per_pixel": round(totals.bits_per_pixel, 4),
        "seconds": round(seconds, 3),
        "pictures_per_second": round(totals.done / seconds, 2),
        "table": recipe.table.name,
        **({"tried": read["tried"], **describe(recipe.target)} if recipe.target else {}),
        **({} if recipe.target else {"quality": recipe.quality}),
        "dry_run": recipe.dry_run,
    }


def _summary(totals: "Totals", recipe: "FileOptions", seconds: float) -> str:
    counts = [f"{totals.encoded:,} encoded"]
    counts += [f"{totals.copied:,} left as they were" if totals.copied else ""]
    counts += [f"{totals.skipped:,} skipped" if totals.skipped else ""]
    counts += [f"{totals.failed:,} failed"]
    lines = [f"{', '.join(filter(None, counts))} in {seconds:.1f} s"]
    if totals.done:
        change = 100 * (totals.bytes_after / totals.bytes_before - 1)
        lines[0] += f", {totals.done / seconds:.1f} pictures/s"
        lines.append(
            f"{totals.bytes_before:,} -> {totals.bytes_after:,} bytes ({change:+.1f} %), "
            f"{totals.bits_per_pixel:.2f} bits per pixel"
        )
    quality = "each picture's own quality" if recipe.target else f"quality {recipe.quality:g}"
    quality += " on average" if recipe.options.adaptive else ""
    lines.append(f"table {recipe.table.name}, {quality}")
    if totals.transcoded:
        lines.append(
            f"JPEG sources: {totals.transcoded:,} from their own coefficients, without decoding to pixels"
        )
    if totals.copied:
        lines.append(
            f"{totals.copied:,} left as they were: the new file would not be smaller, or the same table and "
            "quality made them"
        )
    if read := totals.read.pictures:
        lines.append(
            f"the networks read the same in {100 * totals.read.agrees / read:.1f} % of the pictures; "
            f"distance {totals.read.divergence / read:.3f} on average, {totals.read.worst:.3f} at "
            f"worst; {totals.read.tried:,} files tried"
        )
    return "\n".join(lines + (["dry run: nothing was written"] if recipe.dry_run else []))
