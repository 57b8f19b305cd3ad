"""Does a quantizer that knows what an index costs in bits serve a network better than rounding, or sampling?

    python benchmarks/rate_aware.py --network models/zoo.py:mobilenet_v1_075

An index i of the AC coefficient c with the step q is drawn from
P(i|c) ~ exp(-kappa (w (c/q - i)^2 + mu bits(i))), bits(i) being what it adds to the scan after the run of
zeros coded so far, i one of the two integers around c/q, the next one nearer to zero, or 0; for kappa =
infinity the most probable one is taken (a threshold, as of a trellis of one path). mu = 0 is the sampler of
`encode(hardness=kappa)`, or rounding. w is 1, or how sensitive the network is to an error of the size of that
step, its mean over the AC coefficients of luma being 1.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from common import write
from torch import Tensor
from tqdm import tqdm

from dnnjpeg import encode, write_coefficients
from dnnjpeg.evaluate.curves import Curve, mean_log_ratio, per_cent
from dnnjpeg.evaluate.ladder import shaped
from dnnjpeg.evaluate.statistics import Estimate, means
from dnnjpeg.files.dataset import load_dataset
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.sensitivity import fisher
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.readings import compare, decode
from dnnjpeg.soft.jpeg import block_grids, to_coefficients
from dnnjpeg.soft.symbols import RUNS, SIZES, count, runs, size_of, symbol_bits
from dnnjpeg.table.library import load_table

QUALITIES = (10, 20, 35, 55, 80)
BATCH = 25
SUBSAMPLING = "4:2:0"


@dataclass(frozen=True)
class Rule:
    """How an index is chosen; see the head of the file. kappa None is infinity."""

    kappa: float | None
    mu: float = 0.0
    weighted: bool = False

    @property
    def name(self) -> str:
        kappa = "infinity" if self.kappa is None else f"{self.kappa:g}"
        return f"kappa {kappa}, mu {self.mu:g}" + (", w by sensitivity" if self.weighted else "")


ROUNDING = Rule(None)
RULES = (
    ROUNDING,
    Rule(30),
    *(Rule(None, mu, weighted) for weighted in (False, True) for mu in (0.03, 0.06, 0.12)),
    Rule(30, 0.06),
)


def choose(z: Tensor, bits: Tensor, weight: Tensor, rule: Rule, generator: torch.Generator) -> Tensor:
    """Indices of AC coefficients z = c/q, [63, N, blocks] by zigzag, in the order of the scan.

    bits: [N, 64, 16] by run and size, of each picture. weight: [63].
    """
    nearest = z.round()
    size = size_of(nearest)
    _, after, following, _ = runs(size)  # what follows, as rounding leaves it
    flat = bits.flatten()
    base = torch.arange(z.shape[1])[:, None] * (RUNS * SIZES)

    def cost(run: Tensor, width: Tensor) -> Tensor:
        return flat[base + run.clamp(max=RUNS - 1) * SIZES + width]

    chosen = torch.empty_like(nearest)
    run = torch.zeros_like(size[0])
    for k in range(63):
        near, nil = nearest[k], torch.zeros_like(nearest[k])
        candidates = [near, near + (z[k] - near).sign(), near - near.sign(), nil]
        # a zero makes one run of the two around it
        longer = cost(run + after[k] + 1, following[k]) - cost(after[k], following[k])
        energy = torch.stack(
            [
                weight[k] * (z[k] - i).square() + rule.mu * torch.where(i == 0, longer, cost(run, size_of(i)))
                for i in candidates
            ]
        )
        for one, candidate in enumerate(candidates):  # each counts once
            for other in candidates[:one]:
                energy[one].masked_fill_(candidate == other, math.inf)
        if rule.kappa is not None:  # the largest of logit + Gumbel noise is a draw
            noise = -torch.empty_like(energy).exponential_(generator=generator).log_()
            energy = energy - noise / rule.kappa
        chosen[k] = torch.stack(candidates).gather(0, energy.argmin(0, keepdim=True))[0]
        run = torch.where(chosen[k] != 0, 0, run + 1)
    return chosen


def files(pictures: np.ndarray, quality: int, table: str, rule: Rule, weight: np.ndarray) -> list[bytes]:
    """The files of N pictures of one size."""
    point = load_table(table).at(quality)
    if rule.mu == 0:
        options = {"signature": False, "subsampling": SUBSAMPLING, "hardness": rule.kappa}
        return [encode(picture, point, **options) for picture in pictures]
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([point.tables[min(c, len(point.tables) - 1)] for c in range(3)]).float()
    zigzag = torch.tensor(NATURAL)
    scaled = [
        (plane / step)[..., zigzag].permute(2, 0, 1)
        for plane, step in zip(to_coefficients(pixels, SUBSAMPLING, integers=True), steps, strict=True)
    ]
    counts = [_counted(z[1:].round()) for z in scaled]
    (luma, chroma), _ = symbol_bits(counts[0], counts[1] + counts[2])
    weights = np.ones((3, 63))
    if rule.weighted:
        weights = (weight * steps.numpy() ** 2)[:, np.array(NATURAL)[1:]]
        weights /= weights[0].mean()
    planes = []
    for z, bits, w in zip(scaled, (luma, chroma, chroma), weights, strict=True):
        indices = torch.empty_like(z)
        indices[0] = z[0].round()
        indices[1:] = choose(z[1:], bits, torch.from_numpy(w).float(), rule, generator)
        natural = torch.empty_like(indices)
        natural[zigzag] = indices
        planes.append(natural.permute(1, 2, 0).to(torch.int16).numpy())
    height, width = pictures.shape[1:3]
    grids = block_grids(height, width, SUBSAMPLING)
    return [
        write_coefficients(
            [plane[i].reshape(*grid, 64) for plane, grid in zip(planes, grids, strict=True)],
            point.tables, width, height, subsampling=SUBSAMPLING,
        )
        for i in range(len(pictures))
    ]  # fmt: skip


def _counted(indices: Tensor) -> Tensor:
    """AC symbols of [63, N, blocks], as `symbol_bits` takes them."""
    size = size_of(indices)
    before, _, _, tail = runs(size)
    symbols = count(before * SIZES + size, RUNS * SIZES).view(-1, RUNS, SIZES)
    symbols[:, :, 0] = 0
    symbols[:, 1, 0] = (tail > 0).sum(1)
    return symbols


def measure(network: Network, pictures: np.ndarray, table: str, weight: np.ndarray) -> dict[Rule, Curve]:
    """Bytes and divergence from the clean prediction, by rule."""
    clean = network.read(pictures)
    curves = {}
    with tqdm(total=len(RULES) * len(QUALITIES), unit="setting") as bar:
        for rule in RULES:
            sizes, losses = [], []
            for quality in QUALITIES:
                coded = [
                    data
                    for start in range(0, len(pictures), BATCH)
                    for data in files(pictures[start : start + BATCH], quality, table, rule, weight)
                ]
                read = network.read([decode(data) for data in coded])
                sizes.append([len(data) for data in coded])
                losses.append(compare(read, clean).divergence)
                bar.update()
            curves[rule] = Curve(means(sizes), shaped(means(losses), "divergence"))
    return curves


@click.command()
@click.option("--network", "spec", required=True, help="As `dnnjpeg evaluate --network` takes it.")
@click.option("--table", default="standard", show_default=True)
@click.option("--pictures", default=300, show_default=True)
def main(spec: str, table: str, pictures: int) -> None:
    """Measure on pictures to learn from, print, and write benchmarks/results/rate_aware_NETWORK.json."""
    torch.manual_seed(0)
    network = load_network(spec)
    folder = Path(os.environ["DNNJPEG_DATA"]) / "data" / "imagenet" / "learn"
    data = load_dataset(folder, size=224, limit=pictures)
    weight = fisher(Objective([network], data), SUBSAMPLING)
    curves = measure(network, data.squares, table, weight)
    reference = curves[ROUNDING]
    rows = {}
    for rule, curve in curves.items():
        if rule is not ROUNDING:
            change = Estimate.of(per_cent(mean_log_ratio(curve, reference)))
            rows[rule.name] = {key: round(getattr(change, key), 2) for key in ("value", "low", "high")}
            click.echo(f"{rule.name}: {change.value:+.1f} % ({change.low:+.1f}..{change.high:+.1f})")
    results = {
        "network": network.name, "digest": network.digest, "table": table, "subsampling": SUBSAMPLING,
        "pictures": len(data), "qualities": QUALITIES,
        "mean change of bytes at equal divergence, against rounding, per cent": rows,
    }  # fmt: skip
    write(f"rate_aware_{network.name}", results)


if __name__ == "__main__":
    main()
