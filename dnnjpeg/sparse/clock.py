"""How long functions take that are compared."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

TURN = 0.03  # seconds that a function runs, as threads of other libraries spin for a while after their turn


def clock(
    functions: dict[Any, Callable[[], Any]], seconds: float, between: Callable[[], Any] | None = None
) -> dict[Any, float]:
    """Median milliseconds of each function. The functions take turns.

    between: called before each call. None: a function is called again and again for a while (`TURN`), the
        first call of which does not count.
    """
    tick = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def once(function: Callable[[], Any]) -> float:
        start = tick()
        function()
        return tick() - start

    taken: dict[Any, list[float]] = {key: [] for key in functions}
    if between is not None:
        for function in functions.values():
            function()  # compiles it
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < 5:
        for key, function in functions.items():
            if between is not None:
                between()
                taken[key].append(once(function))
                continue
            getattr(function, "prepare", lambda: None)()
            function()
            turn = tick()
            while tick() < turn + TURN:
                taken[key].append(once(function))
    return {key: 1000 * statistics.median(values) for key, values in taken.items()}
