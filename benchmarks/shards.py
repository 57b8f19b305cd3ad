"""Shards beside a folder: pictures a second, and peak memory by the number of shards.

    python benchmarks/shards.py

The JPEG files of full/ and flowers17 of $DNNJPEG_DATA/data, in a folder, and in tar shards in their order.
Runs of `dnnjpeg encode` take turns. Memory is the peak of a process for 2 shards, and for 20
with the same pictures.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
from common import write


@click.command()
@click.option("--shards", default=4, show_default=True, help="For the speed.")
@click.option("--size", default=500, show_default=True, help="Pictures a shard.")
@click.option("--turns", default=3, show_default=True)
def main(shards: int, size: int, turns: int) -> None:
    files = jpeg_files()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        chosen = [files[i % len(files)] for i in range(shards * size)]
        lay_out(folder, chosen, size)
        found: dict[str, list[tuple[float, float, float]]] = {"folder": [], "shards": []}
        for _ in range(turns):
            for kind, sources in (("folder", folder / "files"), ("shards", folder / "shards" / "*.tar")):
                found[kind].append(_measure(folder, sources))
        memory = {}
        for count in (2, 20):
            lay_out(folder, files[:200] * (count // 2), 100)
            memory[str(count)] = _measure(folder, folder / "shards" / "*.tar")[2]
    wall, cpu = (
        median(one[i] / other[i] for one, other in zip(found["folder"], found["shards"], strict=True))
        for i in (0, 1)
    )
    result: dict[str, Any] = {
        "pictures": shards * size,
        "shards": shards,
        "pictures_per_second": {
            kind: round(shards * size / median(one[0] for one in several), 1)
            for kind, several in found.items()
        },
        "speed_of_the_folder": {"wall": round(wall, 3), "cpu": round(cpu, 3)},
        "peak_mb_by_shards": memory,
    }
    write("shards", result)
    click.echo(json.dumps(result, indent=1))


def jpeg_files() -> list[Path]:
    """Those of full/ and flowers17."""
    data = Path(os.environ["DNNJPEG_DATA"]) / "data"
    found = [path for name in ("full", "flowers17") for path in sorted((data / name).rglob("*"))]
    return [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")]


def lay_out(folder: Path, files: list[Path], size: int) -> None:
    for name in ("files", "shards"):
        subprocess.run(["rm", "-rf", folder / name], check=True)
        (folder / name).mkdir()
    for first in range(0, len(files), size):
        with tarfile.open(folder / "shards" / f"{first // size:06}.tar", "w") as tar:
            for i, path in enumerate(files[first : first + size], first):
                (folder / "files" / f"{i:06}.jpg").write_bytes(path.read_bytes())
                tar.add(path, f"{i:06}.jpg")


_CODE = """
import resource, sys
from dnnjpeg.tools.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
"""


def _measure(folder: Path, sources: Path) -> tuple[float, float, float]:
    """Wall seconds as the command says, CPU seconds and peak MB of its process."""
    out = folder / "out"
    subprocess.run(["rm", "-rf", out], check=True)
    options = ["encode", sources, "-o", out, "--table", "universal", "--quality", "75", "--json"]
    command = [sys.executable, "-c", _CODE, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary, used = done.stdout.splitlines()
    cpu, peak = map(float, used.split())
    return json.loads(summary)["seconds"], cpu, peak


if __name__ == "__main__":
    main()
