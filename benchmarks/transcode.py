"""Transcoding beside decoding and encoding: speed in one process and one thread, and bytes for what is read.

    python benchmarks/transcode.py speed    the web photographs and full/val of $DNNJPEG_DATA/data
    python benchmarks/transcode.py worth    full/val as it is stored, read by mobilenet_v2

speed: functions take turns, file by file; a file counts with its fastest turn, in seconds of its thread.
jpeglib reads coefficients by libjpeg-turbo out of a file in memory (/dev/shm) and copies them for Python.
worth: files of quality 35, 50 and 75 against Pillow's, which decodes and saves with `optimize=True`, at equal
mean divergence from what the network reads in the source.
"""

import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import RESULTS, write
from PIL import Image

from dnnjpeg import encode, read_coefficients, transcode

QUALITY = 75
CURVE = (22, 30, 40, 50, 60, 70, 78, 85)  # of Pillow's
ASKED = (35, 50, 75)


def _data(folder: str, count: int | None) -> list[bytes]:
    root = Path(os.environ["DNNJPEG_DATA"]) / "data" / folder
    return [
        path.read_bytes()
        for path in sorted(root.iterdir())[:count]
        if path.suffix.lower() in (".jpg", ".jpeg")
    ]


def _pillow(data: bytes, quality: int = QUALITY) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def _ours(data: bytes, quality: int = QUALITY, table: str = "standard") -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return encode(image, table, quality)


def _decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def speed_of(files: list[bytes], turns: int) -> dict[str, float]:
    """By function, mean milliseconds a file, and how many times as fast transcoding and reading are."""
    import jpeglib

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "x.jpg"

        def libjpeg(data: bytes) -> None:
            jpeglib.read_dct(str(path)).load()

        functions: dict[str, Callable[[bytes], Any]] = {
            "Pillow decodes and encodes": _pillow,
            "Pillow decodes, dnnjpeg encodes": _ours,
            "transcode": lambda data: transcode(data, quality=QUALITY),
            "Pillow decodes": _decode,
            "jpeglib reads coefficients": libjpeg,
            "read_coefficients": read_coefficients,
        }
        best = {name: np.full(len(files), np.inf) for name in functions}
        for _ in range(turns):
            for i, data in enumerate(files):
                path.write_bytes(data)
                for name, function in functions.items():
                    start = time.thread_time()
                    function(data)
                    best[name][i] = min(best[name][i], time.thread_time() - start)

    def ratio(slow: str, fast: str) -> float:
        return round(float(np.exp(np.mean(np.log(best[slow] / best[fast])))), 3)

    found = {f"{name}, ms": round(1000 * float(times.mean()), 3) for name, times in best.items()}
    for name in list(functions)[:2]:
        found[f"transcode over: {name}"] = ratio(name, "transcode")
    for name in list(functions)[3:5]:
        found[f"read_coefficients over: {name}"] = ratio(name, "read_coefficients")
    return found


def worth_of(files: list[bytes], tables: tuple[str, ...]) -> dict[str, list[float]]:
    """By codec, the changes of bytes in per cent at the qualities asked."""
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.readings import compare, decode

    network = load_network(f"{Path(os.environ['DNNJPEG_DATA']) / 'models' / 'zoo.py'}:mobilenet_v2")
    clean = network.read([decode(data) for data in files])

    def point(make: Callable[[bytes], bytes]) -> tuple[float, float]:
        made = [make(data) for data in files]
        divergence = compare(network.read([decode(data) for data in made]), clean).divergence.mean()
        return float(np.log(np.mean([len(data) for data in made]))), float(np.log(divergence))

    sizes, divergences = np.array([point(lambda data, q=q: _pillow(data, q)) for q in CURVE]).T
    found = {}
    for table in tables:
        ways: dict[str, Callable[[bytes, int], bytes]] = {
            "pixels": lambda data, q, table=table: _ours(data, q, table),
            "coefficients": lambda data, q, table=table: transcode(data, table, q, strip=True),
        }
        for way, make in ways.items():
            changes = []
            for q in ASKED:
                size, divergence = point(lambda data, q=q, make=make: make(data, q))
                at_equal = np.interp(divergence, divergences[::-1], sizes[::-1])
                changes.append(round(100 * float(np.expm1(size - at_equal)), 2))
            found[f"{table}, {way}"] = changes
            click.echo(f"{table}, {way}: {changes}", err=True)
    return found


@click.command()
@click.argument("what", type=click.Choice(["speed", "worth"]))
@click.option("--count", type=int, help="Pictures of a folder.  [default: all]")
@click.option("--turns", default=7, show_default=True, help="Of each function.")
@click.option("--table", "tables", multiple=True, default=("standard", "mobilenet_v2"), show_default=True)
@click.option("--show", is_flag=True, help="Print the last run, and measure nothing.")
def main(what: str, count: int | None, turns: int, tables: tuple[str, ...], show: bool) -> None:
    """Measure, print, and write benchmarks/results/transcode_WHAT.json."""
    name = f"transcode_{what}"
    if not show:
        if what == "speed":
            folders = ("photos/web", "full/val")
            groups: dict[str, Any] = {folder: speed_of(_data(folder, count), turns) for folder in folders}
        else:
            groups = {"full/val": worth_of(_data("full/val", count), tables)}
        write(name, {"quality": QUALITY, "count": count, "groups": groups})
    click.echo(json.dumps(json.loads((RESULTS / f"{name}.json").read_text())["groups"], indent=2))


if __name__ == "__main__":
    main()
