"""What the processors are like: how many there are, and the sizes of their caches."""

import os
from functools import cache
from pathlib import Path

_GUESSED = {1: 32 << 10, 2: 512 << 10}  # if the system does not tell


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cache_size(level: int) -> int:
    """Bytes of a processor's first (1) or second (2) cache of data."""
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, own, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction" and int(own) == level:
                return int(size.removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return _GUESSED[level]
