"""Tables without training: from the network's sensitivity to each frequency, or from the pictures alone.

The sensitivity s of a frequency is the mean squared gradient of the task's `surprise` with respect to this
DCT coefficient: for a classifier, of the negative log-likelihood. The target is drawn from the output for the
clean picture. So s is the diagonal of the Fisher information. To second order, an error d of the coefficient
costs a distance of s d² / 2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.learn.objective import Objective
from dnnjpeg.networks.outputs import Outputs, by_shape, take
from dnnjpeg.networks.task import Task
from dnnjpeg.soft.jpeg import from_coefficients, to_coefficients
from dnnjpeg.table.point import OperatingPoint

_BINS = 4096  # of half a unit: every border between two indices, of any whole step, is a border of bins
_PICTURES = 400

# DeepN-JPEG's linear pieces from a band's standard deviation to its step: (up to sigma, offset, slope).
_DEEPN = ((20.0, 255.0, 9.75), (60.0, 80.0, 1.0), (math.inf, 240.0, 3.0))
_DEEPN_LEAST = 5.0


def fisher(
    objective: Objective,
    subsampling: str,
    point: OperatingPoint | None = None,
    *,
    pictures: int = _PICTURES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Mean sensitivity of the networks to each frequency of Y, Cb and Cr.

    subsampling: sets the resolution of the chroma coefficients.
    point: take the gradient at pictures that are quantized with this point's tables. None: at clean pictures.
    pictures: the largest number of pictures that are used.
    seed: seed of the choice of pictures and labels.

    Returns float64 3 x 64, in nat per squared unit of a coefficient.
    """
    for network in objective.networks:
        network.need_gradients("the sensitivity", "use the method slopes")
    index = _draw(objective, pictures, seed)
    generator = np.random.default_rng(seed)
    drawn = [
        _sample(network.task, clean, index, generator)
        for network, clean in zip(objective.networks, objective.clean, strict=True)
    ]
    total = np.zeros((3, 64))
    for part, clean in objective.groups(index):
        height, width = clean.shape[-2:]
        planes = to_coefficients(clean, subsampling)
        if point is not None:
            steps = (torch.tensor(table, device=objective.device) for table in _by_channel(point))
            planes = [step * torch.round(plane / step) for plane, step in zip(planes, steps, strict=True)]
        for which, targets in enumerate(drawn):
            leaves = [plane.detach().requires_grad_() for plane in planes]
            pixels = from_coefficients(leaves, height, width, subsampling, integers=True)
            target = torch.stack([targets[i] for i in part.tolist()]).to(objective.device)
            task = objective.networks[which].task
            loss = task.surprise(objective.output(which, pixels), target)
            gradients = torch.autograd.grad(loss.sum(), leaves)
            count = len(drawn) * len(index)
            total += [(g.square().mean(1).sum(0) / count).cpu().double().numpy() for g in gradients]
    return total


def _sample(
    task: Task, clean: Outputs, index: NDArray[np.int64], generator: np.random.Generator
) -> dict[int, Tensor]:
    """A target for each picture of `index`, drawn from the output for the clean picture."""
    found: dict[int, Tensor] = {}
    for places in by_shape(clean, index):
        numbers = index[places]
        targets = task.sample_target(take(clean, numbers), generator)
        found |= dict(zip(numbers.tolist(), targets, strict=True))
    return found


def _draw(objective: Objective, pictures: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(len(objective))[:pictures])


def _by_channel(point: OperatingPoint) -> tuple[tuple[int, ...], ...]:
    return point.tables if len(point.tables) == 3 else (*point.tables, point.tables[-1])


