"""How hard pictures are to read, told by one coarse file: what the law of `adapted_quality` is worth.

    python benchmarks/law.py --model zoo.py:mobilenet_v1_075 --model zoo.py:mobilenet_v2 \
        --model zoo.py:resnet18 --model zoo.py:resnet50 --data learn --labels learn.csv

Every network reads standard files, 4:2:0, of nine qualities. For any group that is asked, each picture then
gets the quality that the law gives it, and bytes are compared with those of one quality for all at equal mean
divergence, or cross-entropy: of the networks that were asked, and of the others; means over groups. The
coarsest files are far below the usual ones: where small divergences make a picture too coarse, it shows.
Writes results/law.json.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path

import click
import numpy as np
import platformdirs
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg.codec import adaptive
from dnnjpeg.codec.encoder import bits_at_yardstick
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.dataset import load_dataset
from dnnjpeg.evaluate.codecs import load_codec
from dnnjpeg.evaluate.measure import Bench
from dnnjpeg.models import load_network
from dnnjpeg.standard import ijg_factor

QUALITIES = 5, 10, 15, 20, 30, 50, 65, 80, 90  # of the files, in ascending order
USUAL = 20, 30, 50, 65, 80
EXPONENTS = 0.0, 0.2, 0.4, 0.5, 0.6, 0.7
HELD_OUT = 0.3  # of the pictures: learn-table learns from the others
LOSSES = "divergence", "cross-entropy"


class Files:
    """By quality and picture: bytes, and by kind of loss and network what was lost."""

    def __init__(self, bench: Bench) -> None:
        found = [bench.measure(load_codec("dnnjpeg:standard"), quality) for quality in tqdm(QUALITIES)]
        self.bytes = np.log([one.bytes for one in found])
        self.names = list(bench.networks)
        self.lost = {
            (loss, name): np.array(
                [getattr(one.readings[name], loss.replace("cross-entropy", "loss")) for one in found]
            )
            for loss in LOSSES
            for name in self.names
        }
        self.yardstick = {
            name: self.lost["divergence", name][QUALITIES.index(adaptive.YARDSTICK)] for name in self.names
        }
        self.bits = [bits_at_yardstick(as_pixels(picture, None)) for picture in bench.dataset.pictures]

    def qualities(self, asked: Sequence[str], usual: float) -> list[int]:
        """Of all pictures, by the law."""
        lost = np.mean([self.yardstick[name] for name in asked], axis=0)
        return [adaptive.adapted_quality(usual, *one) for one in zip(self.bits, lost, strict=True)]

    def saving(self, qualities: Sequence[int], loss: str, name: str) -> float:
        """Per cent of bytes against one quality for all, of as large a mean loss."""
        lost = self.lost[loss, name]
        size, now = np.exp(_at(self.bytes, qualities)).mean(), _at(lost, qualities).mean()
        sizes = np.log(np.exp(self.bytes).mean(1))
        return float(100 * (size / np.exp(np.interp(-now, -lost.mean(1), sizes)) - 1))

    def gains(self, count: int, usual: Sequence[float]) -> dict[str, list[float]]:
        """By kind of loss: of networks that are asked, `count` at a time, and of the others; means."""
        found: dict[str, list[list[float]]] = {loss: [[], []] for loss in LOSSES}
        for asked, quality in product(combinations(self.names, count), usual):
            qualities = self.qualities(asked, quality)
            for loss, name in self.lost:
                found[loss][name not in asked].append(self.saving(qualities, loss, name))
        return {
            loss: [round(float(np.mean(part)), 1) for part in both if part] for loss, both in found.items()
        }


def _at(curves: np.ndarray, qualities: Sequence[int]) -> np.ndarray:
    """Values of all pictures' curves, each at a quality of its own, by the logarithm of the steps' scale."""
    scales = np.log([ijg_factor(quality) for quality in QUALITIES])
    own = np.log([ijg_factor(min(quality, 99)) for quality in qualities])
    place = np.interp(-own, -scales, np.arange(len(scales)))
    below = np.minimum(place.astype(int), len(scales) - 2)
    share, picture = place - below, np.arange(len(place))
    return curves[below, picture] * (1 - share) + curves[below + 1, picture] * share


def laws() -> Iterator[str]:
    """Set the law to one after the other, and back."""
    chosen = adaptive.DIVERGENCE_EXPONENT, adaptive.BRINK
    for brink in (math.inf, adaptive.BRINK):
        for exponent in EXPONENTS:
            adaptive.DIVERGENCE_EXPONENT, adaptive.BRINK = exponent, brink
            if exponent or brink < math.inf:
                yield f"exponent {exponent:g}, brink {brink:g}" if exponent else "bits alone"
    adaptive.DIVERGENCE_EXPONENT, adaptive.BRINK = chosen


@click.command()
@click.option("--model", "models", metavar="SPEC", multiple=True, required=True, help="Network.")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Pictures.")
@click.option(
    "--labels", required=True, type=click.Path(exists=True, path_type=Path), help="CSV: file, label."
)
@click.option("--size", default=224, show_default=True, help="To which pictures are cut.")
def main(models: tuple[str, ...], data: Path, labels: Path, size: int) -> None:
    """Measure, and write results/law.json."""
    _, dataset = load_dataset(data, labels, size=size).split(HELD_OUT, seed=0)
    networks = [load_network(spec) for spec in models]
    folder = platformdirs.user_cache_path("dnnjpeg") / "law"
    files = Files(Bench(dataset, {network.name: network for network in networks}, folder))
    lost = np.array(list(files.yardstick.values()))
    results = {
        "pictures": len(dataset),
        "usual bits a pixel": round(float(np.exp(np.log(files.bits).mean())), 3),
        "usual divergence with the doubt": round(float(np.exp(np.log(lost + adaptive.DOUBT).mean())), 3),
        "bytes, %, of those asked, and of the others": {
            f"{count} asked": {law: files.gains(count, USUAL) for law in laws()}
            | {f"the law, quality {usual}": files.gains(count, [usual]) for usual in USUAL}
            for count in range(1, len(models) + 1)
        },
    }
    write("law", results)
    click.echo((RESULTS / "law.json").read_text())


if __name__ == "__main__":
    main()
