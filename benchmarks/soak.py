"""Very many random cases of what dnnjpeg guarantees, with their seed: a line a group.

coefficients: a strict reader of T.81 and libjpeg find the coefficients that were written.
tables: each table that is accepted, with any options, gives a valid file, indices within half a step.
threads: any number of threads gives the same bytes.
processes: so do other processes, and kernels for the x86-64 levels that the machine has.
mutations: of a damaged picture, a result or a documented exception.
json: of a damaged table or plan likewise.
files: the old file or the new one when the writer is killed or the disk is full.

python benchmarks/soak.py --minutes 10
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import soak_cases
import soak_damage
from common import RESULTS, write
from PIL import Image

from dnnjpeg.encoder import warmup
from dnnjpeg.files.provenance import cpu_name

CASES: dict[str, Callable[[np.random.Generator, Path], None]] = {
    "coefficients": soak_cases.coefficients,
    "tables": soak_cases.tables,
    "threads": soak_cases.threads,
    "mutations": soak_damage.mutations,
    "json": soak_damage.documents,
    "files": soak_damage.files,
}
GROUPS = (*CASES, "processes")
TOLD = 5  # failures of a group that are told
SECONDS = 60  # of a case; more is a hang
# What the levels have beyond the one before (x86-64 psABI).
LEVELS = {"x86-64-v2": "sse4.2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}


class Hang(BaseException):
    """A case that does not end; no `Exception`, which code under test could take for its own."""


def random(seed: int, group: str, case: int) -> np.random.Generator:
    return np.random.default_rng([seed, GROUPS.index(group), case])


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang(f"no end after {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def soak(group: str, cases: int, end: float, seed: int) -> dict[str, Any]:
    """Cases 0, 1, ... of a group, in memory where the system has such a folder."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() and group != "files" else None
    failures, done = [], 0
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for case in range(cases):
            if case and time.monotonic() > end:
                break
            try:
                with limited(SECONDS):
                    CASES[group](random(seed, group, case), Path(folder))
            except (Exception, Hang) as error:
                failures.append(f"case {case}: {type(error).__name__}: {error}")
            done = case + 1
    return {"cases": done, "failures": len(failures), "told": failures[:TOLD]}


def processes(cases: int, end: float, seed: int) -> dict[str, Any]:
    """The digests of files that this process makes, against those that others make in turn."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    levels = [level for level, feature in LEVELS.items() if features.get(feature)]
    others = {"another process": {}} | {
        level: {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""} for level in levels
    }
    own: list[str] = []
    share = (end - time.monotonic()) / (len(others) + 2)
    stop = time.monotonic() + share
    while len(own) < cases and (not own or time.monotonic() < stop):
        own.append(digest(seed, len(own)))
    failures = []
    for name, environment in others.items():
        command = [sys.executable, __file__, "--digests", str(len(own)), "--seed", str(seed)]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        theirs = done.stdout.split()
        if len(theirs) != len(own):
            failures.append(f"{name}: ended with {done.returncode}: {done.stderr[-300:]}")
        failures += [f"case {i}: {name}" for i, it in enumerate(theirs) if [it] != own[i : i + 1]]
    told = {"with": list(others)}
    return {"cases": len(own), "failures": len(failures), "told": failures[:TOLD], **told}


def digest(seed: int, case: int) -> str:
    return hashlib.sha256(soak_cases.file_of(random(seed, "processes", case))).hexdigest()


@click.command()
@click.option("--cases", type=click.IntRange(1), default=20_000, show_default=True, help="Of each group.")
@click.option("--minutes", type=float, default=10, show_default=True, help="A group ends after so many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--group", multiple=True, type=click.Choice(GROUPS), help="These alone.")
@click.option("--digests", type=int, hidden=True, help="Print so many of group processes.")
def main(cases: int, minutes: float, seed: int, group: tuple[str, ...], digests: int | None) -> None:
    """Try, print, and write benchmarks/results/soak.json; groups not tried stay there as they were."""
    warnings.simplefilter("ignore")
    if digests is not None:
        for case in range(digests):
            click.echo(digest(seed, case))
        return
    Image.MAX_IMAGE_PIXELS = 1 << 20  # damage can make a picture of 40x32 a very large one
    warmup()
    path = RESULTS / "soak.json"
    groups = json.loads(path.read_text())["groups"] if path.exists() else {}
    failed = False
    for name in group or GROUPS:
        start = time.monotonic()
        end = start + 60 * minutes
        found = processes(cases, end, seed) if name == "processes" else soak(name, cases, end, seed)
        seconds = round(time.monotonic() - start, 1)
        groups[name] = {"seed": seed, "seconds": seconds, "cpu": cpu_name(), **found}
        click.echo(
            f"{name:12}  seed {seed}  {found['cases']:6,} cases  {seconds:6,.0f} s  "
            f"{found['failures']} failures"
        )
        for told in found["told"]:
            click.echo(f"  {told}")
        failed |= found["failures"] > 0
    write("soak", {"groups": {name: groups[name] for name in GROUPS if name in groups}})
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