@dataclass(frozen=True)
class Statistics:
    """Histograms of the DCT coefficients of clean pictures. The closed forms choose steps from them.

    magnitudes: int64 3 x 64 x bins, counts of |z| in bins of half a unit.
    coded: int64 3 x 64 x bins, counts for the coded values: for DC, the difference to the previous block.
    sigma: float64 3 x 64, standard deviations.
    blocks: number of blocks of Y, Cb and Cr in a mean picture.
    """

    subsampling: str
    magnitudes: NDArray[np.int64]
    coded: NDArray[np.int64]
    sigma: NDArray[np.float64]
    blocks: tuple[float, ...]

    @classmethod
    def of(
        cls, objective: Objective, subsampling: str, *, pictures: int = _PICTURES, seed: int = 0
    ) -> "Statistics":
        """Make the statistics of at most `pictures` pictures. `fisher` uses the same pictures for a seed."""
        index = _draw(objective, pictures, seed)
        magnitudes, coded = np.zeros((2, 3, 64, _BINS), np.int64)
        moments, blocks = np.zeros((2, 3, 64)), np.zeros(3)
        for _, pixels in objective.groups(index):
            with torch.no_grad():
                planes = [plane.cpu().numpy() for plane in to_coefficients(pixels, subsampling)]
            blocks += [plane.shape[0] * plane.shape[1] / len(index) for plane in planes]
            for c, plane in enumerate(planes):
                moments[0, c] += plane.sum((0, 1), np.float64)
                moments[1, c] += np.square(plane, dtype=np.float64).sum((0, 1))
                magnitudes[c] += _histograms(plane)
                coded[c, :1] += _histograms(np.diff(plane[..., :1], axis=1, prepend=0))
        coded[:, 1:] = magnitudes[:, 1:]
        mean, square = moments / (len(index) * np.reshape(blocks, (3, 1)))
        sigma = np.sqrt(np.maximum(square - mean**2, 0))
        return cls(subsampling, magnitudes, coded, sigma, tuple(blocks.tolist()))

    @cached_property
    def distortion(self) -> NDArray[np.float64]:
        """Mean squared error by step, float64 3 x 64 x 255. Step q has the index q - 1."""
        centres = (np.arange(_BINS) + 0.5) / 2
        sums = [_cumulate(self.magnitudes * power) for power in (1.0, centres, centres**2)]
        result = np.empty((3, 64, 255))
        for step in range(1, 256):
            borders = np.minimum(np.r_[0, np.arange(1, 2 * _BINS // step, 2) * step, _BINS], _BINS)
            count, first, second = (np.diff(total[..., borders]) for total in sums)
            level = np.arange(len(borders) - 1.0) * step
            result[..., step - 1] = (second - 2 * level * first + level**2 * count).sum(-1)
        return result / sums[0][..., -1:] + 1 / 48  # and the variance inside a bin

    @cached_property
    def bits(self) -> NDArray[np.float64]:
        """Bits of a coefficient by step, float64 3 x 64 x 255. Step q has the index q - 1.

        The bits are the entropy of the size category (T.81, F.1.2), plus the raw bits of sign and magnitude.
        Zero is a category, too. It stands for runs of zeros and ends of block.
        """
        total = _cumulate(self.coded)
        sizes = np.arange(12)
        result = np.empty((3, 64, 255))
        for step in range(1, 256):
            borders = np.minimum(np.r_[0, (2 * 2 ** sizes[:-1] - 1) * step, _BINS], _BINS)
            shares = np.diff(total[..., borders]) / total[..., -1:]
            entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1)
            result[..., step - 1] = entropy + shares @ sizes
        return result

    def picture_bits(self, point: OperatingPoint) -> float:
        """Estimated bits of a mean picture's scan at a point, from `bits`."""
        return sum(
            count * float(bits[np.arange(64), np.array(table) - 1].sum())
            for count, bits, table in zip(self.blocks, self.bits, _by_channel(point), strict=True)
        )


def _histograms(plane: NDArray[np.float32]) -> NDArray[np.int64]:
    """Histograms, int64 K x bins, of N x blocks x K coefficients."""
    count = plane.shape[-1]
    bins = np.minimum(np.abs(2 * plane).astype(np.int64), _BINS - 1) + _BINS * np.arange(count)
    return np.bincount(bins.ravel(), minlength=count * _BINS).reshape(count, _BINS)


def _cumulate(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.pad(values.cumsum(-1, dtype=np.float64), ((0, 0), (0, 0), (1, 0)))


def sensitivity_points(
    objective: Objective, like: Sequence[OperatingPoint], *, tables: int = 2, seed: int = 0
) -> list[OperatingPoint]:
    """For each point, the `closed_form` with as many bits.

    like: points with the same subsampling.

    Sensitivities and statistics are measured on clean pictures.
    """
    statistics = Statistics.of(objective, like[0].subsampling, seed=seed)
    sensitivity = fisher(objective, like[0].subsampling, seed=seed)
    return [
        closed_form(sensitivity, statistics, statistics.picture_bits(point), tables=tables) for point in like
    ]


def deepn_points(
    objective: Objective, like: Sequence[OperatingPoint], *, tables: int = 2, seed: int = 0
) -> list[OperatingPoint]:
    """For each point, the `deepn` table with as many bits. like: points with the same subsampling."""
    statistics = Statistics.of(objective, like[0].subsampling, seed=seed)
    return [deepn(statistics, statistics.picture_bits(point), tables=tables) for point in like]


def closed_form(
    sensitivity: NDArray[np.float64], statistics: Statistics, bits: float, *, tables: int = 2
) -> OperatingPoint:
    """The tables with about `bits` a picture that cost the networks least, to second order.

    Each step minimises s D / 2 + mu R. s is the sensitivity, D and R are distortion and bits of `statistics`,
    and mu is the same for all frequencies (like OptS, without its trellis).

    sensitivity: float64 3 x 64, from `fisher`.
    bits: bits of a mean picture.
    tables: 2 (Cb and Cr share one) or 3.
    """
    groups = _groups(tables)

    def at(log_mu: float) -> OperatingPoint:
        cost = sensitivity[..., None] * statistics.distortion / 2 + math.exp(log_mu) * statistics.bits
        steps = [cost[group].sum(0).argmin(-1) + 1 for group in groups]
        return _point(steps, statistics.subsampling)

    return _at_bits(at, statistics, bits)


def deepn(statistics: Statistics, bits: float, *, tables: int = 2) -> OperatingPoint:
    """Tables like those of DeepN-JPEG (Liu et al., DAC 2018), with about `bits` a picture.

    The step falls with the standard deviation of the band, in three linear pieces, and is at least 5. The
    constants are those of public code. Two things are ours. One factor for all steps reaches other rates.
    Chroma uses the same map with its own standard deviations (the joint ones if Cb and Cr share a table).
    """
    bases = []
    for group in _groups(tables):
        sigma = np.sqrt((statistics.sigma[group] ** 2).mean(0))
        pieces = [offset - slope * sigma for _, offset, slope in _DEEPN]
        base = np.select([sigma <= upper for upper, _, _ in _DEEPN], pieces)
        bases.append(np.maximum(base, _DEEPN_LEAST))

    def at(log_factor: float) -> OperatingPoint:
        steps = [np.clip(np.round(base * math.exp(log_factor)), 1, 255).astype(int) for base in bases]
        return _point(steps, statistics.subsampling)

    return _at_bits(at, statistics, bits)


def _groups(tables: int) -> list[slice]:
    if tables not in (2, 3):
        raise ValueError(f"tables is {tables}, expected 2 (luma, chroma) or 3 (Y, Cb, Cr)")
    return [slice(0, 1), slice(1, 3)] if tables == 2 else [slice(0, 1), slice(1, 2), slice(2, 3)]


def _point(steps: list[NDArray[np.int64]], subsampling: str) -> OperatingPoint:
    return OperatingPoint.from_tables([table.tolist() for table in steps], subsampling=subsampling)


def _at_bits(at: Callable[[float], OperatingPoint], statistics: Statistics, bits: float) -> OperatingPoint:
    """The point with at most `bits` that comes closest. The bits of `at` fall as its argument rises."""
    low, high = -40.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        if statistics.picture_bits(at(middle)) > bits:
            low = middle
        else:
            high = middle
    return at(high)
