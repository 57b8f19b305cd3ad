"""How far the estimated rates are from real files: over tables, qualities, subsamplings and pictures.

DNNJPEG_DATA=DIR python benchmarks/rate.py
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from common import RESULTS, write
from tqdm import tqdm

from dnnjpeg import encode
from dnnjpeg.files.dataset import load_dataset
from dnnjpeg.soft.jpeg import to_coefficients
from dnnjpeg.soft.rate import entropy_rate, scan_rate
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint

SIZE, BATCH = 224, 25
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
QUALITIES = (10, 20, 35, 50, 75, 90, 95)
SHAPES = 3  # random tables by quality
HARDNESS = 12.0  # of the laws whose entropy is taken
SAMPLED = (4.0, 12.0, 30.0)
ORDER = np.add.outer(np.arange(8), np.arange(8)).ravel()  # of a frequency: horizontal + vertical
BANDS = {
    "DC": ORDER == 0,
    "1-2": (ORDER > 0) & (ORDER < 3),
    "3-5": (ORDER > 2) & (ORDER < 6),
    "6+": ORDER > 5,
}


def points() -> Iterator[OperatingPoint]:
    """Standard tables; and others of a random slope over the frequencies, random steps around it, of three
    components each.
    """
    rng = np.random.default_rng(0)
    for quality in QUALITIES:
        point = standard_table().at(quality)
        yield point
        for _ in range(SHAPES):
            steps = np.log([point.luma, point.chroma[0], point.chroma[0]])
            steps += rng.normal(0, 0.4, (3, 1)) + rng.uniform(-0.2, 0.2, (3, 1)) * (ORDER - 5)
            steps += rng.normal(0, 0.4, (3, 64))
            rows = np.exp(steps).round().clip(1, 255).astype(int).tolist()
            yield OperatingPoint.from_tables(rows, quality=quality)


def sizes(pictures: np.ndarray, point: OperatingPoint, subsampling: str, **options: Any) -> np.ndarray:
    return np.array(
        [len(encode(one, point, subsampling=subsampling, signature=False, **options)) for one in pictures]
    )


def bytes_of(rate: torch.Tensor) -> np.ndarray:
    return rate.detach().numpy() / 8


class Comparison:
    """Estimates beside real sizes: kind of estimate -> subsampling -> [(quality, real, estimated)]."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures
        self.pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        self.rows: dict[str, dict[str, list[tuple[float, np.ndarray, np.ndarray]]]] = {
            kind: defaultdict(list) for kind in ("scan", "sampled", "entropy")
        }

    def add(self, point: OperatingPoint, subsampling: str) -> None:
        """Nearest indices by `scan_rate`, and the mean of all pictures by `entropy_rate`."""
        real = sizes(self.pictures, point, subsampling)
        log_q, log_kappa = torch.tensor(point.tables).float().log(), torch.tensor(HARDNESS).log()
        scan, entropy = [], 0.0
        for planes in self.batches(subsampling):
            scan.append(bytes_of(scan_rate(planes, log_q, log_kappa, SIZE, SIZE, subsampling)))
            entropy += bytes_of(entropy_rate(planes, log_q, log_kappa)) * len(planes[0]) / len(real)
        means = real.mean(keepdims=True), np.array([entropy])
        self.rows["scan"][subsampling].append((point.quality, real, np.concatenate(scan)))
        self.rows["entropy"][subsampling].append((point.quality, *means))

    def add_sampled(self, point: OperatingPoint, kappa: float, subsampling: str) -> None:
        real = sizes(self.pictures, point, subsampling, hardness=kappa)
        log_q, log_kappa = torch.tensor(point.tables).float().log(), torch.tensor(kappa).log()
        scan = [
            bytes_of(scan_rate(planes, log_q, log_kappa, SIZE, SIZE, subsampling, "sampled"))
            for planes in self.batches(subsampling)
        ]
        self.rows["sampled"][subsampling].append((point.quality, real, np.concatenate(scan)))

    def batches(self, subsampling: str) -> Iterator[list[torch.Tensor]]:
        for pixels in self.pixels.split(BATCH):
            yield to_coefficients(pixels, subsampling, integers=True)

    def errors(self) -> dict[str, Any]:
        """Relative errors in percent. mean: of estimate - real, over pictures and tables; absolute: of its
        magnitude; worst: of one picture; by quality: mean.
        """
        out: dict[str, Any] = {}
        for kind, by_subsampling in self.rows.items():
            for subsampling, rows in by_subsampling.items():
                off = [100 * (estimated / real - 1) for _, real, estimated in rows]
                by_quality = defaultdict(list)
                for (quality, _, _), error in zip(rows, off, strict=True):
                    by_quality[f"{quality:g}"].append(error)
                every = np.concatenate(off)
                out.setdefault(kind, {})[subsampling] = {
                    "mean": round(float(every.mean()), 2),
                    "absolute": round(float(np.abs(every).mean()), 2),
                    "worst": round(float(np.abs(every).max()), 2),
                    "by quality": {q: round(float(np.mean(e)), 2) for q, e in by_quality.items()},
                }
        return out


