"""Hostile files by coverage: atheris changes the seeds of mutations.py, and keeps what reaches new code.

    python -m pip install atheris
    python benchmarks/fuzz.py               an hour

Each file is transcoded, strictly or with `salvage`, and read where that goes. The code that is watched is
that of the segments and of the reader: kernels are machine code, which atheris does not see into. A crash, a
message of two lines, any exception but ValueError, and a file that takes more than a second end the run, and
the file is kept in the current folder.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FunctionType

import click
from common import write
from mutations import seeds

from dnnjpeg import read_coefficients, transcode
from dnnjpeg.codec import read_scans, reader
from dnnjpeg.jpeg import segments

WATCHED = (segments, reader, reader._Reader, read_scans, read_scans.Scans)
SLOWEST = 1.0  # seconds of a file, of its thread: other programs may have the processor


def fuzz(counts: Path, arguments: list[str]) -> None:
    """Never returns: libFuzzer ends the process. What was counted is in the file, every 1,000 files."""
    import atheris

    for where in WATCHED:
        for value in vars(where).values():
            function = getattr(value, "__wrapped__", value)  # below a cache
            if isinstance(function, FunctionType):
                atheris.instrument_func(function)
    for data in seeds():
        transcode(data, only_if_smaller=False)  # compiled before anything is timed
    found: Counter[str] = Counter()
    slowest = 0.0

    def one(data: bytes) -> None:
        nonlocal slowest
        salvage = len(data) % 2 == 0
        start = time.thread_time()
        try:
            transcode(data, quality=50, max_pixels=1_000_000, salvage=salvage, only_if_smaller=False)
            found["transcoded"] += 1
            read_coefficients(data, max_pixels=1_000_000, salvage=salvage)
            found["read"] += 1
        except ValueError as error:
            assert "\n" not in str(error), error
            found["refused"] += 1
        slowest = max(slowest, time.thread_time() - start)
        assert slowest < SLOWEST, slowest
        found["files"] += 1
        if found["files"] % 1000 == 0:
            counts.write_text(json.dumps({**found, "slowest_ms": round(1000 * slowest, 1)}))

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


@click.command()
@click.option("--seconds", default=3600, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--child", type=Path, hidden=True)
@click.argument("arguments", nargs=-1)
def main(seconds: int, seed: int, child: Path | None, arguments: tuple[str, ...]) -> None:
    """Run, and write benchmarks/results/fuzz.json."""
    if child is not None:
        fuzz(child, list(arguments))
    with tempfile.TemporaryDirectory() as folder:
        corpus, counts = Path(folder) / "corpus", Path(folder) / "counts.json"
        corpus.mkdir()
        for i, data in enumerate(seeds()):
            (corpus / f"{i}.jpg").write_bytes(data)
        options = (f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=20000", "-rss_limit_mb=4096")
        command = [sys.executable, __file__, "--child", counts, "--", *options, corpus]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise click.ClickException(done.stderr[-4000:])
        covered = re.findall(r"cov: (\d+)", done.stderr)
        result = {
            "seconds": seconds,
            **json.loads(counts.read_text()),
            "kept": len(list(corpus.iterdir())),
            "covered": [int(covered[0]), int(covered[-1])],
        }
    write("fuzz", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
