"""The most memory that `dnnjpeg encode` holds: for a large picture, and for folders of few and many files.

python benchmarks/memory.py
"""

import os
import sys
import tempfile
from pathlib import Path

import click
from common import run, write
from PIL import Image

from dnnjpeg.tools.demo import draw

# The command, and then the kernel's own account of the process and of its largest worker process (Linux).
COMMAND = """
import pathlib, resource, sys
from dnnjpeg.tools.cli import main
try:
    main()
finally:
    sys.stderr.write(pathlib.Path("/proc/self/status").read_text())
    sys.stderr.write(f"worker: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
"""


def peaks(*arguments: str | Path) -> tuple[int, int]:
    """Megabytes (10^6 bytes) resident at the most during `dnnjpeg ARGUMENTS`, in the process and in its
    largest worker process.
    """
    lines = run([sys.executable, "-c", COMMAND, *arguments])["stderr"].splitlines()
    found = {name: line.split()[1] for line in lines for name in ("VmHWM", "worker") if line.startswith(name)}
    program, worker = (round(int(found[name]) * 1024 / 1e6) for name in ("VmHWM", "worker"))
    return program, worker


def measure(folder: Path, megapixels: int, files: int) -> dict[str, int]:
    results = {}
    tile = draw(1000, 1000)
    big = Image.new("RGB", (10_000, 100 * megapixels))
    for i in range(100):
        big.paste(tile, (i % 10 * 1000, i // 10 * 1000))
    big.save(folder / "big.jpg", quality=95)
    del big
    ways: dict[str, list[str]] = {
        "": [],
        ", progressive": ["--progressive"],
        ", hardness 15": ["--hardness", "15"],
    }
    for name, options in ways.items():
        for jobs in (1, 2):
            label = f"{megapixels} megapixels{name}, {jobs} thread{'s' * (jobs - 1)}"
            results[label], _ = peaks(
                "encode", folder / "big.jpg", "-o", folder / "x.jpg", "--jobs", str(jobs), *options
            )

    draw(500, 375).save(folder / "one.jpg", quality=95)
    for count in (20, files):
        source = folder / str(count)
        source.mkdir()
        for i in range(count):
            os.link(folder / "one.jpg", source / f"{i:04}.jpg")
        program, worker = peaks("encode", source, "-o", folder / "out", "--jobs", "2")
        results[f"{count} files of 500x375, 2 jobs"] = program
        if worker:
            results[f"{count} files of 500x375, 2 jobs: a worker"] = worker
    return results


@click.command()
@click.option("--megapixels", type=click.IntRange(1, 100), default=100, show_default=True)
@click.option(
    "--files", type=click.IntRange(21), default=2000, show_default=True, help="Of the larger folder."
)
def main(megapixels: int, files: int) -> None:
    """Measure, print, and write benchmarks/results/memory.json."""
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), megapixels, files)
    write("memory", {"megabytes": results})
    width = max(map(len, results))
    for name, megabytes in results.items():
        click.echo(f"{name:{width}} {megabytes:6,} MB")


if __name__ == "__main__":
    main()
