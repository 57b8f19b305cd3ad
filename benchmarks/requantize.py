"""A second quantization done right: which way of going from a source's steps to coarser ones loses least.

    python benchmarks/requantize.py               120 pictures of $DNNJPEG_DATA/data/full/learn
    python benchmarks/requantize.py --show        the table of the last run

Sources are the pictures as mobilenet_v2 is shown them, 224 x 224, saved by Pillow with 4:2:0 at a quality.
Each way makes files of standard tables out of a source, and the network reads them. A cell is the change of
bytes against Pillow, which decodes the source and saves it with `optimize=True`, at the same mean divergence
from what the network reads in the source: Pillow's files are measured at many qualities, and its curve is
straight between two of them in the logarithms. Behind it, the divergence itself.
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
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_scale
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.readings import compare, decode

# by quality of the source: qualities of Pillow's that make the curve, and those that are tried
SOURCES = {
    85: ((50, 62, 70, 76, 81), (70, 75)),
    90: ((62, 72, 79, 84, 87), (75, 82)),
    75: ((30, 42, 53, 62, 69), (50, 60)),
}

Arrays = tuple[np.ndarray, np.ndarray]  # indices, blocks x 64, and the steps they stand for


def _nearest(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.rint(values / steps).astype(np.int64)


def kept(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> Arrays:
    """The source's index and step where the wanted step is not larger; the nearest elsewhere."""
    steps = np.maximum(source, wanted)
    return _nearest(indices * source, steps), steps


def times(most: int) -> Callable[..., Arrays]:
    """Where the wanted step is larger, so many of the source's."""

    def way(indices: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> Arrays:
        steps = np.where(wanted > source, np.minimum(most * source, 255), source)
        return _nearest(indices * source, steps), steps

    return way


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


WAYS: dict[str, Callable[..., Arrays]] = {"as wanted": kept, "centroid": centroid}
MULTIPLES: dict[str, Callable[..., Arrays]] = {"two steps": times(2), "three steps": times(3)}


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


def trial(images: list[Image.Image], network: Network, quality: int) -> dict[str, list[float]]:
    """By way and quality, the change of bytes in per cent, and the divergence."""
    curve, tried = SOURCES[quality]
    data = [_pillow(image, quality) for image in images]
    pixels = [decode(one) for one in data]
    decoded = [Image.fromarray(one) for one in pixels]
    clean = network.read(pixels)
    coefficients = [read_coefficients(one) for one in data]

    def point(files: list[bytes]) -> tuple[float, float]:
        divergence = compare(network.read([decode(one) for one in files]), clean).divergence.mean()
        return float(np.log(np.mean([len(one) for one in files]))), float(np.log(divergence))

    pillow = [point([_pillow(one, q, optimize=True) for one in decoded]) for q in curve]
    sizes, divergences = np.array(pillow).T
    found = {}

    def note(name: str, files: list[bytes]) -> None:
        size, divergence = point(files)
        at_equal = np.interp(divergence, divergences[::-1], sizes[::-1])
        found[name] = [round(100 * float(np.expm1(size - at_equal)), 2), round(float(np.exp(divergence)), 4)]
        inside = divergences.min() <= divergence <= divergences.max()
        click.echo(f"{quality}, {name}: {found[name]}{'' if inside else ' beyond the curve'}", err=True)

    for q in tried:
        for name, way in WAYS.items():
            note(f"{q}, {name}", [requantized(one, way, q) for one in coefficients])
        note(
            f"{q}, by pixels",
            [encode(one, "standard", q, progressive="auto", signature=False) for one in pixels],
        )
    for name, way in MULTIPLES.items():
        note(name, [requantized(one, way, tried[0]) for one in coefficients])
    return found


def as_markdown(results: dict[str, Any]) -> str:
    lines = ["| source, way | bytes | divergence |", "|---|---:|---:|"]
    for quality, ways in results["sources"].items():
        lines += [
            f"| {quality}, {name} | {change:+.1f} % | {nat:.4f} |" for name, (change, nat) in ways.items()
        ]
    return "\n".join(lines)


@click.command()
@click.option("--count", default=120, show_default=True, help="Pictures.")
@click.option("--show", is_flag=True, help="Print the table of the last run, and measure nothing.")
def main(count: int, show: bool) -> None:
    """Measure, print a Markdown table, and write benchmarks/results/requantize.json."""
    if not show:
        root = Path(os.environ["DNNJPEG_DATA"])
        network = load_network(f"{root / 'models' / 'zoo.py'}:mobilenet_v2")
        paths = sorted((root / "data" / "full" / "learn").iterdir())[:count]
        view = network.preprocess.view
        images = [view.show(Image.open(path).convert("RGB")) for path in paths]
        sources = {str(quality): trial(images, network, quality) for quality in SOURCES}
        write("requantize", {"pictures": len(images), "network": network.name, "sources": sources})
    click.echo(as_markdown(json.loads((RESULTS / "requantize.json").read_text())))


if __name__ == "__main__":
    main()
