"""Speed and size of dnnjpeg beside other encoders, in one process and one thread, at quality 75 and 4:2:0.

python benchmarks/encode.py                          on a Zen 4
python benchmarks/encode.py --name encode-xeon       on an Intel Xeon
python benchmarks/encode.py --cpu x86-64-v3 --name encode-xeon-avx2     there, with kernels for AVX2
python benchmarks/encode.py --name encode-znver3     on a Zen 3, which has no AVX-512
"""

import io
import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import RESULTS, SIZES, alternate, pictures, write
from PIL import Image

QUALITY = 75
PILLOW, OPTIMIZED = "Pillow", "Pillow, optimize"
ONE_THREAD, STANDARD, TWO_THREADS = "dnnjpeg", "dnnjpeg, optimize=False", "dnnjpeg, 2 threads"
PROCESSORS = {"encode": "Zen 4, AVX-512", "encode-xeon": "Xeon, AVX-512", "encode-znver3": "Zen 3, AVX2"}
SUMMARY = (
    ONE_THREAD,
    "dnnjpeg, progressive",
    PILLOW,
    OPTIMIZED,
    "OpenCV",
    "simplejpeg",
)


def encoders(image: Image.Image, scratch: Path) -> dict[str, Callable[[], int]]:
    """Functions that encode the picture and return the number of bytes."""
    import cv2
    import jpeglib
    import pyjpegli
    import simplejpeg

    import dnnjpeg

    cv2.setNumThreads(1)
    rgb = np.ascontiguousarray(image)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    packed = rgb.tobytes()
    one = jpeglib.from_spatial(rgb)
    one.samp_factor = "4:2:0"

    def pillow(**options: Any) -> int:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY, **options)
        return len(file.getvalue())

    def ours(**options: Any) -> int:
        return len(dnnjpeg.encode(image, "standard", QUALITY, **options))

    def to_file() -> int:
        one.write_spatial(str(scratch), qt=QUALITY)
        return scratch.stat().st_size

    def opencv(*params: int) -> int:
        return len(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY, *params])[1])

    functions: dict[str, Callable[[], int]] = {
        PILLOW: pillow,
        OPTIMIZED: lambda: pillow(optimize=True),
        ONE_THREAD: ours,
        STANDARD: lambda: ours(optimize=False),
        "dnnjpeg, hardness 30": lambda: ours(hardness=30),
        "dnnjpeg, hardness 15": lambda: ours(hardness=15),
        "dnnjpeg, progressive": lambda: ours(progressive=True),
        "Pillow, progressive": lambda: pillow(progressive=True),
        "OpenCV": opencv,
        "OpenCV, optimize": lambda: opencv(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "simplejpeg": lambda: len(simplejpeg.encode_jpeg(rgb, QUALITY, "RGB", "420")),
        "jpegli (pyjpegli)": lambda: len(pyjpegli.encode(packed, *image.size, quality=QUALITY)),
        "jpeglib, to a file": to_file,
    }
    with suppress(ImportError, RuntimeError):  # the library is not part of the package
        import turbojpeg

        turbo, parts = turbojpeg.TurboJPEG(), (turbojpeg.TJPF_RGB, turbojpeg.TJSAMP_420)
        functions["PyTurboJPEG"] = lambda: len(turbo.encode(rgb, QUALITY, *parts))
    if image.width * image.height > 10_000_000:
        functions[TWO_THREADS] = lambda: ours(threads=2)
    return functions


def measure(images: list[Image.Image], seconds: float, scratch: Path) -> dict[str, dict[str, float]]:
    """By encoder: mean milliseconds, and geometric means over the pictures of the ratios to Pillow."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for image in images:
        functions = encoders(image, scratch)
        sizes = {name: function() for name, function in functions.items()}
        times = alternate(functions, seconds)
        for name in functions:
            ratios = (
                times[PILLOW] / times[name],
                times[OPTIMIZED] / times[name],
                sizes[name] / sizes[PILLOW],
                sizes[name] / sizes[OPTIMIZED],
            )
            rows.setdefault(name, []).append((1000 * times[name], *ratios))
    return {name: _means(values) for name, values in rows.items()}


def _means(values: list[tuple[float, ...]]) -> dict[str, float]:
    milliseconds, *ratios = zip(*values, strict=True)
    keys = ("speed_over_pillow", "speed_over_optimized", "size_over_pillow", "size_over_optimized")
    means = (math.exp(sum(map(math.log, ratio)) / len(ratio)) for ratio in ratios)
    return {
        "milliseconds": round(sum(milliseconds) / len(milliseconds), 3),
        **{key: round(mean, 4) for key, mean in zip(keys, means, strict=True)},
    }


def as_markdown(results: dict[str, Any]) -> str:
    """A row for each encoder.

    By size of picture: time, speed over Pillow and over Pillow with optimize=True; then bytes over these two.
    """
    groups = results["groups"]
    lines = [
        f"| quality {QUALITY}, 4:2:0 | {' | '.join(groups)} | bytes |",
        f"|---|{'---:|' * (len(groups) + 1)}",
    ]
    for name in max((group["encoders"] for group in groups.values()), key=len):
        rows = [group["encoders"].get(name) for group in groups.values()]
        cells = [_speed(row) if row else "" for row in rows]
        sizes = [
            math.prod(row[key] for row in rows) ** (1 / len(rows))
            for key in ("size_over_pillow", "size_over_optimized")
            if all(rows)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(f'{size:.3f}' for size in sizes)} |")
    return "\n".join(lines)


def _speed(row: dict[str, float]) -> str:
    ratios = (row["speed_over_pillow"], row["speed_over_optimized"])
    return f"{row['milliseconds']:.2f} ms, {ratios[0]:.2f}x, {ratios[1]:.2f}x"


def as_summary(size: str) -> str:
    """Milliseconds and speed over Pillow of a few encoders, by processor."""
    columns = [
        json.loads((RESULTS / f"{name}.json").read_text())["groups"][size]["encoders"] for name in PROCESSORS
    ]
    lines = [
        f"| {size}, quality {QUALITY}, 4:2:0 | {' | '.join(PROCESSORS.values())} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for name in SUMMARY:
        cells = [
            f"{row[name]['milliseconds']:.2f} ms, {row[name]['speed_over_pillow']:.2f}x" for row in columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--seconds", type=float, default=4, show_default=True, help="For each picture.")
@click.option(
    "--cpu", help="Compile the kernels for this processor, such as x86-64-v3, in place of the one at hand."
)
@click.option("--name", default="encode", show_default=True, help="Of the results.")
@click.option("--only", multiple=True, type=click.Choice(SIZES), help="Pictures of this size.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and measure nothing.")
@click.option("--summary", is_flag=True, help="Print a short table of all processors.")
def main(
    seconds: float, cpu: str | None, name: str, only: tuple[str, ...], show: bool, summary: bool
) -> None:
    """Measure, print a Markdown table, and write benchmarks/results/NAME.json."""
    if summary:
        click.echo(as_summary(SIZES[0]))
        return
    if not show:
        if cpu:
            os.environ.update(NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="")
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            groups = {
                size: {"pictures": len(images), "encoders": measure(images, seconds, Path(folder) / "x.jpg")}
                for size, images in pictures().items()
                if size in (only or SIZES)
            }
        drawn = not os.environ.get("DNNJPEG_DATA")
        write(
            name,
            {"pictures": "drawn" if drawn else "photographs", "kernels_for": cpu or "host", "groups": groups},
        )
    click.echo(as_markdown(json.loads((RESULTS / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