def derivatives(comparison: Comparison, point: OperatingPoint, subsampling: str) -> dict[str, Any]:
    """Change of mean bytes when a band's steps grow from 1/1.2 to 1.2 times their size: real, predicted."""
    log_q = torch.tensor(point.tables).float().log().requires_grad_()
    log_kappa = torch.tensor(HARDNESS).log()
    bits = {"scan": torch.zeros(()), "entropy": torch.zeros(())}
    for planes in comparison.batches(subsampling):
        bits["scan"] = bits["scan"] + scan_rate(planes, log_q, log_kappa, SIZE, SIZE, subsampling).sum()
        bits["entropy"] = bits["entropy"] + entropy_rate(planes, log_q, log_kappa) * len(planes[0])
    slopes = {
        name: torch.autograd.grad(rate / 8 / len(comparison.pictures), log_q)[0].numpy()
        for name, rate in bits.items()
    }
    out = {}
    for table, component in enumerate(("luma", "chroma")):
        for band, where in BANDS.items():
            ends = []
            for factor in (1.2, 1 / 1.2):
                steps = np.array(point.tables)
                steps[table, where] = (steps[table, where] * factor).round().clip(1, 255)
                ends.append(steps)
            points = [OperatingPoint.from_tables(steps.tolist()) for steps in ends]
            real = [sizes(comparison.pictures, end, subsampling).mean() for end in points]
            moved = np.log(ends[0] / ends[1])
            out[f"{component} {band}"] = {"real": round(float(real[0] - real[1]), 1)} | {
                name: round(float((slope * moved).sum()), 1) for name, slope in slopes.items()
            }
    return out


def scatter(comparison: Comparison, path: Path) -> None:
    """Estimate over real bytes, a dot a picture and table (entropy: a dot a table)."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True)
    titles = {"scan": "scan_rate, by picture", "entropy": "entropy_rate, means of all pictures"}
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for subsampling, rows in comparison.rows[kind].items():
            real = np.concatenate([row[1] for row in rows])
            estimated = np.concatenate([row[2] for row in rows])
            axis.plot(
                real, 100 * (estimated / real - 1), ".", ms=1.5 if kind == "scan" else 5, label=subsampling
            )
        axis.set(xscale="log", xlabel="bytes of the file", title=title)
        axis.axhline(0, color="black", lw=0.8)
        axis.grid(alpha=0.3)
        axis.legend(markerscale=4 if kind == "scan" else 1)
    axes[0].set_ylabel("estimate - file, %")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--pictures", "count", type=click.IntRange(1), default=100, show_default=True)
def main(count: int) -> None:
    """Compare, print, and write benchmarks/results/rate.json and rate.png."""
    root = os.environ.get("DNNJPEG_DATA")
    if not root:
        raise click.ClickException("set DNNJPEG_DATA to the folder that holds data/imagenet/learn")
    torch.manual_seed(0)
    dataset = load_dataset(Path(root) / "data/imagenet/learn", size=SIZE, limit=count)
    comparison = Comparison(dataset.squares)
    jobs = [(point, subsampling) for point in points() for subsampling in SUBSAMPLINGS]
    for job in tqdm(jobs, desc="tables"):
        comparison.add(*job)
    for kappa in SAMPLED:
        for quality in (20, 75):
            comparison.add_sampled(standard_table().at(quality), kappa, "4:2:0")
    slopes = {
        f"quality {quality}, {subsampling}": derivatives(
            comparison, standard_table().at(quality), subsampling
        )
        for quality, subsampling in ((20, "4:4:4"), (50, "4:2:0"), (75, "4:4:4"))
    }
    errors = comparison.errors()
    write(
        "rate",
        {"pictures": len(dataset), "error, %": errors, "change of bytes, steps x1.2 against /1.2": slopes},
    )
    scatter(comparison, RESULTS / "rate.png")
    for kind, by_subsampling in errors.items():
        for subsampling, numbers in by_subsampling.items():
            parts = [f"{name} {numbers[name]:.2f} %" for name in ("mean", "absolute", "worst")]
            click.echo(f"{kind} {subsampling}: error {', '.join(parts)}")
    for name, bands in slopes.items():
        for band, numbers in bands.items():
            click.echo(f"{name}, {band}: {numbers}")


if __name__ == "__main__":
    main()
