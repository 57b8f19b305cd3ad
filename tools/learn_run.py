"""The run of `dnnjpeg learn-table`: learn candidates, measure them, choose, check, and write the table."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dnnjpeg import __version__
from dnnjpeg.checks import one_line
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, short
from dnnjpeg.table.point import OperatingPoint

if TYPE_CHECKING:
    from dnnjpeg.learn.methods import MethodOptions, Show
    from dnnjpeg.learn.objective import Losses, Objective

T = TypeVar("T")

_LEAST = 8  # readings of all pictures that learning needs at least


def run(
    learning: "Objective",
    held_out: "Objective",
    unseen: "Objective | None",
    search: "MethodOptions",
    output: Path,
    name: str,
    began: float,
) -> None:
    """Learn candidates, measure them, choose points, check the table, and write it and its report.

    began: the time of `time.monotonic` at which the command began.
    """
    from dnnjpeg.evaluate.gain import bytes_change
    from dnnjpeg.learn.methods import candidates
    from dnnjpeg.learn.points import CHECKED, QUALITIES, Selection, StandardCurve, check
    from dnnjpeg.learn.processes import by_first, is_first
    from dnnjpeg.table.library import standard_table
    from dnnjpeg.table.table import Table

    folder = output.with_suffix(".report")
    folder.mkdir(exist_ok=True)

    def measure_one(point: OperatingPoint) -> "Losses":
        return learning.measure(point).beside(held_out.measure(point))

    def measure(points: Sequence[OperatingPoint], what: str) -> "list[Losses]":
        return [measure_one(point) for point in _bar(points, what)]

    def measure_standard() -> "tuple[list[Losses], float | None]":
        """Losses of the standard table at QUALITIES, and the deadline for candidates."""
        found, longest, end = [], 0.0, search.deadline
        for quality in _bar(QUALITIES, "measuring standard JPEG"):
            start = time.monotonic()
            found.append(measure_one(standard_table().at(quality)))
            if search.deadline is not None and len(found) > 1:  # the first also waits for what is loaded
                longest = max(longest, time.monotonic() - start)
                end = search.deadline - longest * _readings(learning, held_out, unseen, search)
                _check_budget(began, search.deadline, end, longest, len(QUALITIES) - len(found))
        return found, end

    standard, end = by_first(measure_standard)
    means = [(one.bytes.mean(), one.loss.mean()) for one in standard]
    curve = StandardCurve.of(QUALITIES, *zip(*means, strict=True))
    found = list(candidates(learning, replace(search, deadline=end), curve, folder, _steps))
    if not is_first():
        return
    measured = measure(found, "measuring candidates")
    minutes = round((time.monotonic() - began) / 60, 2)
    provenance = _provenance(learning, held_out, search)
    report = {
        "provenance": provenance,
        "minutes": minutes,
        "standard": [{"quality": q, **one.record()} for q, one in zip(QUALITIES, standard, strict=True)],
        "candidates": [
            replace(point, measured=one.record()).to_json()
            for point, one in zip(found, measured, strict=True)
        ],
    }
    write_atomic(folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    selection = Selection(found, measured, standard)
    points = selection.points()
    table = Table(name, points)
    checked = [table.at(q) for q in CHECKED]
    pairs = list(zip(checked, measure(checked, "measuring between points"), strict=True))
    points = tuple(sorted([*points, *selection.between(points, pairs)], key=lambda point: point.quality))
    networks = ", ".join(network.name for network in learning.networks)
    how = "chosen and placed" if search.method == "given" else f"learned by {search.method}"
    table = Table(name, points, f"{how} for {networks}", provenance)
    table.save(output)
    ratios = {} if unseen is None else check(table, unseen)
    if unseen is not None:
        facts = {"name": short(unseen.dataset.source), "pictures": len(unseen), "loss_ratio": ratios}
        replace(table, provenance={**provenance, "check": facts}).save(output)
    with suppress(ModuleNotFoundError):  # without matplotlib
        from dnnjpeg.evaluate.plot import plot_table

        write_atomic(folder / "curve.png", plot_table(report, points))
    for state in folder.glob("*.pt"):
        state.unlink()
    for network, by_quality in ratios.items():
        told = ", ".join(f"{quality}: {100 * (x - 1):+.0f} %" for quality, x in by_quality.items())
        click.echo(one_line(f"{network}, change of the loss from the standard table's, by quality: {told}"))
    for point, one in zip(points, measure(points, "comparing with standard JPEG"), strict=True):
        change = bytes_change(QUALITIES, standard, one, selection.luck)
        how = "fewer" if change.value < 0 else "more"
        click.echo(
            f"quality {point.quality:5} {point.subsampling}  {one.bytes.mean():8,.0f} bytes, loss "
            f"{one.loss.mean():.4f}, {abs(change.value):.1f} % {how} bytes than the standard table "
            f"(95 % interval of the change: {change.low:+.1f} to {change.high:+.1f} %)"
        )
    click.echo(one_line(f"{output}: {len(points)} points from {len(found)} candidates, in {minutes} minutes"))


def _readings(
    learning: "Objective", held_out: "Objective", unseen: "Objective | None", search: "MethodOptions"
) -> float:
    """The largest number of readings of all pictures after the candidates are found."""
    from dnnjpeg.learn.methods import most_candidates
    from dnnjpeg.learn.points import CHECKED

    count = len(learning) + len(held_out)
    of_candidates = most_candidates(search) * len(held_out) / count
    of_check = 0 if unseen is None else 2 * len(CHECKED) * len(unseen) / count
    return of_candidates + len(CHECKED) + of_check


def _check_budget(began: float, deadline: float, end: float, reading: float, left: int) -> None:
    """Raise ValueError if the budget leaves no time for learning.

    end: deadline for candidates.
    reading: seconds for one reading of all pictures.
    left: readings of the standard table that are still to come.
    """
    needed = reading * (left + _LEAST)
    if time.monotonic() + needed > end:
        minutes = (time.monotonic() + needed + deadline - end - began) / 60
        raise ValueError(
            f"--time-budget is {(deadline - began) / 60:.3g}, expected at least {minutes:.1f} minutes: one "
            f"reading of all pictures takes {reading:.1f} seconds. Give more time, or fewer pictures by "
            "--limit"
        )


def _provenance(objective: "Objective", held_out: "Objective", search: "MethodOptions") -> dict[str, Any]:
    accuracies = objective.clean_top1 or (None,) * len(objective.networks)
    return {
        "models": [
            {
                "name": network.name,
                "weights": network.digest,
                "task": network.task.name,
                "clean_top1": top1,
            }
            for network, top1 in zip(objective.networks, accuracies, strict=True)
        ],
        "data": {
            "name": short(objective.dataset.source),
            "pictures": len(objective),
            "held_out": len(held_out),
            "labels": objective.dataset.labels is not None,
            "loss": objective.loss,
            "bytes": "scans" if objective.headerless else "files",
        },
        "seed": search.settings.seed,
        "command": command(),
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _bar(items: Iterable[T], what: str) -> Iterable[T]:
    from tqdm import tqdm

    return tqdm(items, what, leave=False, disable=_is_silent())


@contextmanager
def _steps(what: str, count: int) -> "Iterator[Show]":
    """A progress bar. Yields the function to call after each step."""
    from tqdm import tqdm

    with tqdm(total=count, desc=what, leave=False, disable=_is_silent()) as bar:

        def show(found: tuple[float, float]) -> None:
            bar.set_postfix_str(f"loss {found[0]:.3f}, {found[1]:,.0f} bytes", refresh=False)
            bar.update()

        yield show


def _is_silent() -> bool:
    from dnnjpeg.learn.processes import is_first

    return not (sys.stderr.isatty() and is_first())
