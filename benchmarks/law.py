"""How hard pictures are to read, told by one coarse file: what the exponent of `adapted_quality` is worth.

    python benchmarks/law.py --model zoo.py:mobilenet_v1_075 --model zoo.py:mobilenet_v2 \
        --model zoo.py:resnet18 --model zoo.py:resnet50 --data learn

Every network reads standard files, 4:4:4, of eight qualities. For any group that is asked, each picture then
gets the quality that the law gives it, and bytes are compared with those of one quality for all at equal mean
divergence: of the networks that were asked, and of the others; means over groups and usual qualities 20 to
80. Writes results/law.json.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import click
import numpy as np
import platformdirs
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg.cache import Cache
from dnnjpeg.codec import adaptive
from dnnjpeg.codec.encoder import bits_at_yardstick
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.dataset import load_dataset
from dnnjpeg.learn.objective import Objective
from dnnjpeg.models import load_network
from dnnjpeg.standard import ijg_factor
from dnnjpeg.table import standard_table

QUALITIES = 10, 20, 30, 40, 50, 65, 80, 90  # of the files, in ascending order
USUAL = 20, 30, 40, 50, 65, 80
EXPONENTS = 0.0, 0.2, 0.3, 0.4, 0.5, 0.6
HELD_OUT = 0.3  # of the pictures: learn-table learns from the others as well, and keeps what was read in them
LEAST = 1e-4  # nat, so that divergences have logarithms


class Reader:
    """One network's divergences, and the bytes: by quality and picture, and at the yardstick."""

    def __init__(self, objective: Objective) -> None:
        points = [replace(standard_table().at(q), subsampling="4:4:4") for q in QUALITIES]
        name = objective.networks[0].name
        files = [objective.measure(point) for point in tqdm(points, name)]
        self.bytes = np.log([file.bytes for file in files])
        self.lost = np.log(np.array([file.loss for file in files]).clip(LEAST))
        self.yardstick = objective.measure(standard_table().at(adaptive.YARDSTICK)).loss

    def at(self, curves: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Values of all pictures' curves, each at a scale of its own of the standard table."""
        scales = np.log([ijg_factor(quality) for quality in QUALITIES])
        place = np.interp(-np.log(factors), -scales, np.arange(len(scales)))
        below = np.minimum(place.astype(int), len(scales) - 2)
        share, picture = place - below, np.arange(len(place))
        return np.exp(curves[below, picture] * (1 - share) + curves[below + 1, picture] * share)

    def saving(self, factors: np.ndarray) -> float:
        """Per cent of bytes against one quality for all, of as large a mean divergence."""
        size, lost = (self.at(curves, factors).mean() for curves in (self.bytes, self.lost))
        sizes, losses = (np.log(np.exp(curves).mean(1)) for curves in (self.bytes, self.lost))
        return float(100 * (size / np.exp(np.interp(-np.log(lost), -losses, sizes)) - 1))


def gains(readers: Sequence[Reader], bits: np.ndarray, count: int) -> list[float]:
    """Of networks that are asked, `count` at a time, and of the others."""
    found: list[list[float]] = [[], []]
    for asked in combinations(readers, count):
        lost = np.mean([reader.yardstick for reader in asked], axis=0)
        for usual in USUAL:
            qualities = [adaptive.adapted_quality(usual, *one) for one in zip(bits, lost, strict=True)]
            factors = np.array([ijg_factor(min(quality, 99)) for quality in qualities], float)
            for reader in readers:
                found[reader not in asked].append(reader.saving(factors))
    return [round(float(np.mean(part)), 1) for part in found if part]


@click.command()
@click.option("--model", "models", metavar="SPEC", multiple=True, required=True, help="Network.")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Pictures.")
@click.option("--size", default=224, show_default=True, help="To which pictures are cut.")
def main(models: tuple[str, ...], data: Path, size: int) -> None:
    """Measure, and write results/law.json."""
    _, dataset = load_dataset(data, None, size=size).split(HELD_OUT, seed=0)
    cache = Cache(platformdirs.user_cache_path("dnnjpeg") / "learn")
    readers = [
        Reader(Objective([load_network(spec)], dataset, autocast=True, cache=cache)) for spec in models
    ]
    bits = np.array([bits_at_yardstick(as_pixels(picture, None)) for picture in dataset.pictures])
    lost = np.array([reader.yardstick for reader in readers])
    results: dict[str, object] = {
        "pictures": len(dataset),
        "usual bits a pixel": round(float(np.exp(np.log(bits).mean())), 3),
        "usual divergence with the doubt": round(float(np.exp(np.log(lost + adaptive.DOUBT).mean())), 3),
    }
    for count in range(1, len(models) + 1):
        by_exponent = {}
        for exponent in EXPONENTS:
            adaptive.DIVERGENCE_EXPONENT = exponent
            by_exponent[f"{exponent:g}"] = gains(readers, bits, count)
        results[f"bytes, %, of {count} asked, and of the others, by exponent"] = by_exponent
    write("law", results)
    click.echo(json.dumps(json.loads((RESULTS / "law.json").read_text()), indent=1))


if __name__ == "__main__":
    main()
