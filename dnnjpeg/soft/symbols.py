"""Counting the symbols of a baseline scan (T.81 F.1.2), and the bits of each occurrence.

Counts are float tensors. DC differences are counted by size, [N, 16]. AC coefficients are counted by the
zeros before them and by size, [N, 64, 16]; an end of block counts as one zero and size 0.
"""

import torch
from torch import Tensor

RUNS, SIZES = 64, 16
_MAX_CODE = 16  # bits
_TABLE = 8 * 17  # bits of a Huffman table without its symbols


def runs(size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Runs of zeros around AC coefficients, [63, N, blocks].

    Returns the zeros before each coefficient; the zeros after it; the size of the next non-zero coefficient,
    or 0 at the end; and the zeros at the end of each block.
    """
    before, after, following = (torch.empty_like(size) for _ in range(3))
    zeros = torch.zeros_like(size[0])
    for k in range(63):
        before[k] = zeros
        zeros = torch.where(size[k] > 0, 0, zeros + 1)
    tail, zeros, last = zeros, torch.zeros_like(zeros), torch.zeros_like(zeros)
    for k in reversed(range(63)):
        after[k], following[k] = zeros, last
        zeros = torch.where(size[k] > 0, 0, zeros + 1)
        last = torch.where(size[k] > 0, size[k], last)
    return before, after, following, tail


def size_of(index: Tensor) -> Tensor:
    """Bits of |index| (T.81 Table F.1), int32."""
    return index.abs().add_(0.5).log2_().floor_().add_(1).int().clamp_(max=SIZES - 1)


def count(values: Tensor, bins: int) -> Tensor:
    """Histograms of integers 0..bins - 1 by picture, float [N, bins]. values: [.., N, blocks]."""
    pictures = values.shape[1]
    at = values + torch.arange(pictures, dtype=torch.int32, device=values.device)[:, None] * bins
    return torch.bincount(at.flatten(), minlength=pictures * bins).view(pictures, bins).float()


def symbol_bits(luma: Tensor, chroma: Tensor) -> tuple[list[Tensor], Tensor]:
    """Bits of one occurrence of each symbol in luma and in chroma, and the bits of all symbols, [N].

    These are the code, the extra bits, and the symbol's share of the Huffman table. Luma and chroma share a
    table if this takes fewer bits.
    """
    own_luma, own_chroma, joint = (_own_bits(counts) for counts in (luma, chroma, luma + chroma))
    apart = _sum(luma * own_luma + chroma * own_chroma) + 2 * _TABLE
    together = _sum((luma + chroma) * joint) + _TABLE
    merge = (together <= apart).view(-1, *(1,) * (luma.ndim - 1))
    bits = [torch.where(merge, joint, own) for own in (own_luma, own_chroma)]
    return bits, torch.minimum(apart, together)


def _own_bits(counts: Tensor) -> Tensor:
    """Bits of one occurrence of each symbol, with a Huffman table for these counts."""
    extra = torch.arange(SIZES, dtype=counts.dtype, device=counts.device)
    if counts.ndim == 2:
        return _symbol_cost(counts) + extra
    symbols = counts.view(-1, RUNS // 16, 16, SIZES).sum(1)  # run mod 16, size
    long = torch.arange(RUNS, device=counts.device).div(16, rounding_mode="floor")[:, None]
    symbols[:, 0, 0] = symbols[:, 1, 0]
    symbols[:, 1, 0] = 0
    symbols[:, 15, 0] = _sum(counts * long)
    cost = _symbol_cost(symbols.flatten(1)).view_as(symbols)
    bits = cost.repeat(1, 4, 1) + extra + long * cost[:, 15:, :1]
    bits[:, :, 0] = cost[:, :1, 0]
    bits[:, 0, 0] = 0  # no end of block after the last coefficient
    return bits


def _symbol_cost(counts: Tensor) -> Tensor:
    """Bits of each occurrence of a symbol, [N, symbols]: the code, and a share of the byte in the table.

    A symbol that is more frequent than all rarer symbols together is a leaf at the next level of the tree.
    The codes of the rarer symbols have this level plus their information among themselves.
    """
    ordered, symbol = counts.sort(descending=True)
    rest = ordered.flip(1).cumsum(1).flip(1)
    alone = (2 * ordered > rest).cumprod(1)
    level = alone.sum(1, keepdim=True).clamp(max=counts.shape[1] - 1)
    seen = ordered.clamp(min=1)
    code = level + (rest.gather(1, level).clamp(min=1) / seen).log2().clamp(min=0)
    code = torch.where(alone > 0, alone.cumsum(1), code).clamp(max=_MAX_CODE) + 8 / seen
    return torch.empty_like(code).scatter_(1, symbol, code)


def _sum(x: Tensor) -> Tensor:
    """The sum for each picture."""
    return x.flatten(1).sum(1)
