"""The bits of quantized coefficients, differentiable in the coefficients, the steps and the hardness.

`entropy_rate` is J4D's rate: the entropy of each frequency's indices under the CPMF. `scan_rate` counts the
bits of a file: DC differences, runs of zeros, ends of blocks, extra bits, Huffman tables, headers.

An index i drawn from the CPMF has the mean cost E[C(i)]. Its derivatives are covariances of C(i) with the
offset of i from the nearest index. They are computed together with the value, and only their sums by table
are saved.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.soft.jpeg import block_grids, component_tables
from dnnjpeg.soft.quantizer import Mode, indices, reach, weights
from dnnjpeg.soft.symbols import RUNS, SIZES, count, runs, size_of, symbol_bits

_LEAST = 1e-30  # of a probability
_SEGMENTS = 2 + 19 + 4 + 14 + 2  # bytes of SOI, SOF, DHT without tables, SOS, EOI
_STUFFED = 1 + 1 / 256  # bytes of a scan with byte stuffing


def entropy_rate(planes: Sequence[Tensor], log_q: Tensor, log_kappa: Tensor) -> Tensor:
    """Mean bits of a picture, a scalar: the entropy of each frequency times its number of blocks.

    planes: from `to_coefficients`.
    log_q, log_kappa: as in `DifferentiableJPEG`. Steps are real numbers.

    The distribution of a frequency is the mean of P(i|z) over all blocks of the batch. DC prediction, runs
    and headers are ignored. The entropy is too low if there are few blocks.
    """
    tables = component_tables(log_q, log_kappa)
    with torch.no_grad():
        parts = [_Plane(z, *table) for z, table in zip(planes, tables, strict=True)]
        bits, costs = zip(*map(_entropy, parts), strict=True)
    gradients = (
        gradient / len(planes[0])
        for part, cost in zip(parts, costs, strict=True)
        for gradient in part.gradients(cost)
    )
    return _attach(torch.stack(bits).sum(), planes, tables, gradients)


def scan_rate(
    planes: Sequence[Tensor],
    log_q: Tensor,
    log_kappa: Tensor,
    height: int,
    width: int,
    subsampling: str = "4:4:4",
    mode: Mode = "hard",
) -> Tensor:
    """Estimated bits of each picture's baseline file without metadata (`encode(..., signature=False)`), [N].

    planes: from `to_coefficients(..., integers=True)`.
    log_q, log_kappa: as in `DifferentiableJPEG`. Steps are rounded to 1..255.
    height, width: size of the pictures.
    mode: "hard" counts nearest indices, "sampled" drawn ones.

    The cost of a symbol is its information among the picture's own symbols. Real Huffman codes are a little
    longer: the sum is about 0.7 % below the file. The derivatives are those of the mean cost over the
    distribution of one index, with all other indices and all costs of symbols fixed.

    Raises ValueError for another mode or subsampling, and if planes do not fit the size.
    """
    if mode not in ("hard", "sampled"):
        raise ValueError(f"mode is {mode!r}, expected 'hard' or 'sampled'")
    grids = block_grids(height, width, subsampling)
    for c, (z, (rows, columns)) in enumerate(zip(planes, grids, strict=True)):
        if z.shape[1:] != (rows * columns, 64):
            raise ValueError(f"planes[{c}] has shape {tuple(z.shape)}, expected N x {rows * columns} x 64")
    tables = component_tables(log_q, log_kappa, integers=True)
    with torch.no_grad():
        parts = [
            _ScanPlane(z, *table, _Grid(*grid, *factors), mode)
            for z, table, grid, factors in zip(planes, tables, grids, SUBSAMPLINGS[subsampling], strict=True)
        ]
        luma, cb, cr = parts
        dc_bits, dc_total = symbol_bits(luma.dc_counts, cb.dc_counts + cr.dc_counts)
        ac_bits, ac_total = symbol_bits(luma.ac_counts, cb.ac_counts + cr.ac_counts)
        total = (dc_total + ac_total) * _STUFFED + 8 * (_SEGMENTS + 4 + 65 * log_q.shape[-2])
    gradients = (
        gradient * _STUFFED
        for part, code in zip(parts, (0, 1, 1), strict=True)
        for gradient in part.scan_gradients(dc_bits[code], ac_bits[code])
    )
    return _attach(total, planes, tables, gradients)


class _Plane:
    """A component, with frequencies first and in zigzag order: tensors [64, N, blocks].

    Tensors of tables have 1 in place of blocks, and 1 in place of N if all pictures share them.
    """

    def __init__(self, z: Tensor, q: Tensor, kappa: Tensor) -> None:
        self.z, self.q, self.kappa = (_frequencies_first(x) for x in (z, q, kappa))
        self.t = self.z / self.q
        self.nearest = self.t.round()
        self.r = self.t - self.nearest
        self.reach = reach(kappa)

    def gradients(self, costs: Sequence[Tensor]) -> list[Tensor]:
        """Derivatives of the sum of all mean costs with respect to z, q and κ.

        costs: costs of the indices nearest - K to nearest + K, each [64, N, blocks].

        Returns tensors [N, blocks or 1, 64] in natural order.
        """
        up, down = weights(self.r, self.kappa, self.reach)
        centre = costs[self.reach]
        total = torch.ones_like(centre)
        k1, k2, c, c_k1, c_k2 = (torch.zeros_like(centre) for _ in range(5))  # means of k, k², C, C k, C k²
        for k, (high, low) in enumerate(zip(up, down, strict=True), 1):
            more, less = high * (costs[self.reach + k] - centre), low * (costs[self.reach - k] - centre)
            total.add_(high).add_(low)
            k1.add_(high, alpha=k).sub_(low, alpha=k)
            k2.add_(high, alpha=k**2).add_(low, alpha=k**2)
            c.add_(more).add_(less)
            c_k1.add_(more, alpha=k).sub_(less, alpha=k)
            c_k2.add_(more, alpha=k**2).add_(less, alpha=k**2)
        c.div_(total)
        with_k1 = c_k1.sub_(k1.mul_(c)).div_(total)  # covariances with the cost
        with_k2 = c_k2.sub_(k2.mul_(c)).div_(total)
        by_kappa = (2 * self.r * with_k1).sub_(with_k2)
        by_z = with_k1.mul_(2 * self.kappa / self.q)
        by_q = -(by_z * self.t)
        sums = (by_z, by_q.sum(-1, keepdim=True), by_kappa.sum(-1, keepdim=True))
        return [_frequencies_last(x) for x in sums]


def _entropy(plane: _Plane) -> tuple[Tensor, list[Tensor]]:
    """Mean bits of a picture, and the cost of each index near the nearest one: -log2 of its share."""
    _, pictures, blocks = plane.z.shape
    offsets = range(-plane.reach, plane.reach + 1)
    up, down = weights(plane.r, plane.kappa, plane.reach)
    masses = [*reversed(down), torch.ones_like(plane.r), *up]
    total = torch.stack(masses).sum(0)
    low, high = plane.nearest.min() - plane.reach, plane.nearest.max() + plane.reach
    width = int(high - low) + 1
    at = (plane.nearest - low).int() + _column(64, plane.z)[..., None] * width
    share = torch.zeros(64 * width, dtype=plane.z.dtype, device=plane.z.device)
    for k, mass in zip(offsets, masses, strict=True):
        share += torch.bincount((at + k).flatten(), (mass / total).flatten(), minlength=len(share))
    share /= pictures * blocks
    bits = share.clamp(min=_LEAST).log2_().neg_()
    return (share * bits).sum() * blocks, [_pick(bits, at + k) for k in offsets]


class _Grid:
    """The blocks of a component, and their order in a scan (T.81 A.2.3)."""

    def __init__(self, rows: int, columns: int, h: int, v: int) -> None:
        mcus = -(-columns // h)
        self.dummies = -(-rows // v) * v * mcus * h - rows * columns
        """Blocks outside the picture, which complete MCUs."""
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        place = ((y // v * mcus + x // h) * v + y % v) * h + x % h
        self.order = place.flatten().argsort()


class _ScanPlane(_Plane):
    """A component in a scan, with blocks in the order of the scan.

    dc_counts: number of DC differences of each size, [N, 16].
    ac_counts: number of AC coefficients by zeros before them and size, [N, 64, 16]. An end of block counts as
        one zero and size 0.
    """

    def __init__(self, z: Tensor, q: Tensor, kappa: Tensor, grid: _Grid, mode: Mode) -> None:
        self.order = grid.order.to(z.device)
        super().__init__(z[:, self.order], q, kappa)
        index = indices(self.z, self.q, self.kappa, mode)
        self.dc, self.size = index[0], size_of(index[1:])
        self.before, self.after, self.following, tail = runs(self.size)
        self.dc_counts = count(size_of(self.dc - _previous(self.dc))[None], SIZES)
        self.dc_counts[:, 0] += grid.dummies
        counts = count(self.before * SIZES + self.size, RUNS * SIZES)
        self.ac_counts = counts.view(-1, RUNS, SIZES)
        self.ac_counts[:, :, 0] = 0
        self.ac_counts[:, 1, 0] = (tail > 0).sum(-1) + grid.dummies

    def scan_gradients(self, dc_bits: Tensor, ac_bits: Tensor) -> list[Tensor]:
        """`gradients` for the bits of the scan.

        dc_bits, ac_bits: bits of one occurrence in `dc_counts` and `ac_counts`.

        When a step changes, neighbouring DC indices move together. So the distributions of single indices say
        little about their difference. With uniform rounding errors, the mean cost of a difference of indices
        is linear between the integers next to t - t'. The derivatives of DC are those of this function.
        """
        by_z, by_q, by_kappa = self.gradients(self.costs(dc_bits, ac_bits))
        difference = self.t[0] - _previous(self.t[0])
        at = _column(len(dc_bits), dc_bits) * SIZES
        rise = _pick(dc_bits.flatten(), at + size_of(difference.floor() + 1))
        rise -= _pick(dc_bits.flatten(), at + size_of(difference.floor()))
        by_z[..., 0] = (rise - torch.cat([rise[:, 1:], torch.zeros_like(rise[:, :1])], dim=1)) / self.q[0]
        by_q[..., 0] = -(rise * difference).sum(-1, keepdim=True) / self.q[0]
        return [by_z[:, self.order.argsort()], by_q, by_kappa]

    def costs(self, dc_bits: Tensor, ac_bits: Tensor) -> list[Tensor]:
        """Bits that depend on each index, if it were nearest - K to nearest + K: each [64, N, blocks].

        dc_bits, ac_bits: bits of one occurrence in `dc_counts` and `ac_counts`.
        """
        pictures = _column(len(dc_bits), self.dc)
        dc_bits, ac_bits = dc_bits.flatten(), ac_bits.flatten()
        next_dc = torch.cat([self.dc[:, 1:], self.dc[:, -1:]], dim=1)
        at = pictures * (RUNS * SIZES) + self.before * SIZES
        # a zero here makes one run of the two around it
        if_zero = _pick(ac_bits, at + (self.after + 1) * SIZES + self.following)
        rest = _pick(ac_bits, at - (self.before - self.after) * SIZES + self.following)
        costs = []
        for k in range(-self.reach, self.reach + 1):
            dc = self.nearest[0] + k
            dc_cost = _pick(dc_bits, pictures * SIZES + size_of(dc - _previous(self.dc)))
            dc_cost[:, :-1] += _pick(dc_bits, pictures * SIZES + size_of(next_dc - dc))[:, :-1]
            size = size_of(self.nearest[1:] + k)
            ac_cost = torch.where(size == 0, if_zero, rest + _pick(ac_bits, at + size))
            costs.append(torch.cat([dc_cost[None], ac_cost]))
        return costs


def _previous(dc: Tensor) -> Tensor:
    """The predictions of DC indices, [N, blocks], in the order of the scan."""
    return torch.cat([torch.zeros_like(dc[:, :1]), dc[:, :-1]], dim=1)


def _pick(values: Tensor, at: Tensor) -> Tensor:
    return values.index_select(0, at.flatten()).view(at.shape)


def _column(count: int, like: Tensor) -> Tensor:
    """0..count - 1 as int32 [count, 1]."""
    return torch.arange(count, dtype=torch.int32, device=like.device)[:, None]


def _frequencies_first(x: Tensor) -> Tensor:
    """[.., n, 64] in natural order to [64, .., n] in zigzag order."""
    return x.reshape(-1, *x.shape[-2:]).permute(2, 0, 1)[list(NATURAL)].contiguous()


def _frequencies_last(x: Tensor) -> Tensor:
    natural = sorted(range(64), key=NATURAL.__getitem__)
    return x[natural].permute(1, 2, 0)


def _attach(
    value: Tensor,
    planes: Sequence[Tensor],
    tables: Sequence[tuple[Tensor, Tensor]],
    gradients: Iterable[Tensor],
) -> Tensor:
    """`value` ([N] or a scalar) with derivatives [N, ..] for each plane, its steps and its hardness."""
    inputs = [x for z, table in zip(planes, tables, strict=True) for x in (z, *table)]
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
        return value
    with torch.no_grad():
        pairs = [pair for pair in zip(inputs, gradients, strict=True) if pair[0].requires_grad]
    return _known(value, *(item for pair in pairs for item in pair))


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *pairs: Tensor) -> Tensor:
        ctx.save_for_backward(*pairs[1::2])
        ctx.shapes = [x.shape for x in pairs[::2]]
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        out: list[Tensor | None] = [None]
        for known, shape in zip(ctx.saved_tensors, ctx.shapes, strict=True):
            out += [(gradient.reshape(-1, 1, 1) * known).sum_to_size(shape), None]
        return tuple(out)


_known: Callable[..., Tensor] = _Known.apply
