"""The ways to candidates for a table, behind one signature."""

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

# Told of one more step or trial: its mean loss and its bytes a picture.
Show = Callable[[tuple[float, float]], object]


@dataclass(frozen=True)
class MethodOptions:
    """What is looked for, and how. Raises ValueError for a start that is no table.

    method: "given" takes the points of the table `start` as they are.
    qualities: of standard files, near whose rates candidates are found, for each of the subsamplings.
    start: of j4d and given: "sensitivity" (of j4d alone), or a table as `load_table` takes it.
    deadline: of `time.monotonic`, for which slopes and j4d stop early if need be.
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
                f"method given takes the points of a table, and start is {self.start!r}: name one"
            )


def candidates(
    objective: Objective,
    search: MethodOptions,
    curve: StandardCurve,
    folder: Path,
    progress: Callable[[str, int], AbstractContextManager[Show]],
) -> Iterator[OperatingPoint]:
    """Points found by one method, in all processes alike.

    folder: of j4d's states, from which an interrupted search goes on.
    progress: is told what is done, and in how many steps; it yields what to tell each to.
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
    """How many points `candidates` finds at most."""
    if search.method == "given":
        return len(load_table(search.start).points)
    counts = len(search.qualities), len(search.subsamplings)
    return slopes.most_candidates(*counts) if search.method == "slopes" else math.prod(counts)


def _starts(objective: Objective, search: MethodOptions, subsampling: str) -> list[OperatingPoint]:
    """By a closed form, or those of a table."""
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
