"""Hostile files: deterministic mutations of seed files, each read and transcoded or refused in one line, in
bounded time.

    python benchmarks/mutations.py          100,000 files; an hour or less

Seeds are 30 files that are made here: gray, colour and CMYK, baseline and progressive, with and without
restart markers and metadata, in all subsamplings. A crash ends the process.
"""

import random
import time
from collections import Counter

import click
import numpy as np
from common import write
from PIL import Image

from dnnjpeg import encode, read_coefficients, transcode
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.tools.demo import draw


def seeds() -> list[bytes]:
    photo = draw(90, 70, 0)
    files = [
        encode(photo, quality=60, subsampling=name, progressive=progressive, restart_blocks=restart)
        for name in SUBSAMPLINGS
        for progressive in (False, True)
        for restart in (0, 3)
    ]
    for mode in ("L", "CMYK"):
        for options in ({}, {"progressive": True}, {"restart_rows": 1}, {"optimize": False}):
            files.append(encode(photo.convert(mode), quality=80, **options))
    files.append(encode(photo, exif=b"MM\0*\0\0\0\x08\0\0\0\0\0\0", icc_profile=bytes(500), comment=b"note"))
    files.append(encode(Image.fromarray(np.zeros((1, 1), np.uint8))))
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to eight bytes changed, flipped, taken out or put in; or cut short."""
    file = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not file:
            break
        place, kind = rng.randrange(len(file)), rng.randrange(5)
        if kind == 0:
            file[place] = rng.randrange(256)
        elif kind == 1:
            file[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del file[place : place + rng.randrange(1, 9)]
        elif kind == 3:
            file[place:place] = bytes(
                rng.choice((0, 255, rng.randrange(256))) for _ in range(rng.randrange(9))
            )
        else:
            del file[max(place, 2) :]
    return bytes(file)


@click.command()
@click.option("--count", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(count: int, seed: int) -> None:
    """Count how it went, and write benchmarks/results/mutations.json."""
    files, rng = seeds(), random.Random(seed)
    for data in files:
        read_coefficients(data)  # compiled before anything is timed
        transcode(data, "standard", 30, subsampling="4:2:0")
    found: Counter[str] = Counter()
    slowest = 0.0
    for i in range(count):
        data, salvage = mutated(files[i % len(files)], rng), bool(i % 2)
        start = time.perf_counter()
        try:
            transcode(data, "standard", 30, subsampling="4:2:0", max_pixels=10_000_000, salvage=salvage)
            found["transcoded"] += 1
        except ValueError as error:
            assert "\n" not in str(error)
        try:
            read_coefficients(data, max_pixels=10_000_000, salvage=salvage)
            found["read"] += 1
        except ValueError as error:
            assert "\n" not in str(error)
            found["refused"] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if i % 1000 == 0:
            click.echo(f"{i:,} of {count:,}", err=True)
    write("mutations", {"seeds": len(files), "files": count, **found, "slowest_ms": round(1000 * slowest, 1)})
    click.echo(f"{dict(found)}, slowest {1000 * slowest:.0f} ms")


if __name__ == "__main__":
    main()
