"""Where the time of encoding goes: nanoseconds a block of each stage alone, one thread, 4:2:0.

python benchmarks/stages.py
"""

import json
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from common import RESULTS, SIZES, pictures, write
from PIL import Image

from dnnjpeg.codec.bits import COUNT_ROWS, count_symbols, pack
from dnnjpeg.codec.colour import fill_strips
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import SYMBOLS, optimal_huffman
from dnnjpeg.codec.picture import Work
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.codec.prepare import quantizer_for, sampling_of
from dnnjpeg.codec.rows import transform
from dnnjpeg.codec.scan import MAX_BLOCK_TOKENS, entry_bytes, mcu_row_tokens
from dnnjpeg.codec.stream import BIT_SCRATCH, SLACK, interval_bounds
from dnnjpeg.machine.jit import kernel
from dnnjpeg.machine.simd import address
from dnnjpeg.table.library import standard_table

Stages = dict[str, Callable[[], Any]]
CASES: dict[str, tuple[int, float | None]] = {
    **{f"quality {quality}": (quality, None) for quality in (1, 50, 75, 90)},
    "75, hardness 30": (75, 30),
    "75, hardness 15": (75, 15),
}


@kernel
def colour(jobs, pixels, row_bytes, mix, components, strips, size, rows, memory):
    job = jobs[0]
    for row in range(rows):
        fill_strips(
            pixels, row_bytes, job.layout, job.pixel_bytes, job.width, job.height, job.mcus * 8 * job.h,
            row * 8 * job.v, job.h, job.v, address(mix), components, address(strips) + row * size,
            job.y_stride, job.c_stride, (address(memory) + 63 & ~63) + job.edge,
        )  # fmt: skip


@kernel
def quantized(
    jobs, strips, size, rows, memory, planes, geometry, kinds, scale, law, reach, limit, keys
):  # fmt: skip
    room = address(memory) + 63 & ~63
    for row in range(rows):
        transform(
            jobs[0], room, address(strips) + row * size, address(planes), geometry, kinds, scale, law,
            reach, limit, keys, 0, row, 0, 0,
        )  # fmt: skip


@kernel
def made(tokens, entries, planes, geometry, mcus, rows, state, bounds):
    out = address(tokens)
    for row in range(rows):
        out = mcu_row_tokens(
            out, address(entries), address(planes), geometry, 0, row, mcus, 0, state, address(tokens), bounds
        )
    return (out - address(tokens)) // 4


@kernel
def counted(tokens, count, counts):
    count_symbols(address(tokens), address(tokens) + 4 * count, address(counts))


def stages(image: Image.Image, quality: int, hardness: float | None) -> tuple[Stages, int]:
    """Functions that do one stage each, on what those before have left, and the picture's blocks."""
    point = standard_table().at(quality)
    pixels = as_pixels(image, None)
    frame = Frame(image.width, image.height, sampling_of(3, "4:2:0"), (0, 1, 1))
    work = Work.of(frame, pixels.mode, quantizer_for(point, hardness, 3), 0, True, 0)
    mix, geometry, *law = work.fixed
    size = int(work.job["edge"][0] - work.job["strips"][0])
    rows, blocks = frame.mcu_rows, frame.mcu_rows * frame.mcus * frame.blocks
    strips, memory = np.empty(size * rows + 64, np.uint8), np.empty(work.size, np.uint8)
    planes = np.empty((frame.planes(True)[1], 64), np.int16)
    tokens = np.empty(blocks * MAX_BLOCK_TOKENS + SLACK, np.uint32)
    entries, bounds = np.empty(entry_bytes(frame.mcus * frame.blocks), np.uint8), interval_bounds(0, 0)
    counts = np.zeros((COUNT_ROWS, SYMBOLS), np.uint32)
    first, row_bytes, _ = pixels.rows

    def convert():
        colour(work.job, first, row_bytes, mix, 3, strips, size, rows, memory)

    def transform_all():
        quantized(work.job, strips, size, rows, memory, planes, geometry, *law)

    def make_tokens() -> int:
        return made(tokens, entries, planes, geometry, frame.mcus, rows, np.zeros(3, np.int64), bounds)

    convert()
    transform_all()
    count = make_tokens()
    counted(tokens, count, counts)
    raw, out = np.empty(4 * count + SLACK, np.uint8), np.empty(8 * count + SLACK, np.uint8)
    lut, scratch = optimal_huffman(counts).lut, np.empty(BIT_SCRATCH, np.uint32)
    functions = {
        "colour, subsampling": convert,
        "DCT, quantization": transform_all,
        "tokens": make_tokens,
        "histogram": lambda: counted(tokens, count, counts),
        "Huffman tables": lambda: optimal_huffman(counts),
        "codes, stuffing": lambda: pack(tokens, count, bounds, lut, raw, out, scratch),
    }
    return functions, blocks


def measure(image: Image.Image, quality: int, hardness: float | None, rounds: int) -> dict[str, float]:
    """Nanoseconds a block: the fastest of rounds in which the stages take turns."""
    functions, blocks = stages(image, quality, hardness)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    nanoseconds = {name: 1e9 * min(values) / blocks for name, values in times.items()}
    nanoseconds["all"] = sum(nanoseconds.values())
    return nanoseconds


def as_markdown(results: dict[str, Any]) -> str:
    """A row for each stage, a column for each case."""
    cases = results["nanoseconds a block"]
    lines = [f"| nanoseconds a block | {' | '.join(cases)} |", f"|---|{'---:|' * len(cases)}"]
    for stage in next(iter(cases.values())):
        lines.append(f"| {stage} | {' | '.join(f'{case[stage]:.1f}' for case in cases.values())} |")
    return "\n".join(lines)


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=100, show_default=True)
@click.option("--name", default="stages", show_default=True, help="Of the results.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and measure nothing.")
def main(rounds: int, name: str, show: bool) -> None:
    """Measure pictures of 768x512, print a Markdown table, and write benchmarks/results/NAME.json."""
    if not show:
        images = pictures()[SIZES[1]]
        cases = {}
        for title, (quality, hardness) in CASES.items():
            found = [measure(image, quality, hardness, rounds) for image in images]
            cases[title] = {
                stage: round(sum(one[stage] for one in found) / len(found), 1) for stage in found[0]
            }
        write(name, {"pictures": len(images), "nanoseconds a block": cases})
    click.echo(as_markdown(json.loads((RESULTS / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
