"""Shards beside a folder: pictures a second, peak memory by the number of shards, and kills.

    python benchmarks/shards.py

The JPEG files of full/ and flowers17 of $DNNJPEG_DATA/data, in a folder, and in tar shards in their order.
Runs of `dnnjpeg encode` take turns. Memory is the peak of the program and of its largest worker process, for
2 shards and for all. At last, ten runs are killed (SIGKILL) at random moments, and one more ends the work:
its output must be that of an undisturbed run, byte for byte.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from common import write


@click.command()
@click.option("--shards", default=20, show_default=True)
@click.option("--size", default=500, show_default=True, help="Pictures a shard.")
@click.option("--turns", default=3, show_default=True)
def main(shards: int, size: int, turns: int) -> None:
    files = jpeg_files()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        chosen = [files[i % len(files)] for i in range(shards * size)]
        lay_out(folder, chosen, size)
        found: dict[str, list[dict[str, float]]] = {"folder": [], "shards": []}
        for _ in range(turns):
            for kind, sources in (("folder", folder / "files"), ("shards", folder / "shards" / "*.tar")):
                found[kind].append(_measure(folder, sources))
        memory = {shards: found["shards"][-1]["peak_mb"]}
        killed = _kill(folder, found["shards"][-1]["seconds"])
        memory[2] = _measure(folder, folder / "shards" / "00000[01].tar")["peak_mb"]
    wall, cpu = (
        median(one[what] / other[what] for one, other in zip(found["folder"], found["shards"], strict=True))
        for what in ("seconds", "cpu")
    )
    result: dict[str, Any] = {
        "pictures": shards * size,
        "shards": shards,
        "pictures_per_second": {
            kind: round(shards * size / median(one["seconds"] for one in several), 1)
            for kind, several in found.items()
        },
        "speed_of_the_folder": {"wall": round(wall, 3), "cpu": round(cpu, 3)},
        "peak_mb_by_shards": dict(sorted(memory.items())),
        "kills": killed,
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
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(sum(one.ru_utime + one.ru_stime for one in used), *(one.ru_maxrss / 1000 for one in used))
"""


def _command(folder: Path, sources: Path, out: str) -> list[str]:
    options = ["encode", sources, "-o", folder / out, "--table", "universal", "--quality", "75", "--json"]
    return [sys.executable, "-c", _CODE, *map(str, options)]


def _measure(folder: Path, sources: Path) -> dict[str, Any]:
    """Wall seconds as the command says; CPU seconds and peak MB of its process and of its workers."""
    subprocess.run(["rm", "-rf", folder / "out"], check=True)
    done = subprocess.run(_command(folder, sources, "out"), capture_output=True, text=True, check=True)
    summary, used = done.stdout.splitlines()
    cpu, program, worker = map(float, used.split())
    peak = {"program": round(program, 1), "worker": round(worker, 1)}
    return {"seconds": json.loads(summary)["seconds"], "cpu": cpu, "peak_mb": peak}


def _kill(folder: Path, seconds: float, times: int = 10) -> dict[str, Any]:
    """Runs that are killed, and what is there then. The output of an undisturbed run is in "out"."""
    command = _command(folder, folder / "shards" / "*.tar", "killed")
    rng, finished, halves = random.Random(0), [], 0
    for _ in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(2 + rng.uniform(0, 1.6 * seconds / times))  # two seconds for the start
        if process.poll() is not None:
            raise RuntimeError("a run ended before it was killed: give more --shards")
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished.append(_compare(folder))
        left = list((folder / "killed" / "_dnnjpeg").glob(".*"))
        halves += len(left)
        for path in left:
            path.unlink()  # as the next run does after a minute
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    expected = len(list((folder / "out").glob("*.tar")))
    if _compare(folder) != expected:
        raise RuntimeError(f"{_compare(folder)} shards at the end, expected {expected}")
    return {"kills": times, "shards_done_at_each": finished, "half_written": halves, "same_bytes": True}


def _compare(folder: Path) -> int:
    """The shards under their final name. Each must be that of an undisturbed run."""
    found = list((folder / "killed").glob("*.tar"))
    for path in found:
        if path.read_bytes() != (folder / "out" / path.name).read_bytes():
            raise RuntimeError(f"{path.name} is another one after a kill")
    return len(found)


if __name__ == "__main__":
    main()
