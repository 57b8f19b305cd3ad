"""How hard pictures are to read, told by one coarse file: what the law of `adapted_quality` is worth.

    python benchmarks/law.py --network zoo.py:mobilenet_v1_075 --network zoo.py:mobilenet_v2 \
        --network zoo.py:resnet18 --network zoo.py:resnet50 --data learn --labels learn.csv

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

from dnnjpeg import adaptive
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.encoder import bits_at_yardstick
from dnnjpeg.evaluate.codecs import load_codec
from dnnjpeg.evaluate.curves import Curve, per_cent
from dnnjpeg.evaluate.ladder import shaped
from dnnjpeg.evaluate.measure import measure
from dnnjpeg.files.cache import Cache
from dnnjpeg.files.dataset import load_dataset
from dnnjpeg.jpeg.standard import ijg_factor
from dnnjpeg.networks.load import load_network
from dnnjpeg.networks.measurer import Measurer, by_name

QUALITIES = 5, 10, 15, 20, 30, 50, 65, 80, 90  # of the files, in ascending order
USUAL = 20, 30, 50, 65, 80
EXPONENTS = 0.2, 0.4, 0.5, 0.6, 0.7
HELD_OUT = 0.3  # of the pictures: learn-table learns from the others
LOSSES = {"divergence": "divergence", "cross-entropy": "loss"}  # and what they are called in readings


class Files:
    """By quality and picture: bytes, and by kind of loss and network what was lost."""

    def __init__(self, measurer: Measurer) -> None:
        codec = load_codec("dnnjpeg:standard")
        found = [measure(measurer, codec, quality) for quality in tqdm(QUALITIES)]
        self.bytes = np.array([one.bytes for one in found])
        self.lost = {
            (loss, name): np.array([getattr(one.readings[name], field) for one in found])
            for loss, field in LOSSES.items()
            for name in measurer.networks
        }
        at_yardstick = found[QUALITIES.index(adaptive.YARDSTICK)].readings
        self.yardstick = {name: read.divergence for name, read in at_yardstick.items()}
        self.bits = [bits_at_yardstick(as_pixels(picture, None)) for picture in measurer.dataset.pictures]

    def qualities(self, asked: Sequence[str], usual: float) -> list[int]:
        """Of all pictures, by the law."""
        lost = np.mean([self.yardstick[name] for name in asked], axis=0)
        return [adaptive.adapted_quality(usual, *one) for one in zip(self.bits, lost, strict=True)]

    def savings(self, qualities: Sequence[int]) -> dict[tuple[str, str], float]:
        """Per cent of bytes against one quality for all, of as large a mean loss, by its kind and network."""
        size = np.exp(_at(np.log(self.bytes), qualities)).mean()
        found = {}
        for which, lost in self.lost.items():
            metric = LOSSES[which[0]]
            alike = Curve(self.bytes.mean(1)[None], shaped(lost.mean(1)[None], metric))
            goodness = shaped(_at(lost, qualities).mean(keepdims=True), metric)
            found[which] = float(per_cent(np.log(size) - alike.log_bytes_at(goodness))[0])
        return found

    def gains(self, count: int, usual: Sequence[float]) -> dict[str, list[float | None]]:
        """By kind of loss: of networks that are asked, `count` at a time, and of the others; means. None is
        beyond all qualities.
        """
        found: dict[str, list[list[float]]] = {loss: [[], []] for loss in LOSSES}
        for asked, quality in product(combinations(self.yardstick, count), usual):
            for (loss, name), saving in self.savings(self.qualities(asked, quality)).items():
                found[loss][name not in asked].append(saving)
        return {loss: [_mean(part) for part in both if part] for loss, both in found.items()}


def _mean(savings: Sequence[float]) -> float | None:
    value = float(np.mean(savings))
    return round(value, 1) if math.isfinite(value) else None


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
    for exponent, brink in [(0.0, math.inf), *product(EXPONENTS, (math.inf, adaptive.BRINK))]:
        adaptive.DIVERGENCE_EXPONENT, adaptive.BRINK = exponent, brink
        yield f"exponent {exponent:g}, brink {brink:g}"
    adaptive.DIVERGENCE_EXPONENT, adaptive.BRINK = chosen


@click.command()
@click.option("--network", "specs", metavar="SPEC", multiple=True, required=True, help="Network.")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Pictures.")
@click.option(
    "--labels", required=True, type=click.Path(exists=True, path_type=Path), help="CSV: file, label."
)
@click.option("--crop", type=click.IntRange(1), help="Cut pictures to this side before they are encoded.")
def main(specs: tuple[str, ...], data: Path, labels: Path, crop: int | None) -> None:
    """Measure, and write results/law.json."""
    _, dataset = load_dataset(data, labels, size=crop).split(HELD_OUT, seed=0)
    networks = [load_network(spec) for spec in specs]
    cache = Cache(platformdirs.user_cache_path("dnnjpeg") / "readings")
    files = Files(Measurer(dataset, by_name(networks), cache))
    lost = np.array(list(files.yardstick.values()))
    results = {
        "pictures": len(dataset),
        "usual bits a pixel": round(float(np.exp(np.log(files.bits).mean())), 3),
        "usual divergence with the doubt": round(float(np.exp(np.log(lost + adaptive.DOUBT).mean())), 3),
        "bytes, %, of those asked, and of the others": {
            f"{count} asked": {law: files.gains(count, USUAL) for law in laws()}
            | {f"the law, quality {usual}": files.gains(count, [usual]) for usual in USUAL}
            for count in range(1, len(specs) + 1)
        },
    }
    write("law", results)
    click.echo((RESULTS / "law.json").read_text())


if __name__ == "__main__":
    main()
