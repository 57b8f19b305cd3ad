"""A second quantization done right: which way of going from a source's steps to coarser ones loses least.

    python benchmarks/requantize.py               200 pictures of $DNNJPEG_DATA/data/full/learn
    python benchmarks/requantize.py --show        the table of the last run

Sources are the pictures as mobilenet_v2 is shown them, 224 x 224, saved by Pillow with 4:2:0 at a quality.
Each way makes files of standard tables, at qualities around the one asked, and the network reads them. A cell
is the change of bytes against Pillow, which decodes the source and saves it with `optimize=True`, at equal
mean divergence from what the network reads in the source. Curves are straight between neighbours: some of the
pictures could have the one, some the other.
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import RESULTS, write
from PIL import Image

from dnnjpeg import encode, read_coefficients, write_coefficients
from dnnjpeg.codec.reader import Coefficients
from dnnjpeg.models import Network, load_network
from dnnjpeg.readings import compare, decode
from dnnjpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_scale

PAIRS = ((85, 75), (75, 60), (75, 50), (90, 75))  # quality of the source, and Pillow's
AROUND = (-7, 0, 6)  # qualities that are tried

Arrays = tuple[np.ndarray, np.ndarray]  # indices, blocks x 64, and the steps they stand for


def _nearest(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.rint(values / steps).astype(np.int64)


def kept(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> Arrays:
    """The source's index and step where the wanted step is not larger; the nearest elsewhere."""
    steps = np.maximum(source, wanted)
    return _nearest(indices * source, steps), steps


def multiples(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray, most: float = 3) -> Arrays:
    """As kept, but up to `most` source steps, to the multiple that is nearest by ratio."""
    ratio = np.maximum(wanted / source, 1)
    whole = np.maximum(
        np.where(ratio / np.floor(ratio) <= np.ceil(ratio) / ratio, np.floor(ratio), np.ceil(ratio)), 1
    )
    steps = np.where(ratio <= most, whole * source, wanted).astype(np.int64)
    steps = np.where(steps > 255, np.maximum(source, wanted), steps)
    return _nearest(indices * source, steps), steps


def odd_multiples(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> Arrays:
    """As multiples, but of 1 and 3 only up to 4: no value lies just between two indices then."""
    ratio = np.maximum(wanted / source, 1)
    whole = np.where(ratio < 1.7, 1, 3)
    steps = np.where(ratio <= 4, whole * source, wanted).astype(np.int64)
    steps = np.where(steps > 255, np.maximum(source, wanted), steps)
    return _nearest(indices * source, steps), steps


def centroid(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> Arrays:
    """As kept, but an index stands for the mean of what became it, were it spread by a Laplacian."""
    steps = np.maximum(source, wanted)
    magnitude = np.abs(indices)
    # maximum likelihood of a Laplacian seen through the quantizer: share of what a step further occurs
    total, count = magnitude.sum(axis=0), np.maximum((magnitude > 0).sum(axis=0), 1)
    share = np.clip(1 - count / np.maximum(total, count + 1e-9), 1e-6, 1 - 1e-6)
    rate = -np.log(share)  # a source step
    delta = 0.5 / np.tanh(rate / 2) - 1 / rate  # from the middle of the cell towards zero
    delta[0] = 0  # DC is not spread so
    values = np.sign(indices) * (magnitude - delta) * source
    changed = np.where(steps > source, _nearest(values, steps), indices)
    return changed, steps


WAYS: dict[str, Callable[..., Arrays]] = {
    "source steps kept": kept,
    "multiples up to 3": multiples,
    "multiples up to 1.5": lambda *given: multiples(*given, most=1.5),
    "odd multiples": odd_multiples,
    "centroid": centroid,
}


def requantized(source: Coefficients, way: Callable[..., Arrays], quality: int) -> bytes:
    planes, tables = [], []
    for c, plane in enumerate(source.planes):
        wanted = np.array(ijg_scale(STANDARD_CHROMA if c else STANDARD_LUMA, quality))
        indices, steps = way(plane.reshape(-1, 64).astype(np.int64), np.array(source.tables[c]), wanted)
        planes.append(indices.reshape(plane.shape))
        tables.append(steps)
    return write_coefficients(
        planes, tables, source.width, source.height, subsampling=source.subsampling, progressive="auto"
    )


def _pillow(image: Image.Image, quality: int, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


def curve(network: Network, clean: np.ndarray, files: list[list[bytes]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the bytes, and of the divergences, from the largest divergence down."""
    points = []
    for data in files:
        found = compare(network.read([decode(one) for one in data]), clean)
        points.append((np.mean([len(one) for one in data]), found.divergence.mean()))
    sizes, divergences = np.array(sorted(points)).T
    return sizes, np.minimum.accumulate(divergences)


def trial(images: list[Image.Image], network: Network, quality: int, asked: int) -> dict[str, float]:
    """By way, the change of bytes in per cent."""
    data = [_pillow(image, quality) for image in images]
    pixels = [decode(one) for one in data]
    decoded = [Image.fromarray(one) for one in pixels]
    clean = network.read(pixels)
    coefficients = [read_coefficients(one) for one in data]
    size, divergence = curve(network, clean, [[_pillow(one, asked, optimize=True) for one in decoded]])

    def by_pixels(quality: int) -> list[bytes]:
        return [encode(one, quality=quality, progressive="auto", signature=False) for one in pixels]

    def requantize_by(way: Callable[..., Arrays]) -> Callable[[int], list[bytes]]:
        return lambda quality: [requantized(one, way, quality) for one in coefficients]

    ways = {"by pixels": by_pixels} | {name: requantize_by(way) for name, way in WAYS.items()}
    found = {}
    for name, files in ways.items():
        sizes, divergences = curve(network, clean, [files(asked + step) for step in AROUND])
        at_equal = np.interp(divergence, divergences[::-1], sizes[::-1])
        found[name] = round(float(100 * (at_equal / size - 1)[0]), 2)
        click.echo(f"{quality} to {asked}, {name}: {found[name]:+.1f} %", err=True)
    return found


def as_markdown(results: dict[str, Any]) -> str:
    pairs = results["pairs"]
    lines = [f"| | {' | '.join(pairs)} |", f"|---|{'---:|' * len(pairs)}"]
    for name in next(iter(pairs.values())):
        lines.append(f"| {name} | {' | '.join(f'{ways[name]:+.1f} %' for ways in pairs.values())} |")
    return "\n".join(lines)


@click.command()
@click.option("--count", default=200, show_default=True, help="Pictures.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and measure nothing.")
def main(count: int, show: bool) -> None:
    """Measure, print a Markdown table, and write benchmarks/results/requantize.json."""
    if not show:
        root = Path(os.environ["DNNJPEG_DATA"])
        network = load_network(f"{root / 'models' / 'zoo.py'}:mobilenet_v2")
        paths = sorted((root / "data" / "full" / "learn").iterdir())[:count]
        view = network.preprocess.view
        images = [view.show(Image.open(path).convert("RGB")) for path in paths]
        pairs = {f"{quality} to {asked}": trial(images, network, quality, asked) for quality, asked in PAIRS}
        write("requantize", {"pictures": len(images), "network": network.name, "pairs": pairs})
    click.echo(as_markdown(json.loads((RESULTS / "requantize.json").read_text())))


if __name__ == "__main__":
    main()
