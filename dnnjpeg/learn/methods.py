"""The methods that find candidate points for a table, behind one function."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dnnjpeg.learn import j4d, slopes
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.points import StandardCurve
from dnnjpeg.learn.processes import by_first
from dnnjpeg.learn.sensitivity import deepn_points, sensitivity_points
from dnnjpeg.table.library import load_table, standard_table
from dnnjpeg.table.point import OperatingPoint

_FORMS = {"sensitivity": sensitivity_points, "deepn": deepn_points}

# Called after a step or trial with its mean loss and bytes a picture.
Show = Callable[[tuple[float, float]], object]


@dataclass(frozen=True)
class MethodOptions:
    """How `candidates` searches.

    method: "given" takes the points of the table `start` unchanged.
    qualities: candidates are found near the rates of standard files of these qualities, 1..100.
    subsamplings: each quality is tried with each of these.
    tables: number of quantization tables, 2 or 3.
    start: used by "j4d" and "given": the name or path of a table. For "j4d" also "sensitivity" or "deepn",
        the closed forms.
    deadline: a time of `time.monotonic`, in seconds. "slopes" and "j4d" stop early if they must.

    Raises ValueError if `start` is no table.
    """

    method: Literal["slopes", "j4d", "sensitivity", "deepn", "given"]
    qualities: Sequence[float]
    subsamplings: Sequence[str]
    tables: int = 2
    start: str = "sensitivity"
    deadline: float | None = None
    settings: j4d.Settings = field(default_factory=j4d.Settings)

    def __post_init__(self) -> None:
        if self.start not in _FORMS:
            load_table(self.start)
        elif self.method == "given":
            raise ValueError(
                f"method 'given' takes the points of a table, and start is {self.start!r}: give a table's "
                "name or path"
            )


def candidates(
    objective: Objective,
    search: MethodOptions,
    curve: StandardCurve,
    folder: Path,
    progress: Callable[[str, int], AbstractContextManager[Show]],
) -> Iterator[OperatingPoint]:
    """Find candidate points by one method. All processes get the same points.

    curve: gives the price of a byte at each quality.
    folder: j4d keeps its states there. An interrupted search continues from them.
    progress: is called with a title and a number of steps. Its context gives the function to call after each
        step.
    """
    if search.method == "given":
        yield from load_table(search.start).points
        return
    end = search.deadline
    if search.method == "slopes":
        with progress("trials", slopes.most_trials(len(search.subsamplings))) as show:
            find = partial(
                slopes.learn,
                objective,
                search.qualities,
                search.subsamplings,
                tables=search.tables,
                seed=search.settings.seed,
                deadline=end,
                on_trial=lambda loss, size: show((loss, size)),
            )
            yield from by_first(find)
        return
    left = len(search.qualities) * len(search.subsamplings)
    for subsampling in search.subsamplings:
        starts = _starts(objective, search, subsampling)
        if search.method != "j4d":
            yield from starts
            continue
        for quality, start in zip(search.qualities, starts, strict=True):
            with progress(f"{subsampling} near quality {quality}", search.settings.steps) as show:
                yield j4d.learn(
                    objective,
                    start,
                    curve.price(quality),
                    search.settings,
                    state=folder / f"{subsampling.replace(':', '')}-{quality}.pt",
                    deadline=None if end is None else time.monotonic() + (end - time.monotonic()) / left,
                    on_step=partial(_show_step, show, objective),
                )
            left -= 1


def most_candidates(search: MethodOptions) -> int:
    """The largest number of points that `candidates` finds."""
    if search.method == "given":
        return len(load_table(search.start).points)
    counts = len(search.qualities), len(search.subsamplings)
    return slopes.most_candidates(*counts) if search.method == "slopes" else math.prod(counts)


def _starts(objective: Objective, search: MethodOptions, subsampling: str) -> list[OperatingPoint]:
    """The points at which j4d starts: from a closed form, or from a table."""
    name = search.start if search.method == "j4d" else search.method
    table = standard_table() if name in _FORMS else load_table(name)
    starts = [
        replace(
            point,
            subsampling=subsampling,
            chroma=(*point.chroma, point.chroma[-1])[: search.tables - 1],
            hardness=(),
            bin_width=(),
            max_index=(),
        )
        for point in map(table.at, search.qualities)
    ]
    if name not in _FORMS:
        return starts
    find = partial(_FORMS[name], objective, starts, tables=search.tables, seed=search.settings.seed)
    return by_first(find)


def _show_step(show: Show, objective: Objective, done: j4d.Progress) -> None:
    show((done.loss, done.bpp * objective.dataset.pixels / 8))
