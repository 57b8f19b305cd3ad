"""Measure slopes: how damage and bytes change with each step. `slopes` uses them to find tables.

Damage: all steps are made finer by one factor, and coarser by the same factor. The gradient of the networks'
loss is taken midway between the two pictures. Gradient times difference, summed over a frequency, is what
this frequency adds to the loss. The sum over all frequencies is the change of the loss, to second order. A
gradient at the tables alone would not show that errors become larger. A gradient at clean pictures differs
from one at coded pictures. Networks without gradients read pictures in which a group of frequencies is finer
or coarser (`dnnjpeg.learn.differences`).

Bytes: real files are made, with one step changed at a time.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from dnnjpeg.files.cache import digest, key
from dnnjpeg.learn.differences import PICTURES, damage_by_differences
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.smooth import Field, Slope
from dnnjpeg.soft.jpeg import from_coefficients, to_coefficients
from dnnjpeg.table.point import OperatingPoint

_WIDE = 1.7  # the factor of the steps for the damage
_NARROW = 1.25  # the factor of a step for the bytes
_PIXELS = 7_000_000  # pixels of the pictures of a trial; there are at least 48 pictures
_COUNTED = 1_200_000  # pixels of the pictures whose bytes are counted, 12 to 48 of them
_WIDEST = 1.25  # the largest bin width, in steps
_DOUBT = 30  # a bin width is computed as if there were so many more indices of 1 with a bin width of 1


def as_point(log_steps: Field, subsampling: str) -> OperatingPoint:
    """The point with these steps, rounded to 1..255. log_steps: their logarithms, tables x 64."""
    rows = np.clip(np.rint(np.exp(np.minimum(log_steps, 6))), 1, 255).astype(int)
    return OperatingPoint.from_tables(rows.tolist(), subsampling=subsampling)


class Bench:
    """Measures slopes. Each trial uses other pictures, until all were used once."""

    def __init__(self, objective: Objective, tables: int, seed: int) -> None:
        self.objective, self.tables, self.seed = objective, tables, seed
        self.count = min(max(round(_PIXELS / objective.dataset.pixels), 48), len(objective))
        if not all(network.is_differentiable for network in objective.networks):
            self.count = min(self.count, PICTURES)
        self.counted = min(max(round(_COUNTED / objective.dataset.pixels), 12), 48, self.count)
        self.trials = 0
        some = np.unique(np.linspace(0, len(objective) - 1, self.counted).round().astype(np.int64))
        planes = [to_coefficients(pixels)[0].reshape(-1, 64) for _, pixels in objective.groups(some)]
        self.luma = torch.cat(planes).cpu().numpy()
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def measure(self, log_steps: Field, x: float, subsampling: str) -> tuple[Slope, float, float]:
        """Measure the slope at a point. Returns the slope, the mean loss and the mean bytes of a picture.

        log_steps: logarithms of the steps, tables x 64. x: the coordinate of the quality.
        """
        index = self._draw()
        cache, networks = self.objective.cache, self.objective.networks
        identities = [(network.identity, network.task.identity) for network in networks]
        facts = self.objective.loss, self.objective.headerless, subsampling, digest(log_steps.round(6))
        name = key("slopes", self.objective.dataset.identity, identities, facts, digest(index))
        kept = cache.load(name) if cache else {}
        if not kept:
            damage, loss = self._damage(np.exp(log_steps), subsampling, index)
            counted = index[np.linspace(0, len(index) - 1, self.counted).round().astype(int)]
            kept = {"damage": damage, "loss": loss, **self._bytes(as_point(log_steps, subsampling), counted)}
            if cache:
                cache.save(name, kept)
        share, variance = _shares(kept["damage"])
        slope = Slope(x, log_steps, share, variance, kept["saved"])
        return slope, float(kept["loss"].mean()), float(kept["size"])

    def with_bin_width(self, point: OperatingPoint) -> OperatingPoint:
        """The point with bin widths for luma, with which decoded coefficients are closest to the original
        ones.

        Small coefficients are more frequent than large ones. So most coefficients with the index 1 are
        smaller than the step to which they decode. A wider bin gives the smallest of them the index 0.
        """
        z = self.luma / np.array(point.luma)
        index = np.rint(z)
        width = (np.square(index).sum(0) + _DOUBT) / ((index * z).sum(0) + _DOUBT)
        luma = np.clip(width, 1, _WIDEST).round(2).tolist()
        return replace(point, bin_width=(tuple(luma), *(1,) * len(point.chroma)))

    def _draw(self) -> NDArray[np.int64]:
        """Numbers of the pictures of a trial: the next ones of a random order of all pictures.

        When all were used, another random order follows.
        """
        first, total = self.trials * self.count, len(self.objective)
        self.trials += 1
        rounds = range(first // total, (first + self.count - 1) // total + 1)
        orders = [np.random.default_rng([self.seed, number]).permutation(total) for number in rounds]
        return np.unique(np.concatenate(orders)[first - rounds[0] * total :][: self.count])

    def _damage(
        self, steps: Field, subsampling: str, index: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measure the damage of each frequency, and the loss midway.

        steps: tables x 64. index: numbers of the N pictures.

        Returns what each frequency adds to the loss from the finer to the coarser steps, networks x N x
        tables x 64, and the loss midway, networks x N.
        """
        networks = range(len(self.objective.networks))
        damage = np.zeros((len(networks), len(index), self.tables, 64), np.float32)
        losses = np.zeros((len(networks), len(index)), np.float32)
        by_channel = torch.tensor(_by_channel(steps), dtype=torch.float32, device=self.objective.device)
        for numbers, pixels in self.objective.groups(index):
            height, width = pixels.shape[-2:]
            planes = to_coefficients(pixels, subsampling)
            fine, coarse = (
                [q * torch.round(z / q) for z, q in zip(planes, by_channel * factor, strict=True)]
                for factor in (1 / _WIDE, _WIDE)
            )
            middle = [((a + b) / 2).requires_grad_() for a, b in zip(fine, coarse, strict=True)]
            decoded = from_coefficients(middle, height, width, subsampling)
            rows = np.searchsorted(index, numbers)
            for which in networks:
                if not self.objective.networks[which].is_differentiable:
                    loss_midway, parts_of = damage_by_differences(
                        self.objective,
                        which,
                        numbers,
                        [plane.detach() for plane in middle],
                        [b - a for a, b in zip(fine, coarse, strict=True)],
                        (height, width),
                        subsampling,
                        self.tables,
                    )
                    losses[which, rows], damage[which, rows] = loss_midway, parts_of
                    continue
                loss, gradient = self.objective.gradient(decoded.detach(), numbers, which)
                parts = torch.autograd.grad(decoded, middle, gradient, retain_graph=True)
                for c, part in enumerate(parts):
                    change = (part * (coarse[c] - fine[c])).sum(1)
                    damage[which, rows, min(c, self.tables - 1)] += change.cpu().numpy()
                losses[which, rows] = loss.cpu().numpy()
        return damage, losses

    def _bytes(self, point: OperatingPoint, index: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Measure the bytes of each step. index: numbers of the pictures.

        Returns saved, tables x 64, the share of a file's bytes that is saved when the logarithm of a step
        grows by 1; and size, the mean bytes of a picture.
        """
        pictures = self.objective.dataset.take(index).pictures
        tables = np.array(point.tables)[: self.tables]

        def sizes(steps: NDArray[np.int64]) -> NDArray[np.float64]:
            write = partial(self.objective.size, _replaced(point, steps))
            return np.array(list(self.pool.map(write, pictures)), np.float64)

        now = sizes(tables)
        saved = np.zeros(tables.shape)
        for place in np.ndindex(*tables.shape):
            step = int(tables[place])
            low = max(round(step / _NARROW), 1)
            high = min(max(round(step * _NARROW), low + 1), 255)
            if low == high:
                continue
            ends = []
            for end in (low, high):
                changed = tables.copy()
                changed[place] = end
                ends.append(sizes(changed))
            saved[place] = float(((ends[0] - ends[1]) / now).mean()) / math.log(high / low)
        return {"saved": np.maximum(saved, 0), "size": now.mean()}


def _replaced(point: OperatingPoint, steps: NDArray[np.int64]) -> OperatingPoint:
    luma, *chroma = (tuple(map(int, row)) for row in steps)
    return replace(point, luma=luma, chroma=tuple(chroma))


def _by_channel(steps: Field) -> Field:
    return steps if len(steps) == 3 else steps[[0, 1, 1]]


def _shares(damage: NDArray[np.float32]) -> tuple[Field, Field]:
    """The share of each frequency in the damage, tables x 64, as the mean of the networks; and its variance.

    A few pictures change much, by chance to the better or to the worse. So a picture has the less weight, the
    more it changes.

    damage: networks x N x tables x 64.

    Raises ValueError if coarser steps do not increase the loss of a network.
    """
    share, variance = np.zeros((2, *damage.shape[2:]))
    for one in damage.astype(np.float64):
        size = np.sqrt(np.square(one).sum((1, 2)))
        weighted = one / (size.mean() / 2 + size + 1e-12)[:, None, None]
        total = weighted.mean(0).sum()
        if not total > 0:
            raise ValueError(
                "the networks do not see the difference between fine and coarse steps: too few pictures, or "
                "networks that do not read them"
            )
        share += weighted.mean(0) / total / len(damage)
        variance += weighted.var(0) / len(one) / (total * len(damage)) ** 2
    return share, variance
