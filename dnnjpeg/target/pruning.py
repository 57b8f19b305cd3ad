"""Pruning: drop the coefficients that given networks need least.

A file meets the criterion by some margin. The gradient of this margin says, to first order, what it costs to
drop a coefficient. The counts of the scan's symbols say how many bits this saves. The coefficients that cost
least for each bit are dropped, and the file is read again. This is repeated until no more coefficients can be
dropped.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dnnjpeg.files.view import View
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.networks.criterion import Judges, view
from dnnjpeg.soft.jpeg import block_grids, from_coefficients, to_coefficients
from dnnjpeg.soft.symbols import RUNS, SIZES, count, runs, size_of, symbol_bits
from dnnjpeg.table.fields import spread
from dnnjpeg.table.point import OperatingPoint

ROUNDS = 20
SHARE, LEAST, MOST = 0.25, 0.01, 0.5  # of what AC coefficients take, dropped in a round: the first, any
GROWTH = 1.3  # of that share, when a file was kept; it is halved when not
CAUTION = 2.0  # what a slope may change by while others are dropped, in mean slopes of the frequency
_AC = list(NATURAL[1:])
_FLIPS = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}  # by EXIF orientation

Write = Callable[[list[NDArray[np.int16]]], bytes]  # planes, as `write_coefficients` takes them, to a file


def prune(
    pictures: "Mapping[int, Prunable]", judges: Judges, size: int, pool: ThreadPoolExecutor
) -> dict[int, bytes]:
    """Find the smallest file of each picture that meets the criterion. Returns files by number, b"" for none.

    pictures: the pictures, by the numbers of their originals in `judges`.
    size: side of the square that networks see.
    """
    for _ in range(ROUNDS):
        which = [i for i, picture in pictures.items() if picture.share > LEAST]
        if not which:
            break
        active = [pictures[i] for i in which]
        files = pool.map(Prunable.attempt, active)
        squares = list(pool.map(lambda data: view(Image.open(io.BytesIO(data)), size), files))
        list(pool.map(Prunable.settle, active, *judges.gradients(which, squares)))
    return {i: picture.data for i, picture in pictures.items()}


class Prunable:
    """A grey or colour picture whose coefficients are dropped step by step."""

    def __init__(
        self, image: Image.Image, orientation: int, point: OperatingPoint, subsampling: str, write: Write
    ) -> None:
        """orientation: EXIF orientation, 1..8."""
        self.orientation, self.subsampling, self.write = orientation, subsampling, write
        self.width, self.height = image.size
        self.grids = block_grids(self.height, self.width, subsampling)
        self.grey = image.mode in ("1", "L")
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float()
        self.steps, divisors = (
            [torch.tensor(table, dtype=torch.float32) for table in (*tables, tables[-1])[:3]]
            for tables in (point.tables, point.divisors)
        )
        coefficients = to_coefficients(pixels, subsampling, integers=True)
        max_index = [
            torch.tensor([1023 if limit is None else limit for limit in spread(entry)])
            for entry in (*point.max_index, point.max_index[-1])[:3]
        ]
        self.planes = [
            (z[0] / divisor).round().clamp(-limit, limit)
            for z, divisor, limit in zip(coefficients, divisors, max_index, strict=True)
        ]
        self.slopes: list[Tensor] = []
        self.share, self.margin, self.data = SHARE, -math.inf, b""
        self.tried = 0  # files that were read

    def attempt(self) -> bytes:
        """Make the next file to read: first with all coefficients, then with fewer."""
        self.trial = self._drop() if self.slopes else self.planes
        arrays = [
            plane.reshape(*grid, 64).to(torch.int16).numpy()
            for plane, grid in zip(self.trial, self.grids, strict=True)
        ]
        self.file = self.write(arrays[:1] if self.grey else arrays)
        self.tried += 1
        return self.file

    def settle(self, margin: float, gradient: Tensor) -> None:
        """Take the result of the last attempt: the margin, and its gradient.

        gradient: gradient of the margin with respect to the pixels of the square.

        The attempt is accepted if it meets the criterion in fewer bytes, or if it is closer to the criterion
        than all attempts before.
        """
        first = not self.slopes
        taken = len(self.file) < len(self.data) if self.data and margin > 0 else margin > self.margin
        if taken:
            self.margin = min(margin, 0)
            self.data = self.file if margin > 0 else b""
            self.planes, self.slopes = self.trial, self._by_coefficients(gradient)
        if not first:
            self.share = min(self.share * GROWTH, MOST) if taken else self.share / 2

    def _by_coefficients(self, gradient: Tensor) -> list[Tensor]:
        """The gradient with respect to the coefficients, from that with respect to the pixels."""
        planes = [
            (plane * step).requires_grad_() for plane, step in zip(self.planes, self.steps, strict=True)
        ]
        pixels = from_coefficients([p[None] for p in planes], self.height, self.width, self.subsampling)
        shown = _shown(pixels, self.orientation, gradient.shape[-1])
        return list(torch.autograd.grad(shown, planes, gradient[None]))

    def _drop(self) -> list[Tensor]:
        """The planes without the AC coefficients that cost least a bit, up to the share of the bits."""
        present = [plane[:, _AC] != 0 for plane in self.planes]
        saved = torch.cat([bits[mask] for bits, mask in zip(_savings(self.planes), present, strict=True)])
        costs = []
        for plane, step, slope, mask in zip(self.planes, self.steps, self.slopes, present, strict=True):
            change = (plane * step)[:, _AC]
            doubt = CAUTION * slope[:, _AC].square().mean(0).sqrt()
            costs.append((slope[:, _AC] * change + doubt * change.abs())[mask])
        order = (torch.cat(costs) / saved).argsort()
        total = saved[order].cumsum(0)
        dropped = torch.zeros(len(order), dtype=torch.bool)
        dropped[order[: int((total < self.share * total[-1:]).sum()) + 1]] = True
        planes = []
        parts = torch.split(dropped, [int(mask.sum()) for mask in present])
        for plane, mask, part in zip(self.planes, present, parts, strict=True):
            coefficients = plane[:, _AC]
            coefficients[mask] *= ~part
            planes.append(plane.clone())
            planes[-1][:, _AC] = coefficients
        return planes


def _savings(planes: Sequence[Tensor]) -> list[Tensor]:
    """Bits saved by a zero in place of each AC coefficient, at least 0.5, [blocks, 63] in zigzag order."""
    found, counts = [], []
    for plane in planes:
        size = size_of(plane[:, _AC].T[:, None])
        before, after, following, tail = runs(size)
        found.append((before, size, after, following))
        symbols = count(before * SIZES + size, RUNS * SIZES).view(1, RUNS, SIZES)
        symbols[:, :, 0] = 0
        symbols[:, 1, 0] = (tail > 0).sum()
        counts.append(symbols)
    (luma, chroma), _ = symbol_bits(counts[0], counts[1] + counts[2])
    savings = []
    for bits, (before, size, after, following) in zip((luma[0], chroma[0], chroma[0]), found, strict=True):
        # a zero here makes one run of the two around it
        saved = (
            bits[before, size] + bits[after, following] - bits[(before + after + 1).clamp(max=63), following]
        )
        savings.append(saved[:, 0].T.clamp(min=0.5))
    return savings


def _shown(pixels: Tensor, orientation: int, size: int) -> Tensor:
    """`view` for a tensor [1, 3, height, width]. It is close enough for gradients."""
    if orientation >= 5:
        pixels = pixels.transpose(-1, -2)
    if orientation in _FLIPS:
        pixels = pixels.flip(_FLIPS[orientation])
    left, top, right, bottom = map(round, View(size).box(pixels.shape[-1], pixels.shape[-2]))
    square = pixels[..., top:bottom, left:right]
    if square.shape[-2:] == (size, size):
        return square
    return functional.interpolate(square, (size, size), mode="bicubic", antialias=True)
