"""Show pictures as Pillow and as dnnjpeg write them: at equal bytes, and where a network reads as well.

    python benchmarks/gallery.py PICTURE ... --network SPEC -o DIR
    python benchmarks/gallery.py --network $DNNJPEG_DATA/models/zoo.py:resnet18 \
        --classes $DNNJPEG_DATA/data/imagenet/classes.txt -o docs

The second, without a PICTURE, draws some: it makes the gallery of the site. DIR gets gallery.md, and the
pictures in assets/gallery.
"""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import click
import numpy as np
from common import short
from PIL import Image

from dnnjpeg import encode, load_network
from dnnjpeg.networks.load import Network
from dnnjpeg.networks.readings import compare, decode
from dnnjpeg.tools.demo import draw

DRAWN = 0, 1, 2  # seeds
CROP, ZOOM = 48, 3
QUALITIES = range(1, 101)


@dataclass(frozen=True)
class Shown:
    title: str
    size: int | None  # bytes of the file; None: the original
    pixels: np.ndarray
    logits: np.ndarray


def pillow(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def shown(image: Image.Image, network: Network, table: str, quality: float) -> list[Shown]:
    """The original, ours, Pillow's file of as many bytes, and Pillow's smallest that is read as well."""

    def read(title: str, data: bytes) -> Shown:
        pixels = decode(data)
        return Shown(title, len(data), pixels, network.read([pixels])[0])

    @cache
    def pillows(quality: int) -> Shown:
        return read(f"Pillow, quality {quality}", pillow(image, quality))

    pixels = np.asarray(image)
    original = Shown("original", None, pixels, network.read([pixels])[0])
    ours = read(f"dnnjpeg, {table}, quality {quality:g}", encode(image, table, quality))
    lost = partial(divergence, clean=original)
    fits = [q for q in QUALITIES if len(pillow(image, q)) <= len(encode(image, table, quality))]
    reads = (pillows(q) for q in QUALITIES if lost(pillows(q)) <= lost(ours))
    return [original, ours, pillows(max(fits, default=1)), next(reads, pillows(100))]


def divergence(one: Shown, clean: Shown) -> float:
    return float(compare(one.logits[None], clean.logits[None]).divergence[0])


def top5(one: Shown, name_of: Callable[[int], str]) -> str:
    weights = np.exp(one.logits - one.logits.max())
    best = np.argsort(-weights, kind="stable")[:5]
    return "<br>".join(f"{name_of(int(i))} {weights[i] / weights.sum():.0%}" for i in best)


def liveliest(pixels: np.ndarray) -> tuple[slice, slice]:
    """The square in which the pixels of the original differ most."""
    height, width = pixels.shape[:2]
    places = product(range(0, max(height - CROP, 0) + 1, 16), range(0, max(width - CROP, 0) + 1, 16))
    squares = [(slice(top, top + CROP), slice(left, left + CROP)) for top, left in places]
    return max(squares, key=lambda square: pixels[square].std())


def zoomed(pixels: np.ndarray) -> Image.Image:
    """Each pixel becomes a square."""
    crop = Image.fromarray(pixels)
    return crop.resize((crop.width * ZOOM, crop.height * ZOOM), Image.Resampling.NEAREST)


def section(
    name: str, entries: Sequence[Shown], folder: Path, name_of: Callable[[int], str]
) -> Iterator[str]:
    """A table with a column an entry."""
    original = entries[0]
    square = liveliest(original.pixels)
    kinds = "original", "dnnjpeg", "bytes", "reading"
    for kind, entry in zip(kinds, entries, strict=True):
        zoomed(entry.pixels[square]).save(folder / f"{name}-{kind}.png", optimize=True)
    titles = [
        "original",
        entries[1].title,
        f"{entries[2].title}: as many bytes",
        f"{entries[3].title}: read as well",
    ]
    cells = {
        "": [
            f"![{title}](assets/gallery/{name}-{kind}.png){{ width={CROP * ZOOM} }}"
            for title, kind in zip(titles, kinds, strict=True)
        ],
        "bytes": ["" if entry.size is None else f"{entry.size:,}" for entry in entries],
        "divergence, nat": [f"{divergence(entry, original):.3f}" for entry in entries],
        "top-5": [top5(entry, name_of) for entry in entries],
    }
    yield f"## {name}\n"
    yield _row(["", *titles])
    yield _row(["---"] * (len(titles) + 1))
    for label, row in cells.items():
        yield _row([label, *row])
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


INTRODUCTION = """---
hide: [toc]
---
# Gallery

The same picture as Pillow and as dnnjpeg write it: once with as many bytes, once where the network reads as
well. The square with the strongest contrast is shown, {zoom} times enlarged. Below it are the five classes
that the network {network} finds most likely. The divergence says how far its prediction is from that on the
original.

Pillow writes 4:2:0 with `optimize=True`. "As many bytes" is the largest quality of no more bytes. "Read as
well" is the smallest quality of no more divergence, or quality 100.

**A few pictures prove nothing.** [Tables](results/tables.md) has the measurements. {drawn}

    python benchmarks/gallery.py PICTURE ... --network SPEC -o DIR
"""
DRAWN_NOTE = """These pictures are drawn, the
first three of `dnnjpeg demo`, so that nothing is chosen. They are no photographs: the classes mean little,
and the table was not learned for such pictures. Make a page of your own pictures and your own network:"""


@click.command()
@click.argument("pictures", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--network", "spec", metavar="SPEC", required=True)
@click.option("--table", metavar="NAME|FILE", default="universal", show_default=True)
@click.option("--quality", type=click.FloatRange(1, 100), default=30, show_default=True)
@click.option(
    "--classes", type=click.Path(exists=True, path_type=Path), help="A line a class, in their order."
)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(
    pictures: tuple[Path, ...], spec: str, table: str, quality: float, classes: Path | None, output: Path
) -> None:
    """Write a page that shows PICTUREs, or drawn ones, as Pillow and as dnnjpeg write them."""
    network = load_network(spec)
    names = classes.read_text().splitlines() if classes else []

    def name_of(index: int) -> str:
        return (
            names[index].partition(" ")[2].partition(",")[0].replace("_", " ") if names else f"class {index}"
        )

    images = {path.stem: Image.open(path).convert("RGB") for path in pictures}
    images = images or {f"drawn-{seed}": draw(500, 375, seed) for seed in DRAWN}
    folder = output / "assets" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        INTRODUCTION.format(
            zoom=ZOOM,
            network=network.name,
            drawn="Command:" if pictures else DRAWN_NOTE,
        )
    ]
    for name, image in images.items():
        lines += section(name, shown(image, network, table, quality), folder, name_of)
    lines.append(f"Command: `python benchmarks/gallery.py {' '.join(map(short, sys.argv[1:]))}`.")
    (output / "gallery.md").write_text("\n".join(lines) + "\n")
    click.echo(output / "gallery.md")


if __name__ == "__main__":
    main()
