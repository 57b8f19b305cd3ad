"""The exact arithmetic of real encoders and decoders, between samples and indices. It is not differentiable.

The order of operations decides how a half is rounded, so it is the same here, to the bit.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dnnjpeg.codec.dct import COS_2, COS_4, COS_6, SCALE, SIN_2
from dnnjpeg.soft.quantizer import hold_

# The inverse DCT of eight values as in libjpeg's jidctint.c, in 1/8192: weights of inputs 0, 2, 4, 6 and of
# 1, 3, 5, 7 in outputs 0 to 3. Output 7 - x is output x with the weights of 1, 3, 5, 7 negated.
_EVEN = (
    (8192, 10703, 8192, 4433), (8192, 4433, -8192, -10704),
    (8192, -4433, -8192, 10704), (8192, -10703, 8192, -4433),
)  # fmt: skip
_ODD = (
    (11363, 9633, 6437, 2260), (9633, -2259, -11362, -6436),
    (6437, -11362, 2261, 9633), (2260, -6436, 9633, -11363),
)  # fmt: skip


@torch.no_grad()
def encoder_indices(samples: Tensor, q: Tensor, max_index: int | Tensor | None = None) -> Tensor:
    """The encoder's quantization indices, [N, blocks, 64], whole numbers in the dtype of `samples`.

    samples: whole numbers -128..127, [N, blocks, 64].
    q: whole steps. They broadcast against the result.
    max_index: as in `quantize`.
    """
    x = samples.float().permute(2, 0, 1).reshape(8, 8, -1)
    x = torch.stack(_forward_8(x.unbind(1)))
    x = torch.stack(_forward_8(x.unbind(1)))
    scale = (torch.from_numpy(SCALE).to(q.device) / q.double()).float()
    t = (
        x.view(64, *samples.shape[:2]).permute(1, 2, 0) * scale.double()
    )  # rounded once, like a fused operation
    return hold_(t, max_index).round_().to(samples.dtype)


def _forward_8(x: Sequence[Tensor]) -> list[Tensor]:
    """The DCT of eight values as in `dnnjpeg.codec.dct`, in float32."""
    s0, s1, s2, s3 = (x[k] + x[7 - k] for k in range(4))
    d0, d1, d2, d3 = (x[k] - x[7 - k] for k in range(4))

    t0, t1, t3 = s0 + s3, s1 + s2, s0 - s3
    turned = (s1 - s2) + t3

    u0, u1, u2 = d3 + d2, d2 + d1, d1 + d0
    shared = (u0 - u2) * float(np.float32(COS_6))
    v0, v2 = _fused(u0, COS_2, shared), _fused(u2, SIN_2, shared)
    w0, w1 = _fused(u1, COS_4, d0), _fused(u1, -COS_4, d0)
    return [
        t0 + t1, w0 + v2, _fused(turned, COS_4, t3), w1 - v0,
        t0 - t1, w1 + v0, _fused(turned, -COS_4, t3), w0 - v2,
    ]  # fmt: skip


def _fused(a: Tensor, factor: float, b: Tensor) -> Tensor:
    """a · factor + b for float32 values, rounded once, as the product is exact in float64."""
    return (a.double() * float(np.float32(factor)) + b).float()


@torch.no_grad()
def decoder_samples(coefficients: Tensor) -> Tensor:
    """libjpeg's accurate integer inverse DCT: columns first, with two fractional bits between the passes.

    coefficients: whole numbers, [..., 64], in natural order.

    Returns samples of the same shape, clipped to -128..127.
    """
    columns, rows = _inverse(coefficients.device, coefficients.dtype)
    with torch.autocast(coefficients.device.type, enabled=False):
        x = (coefficients @ columns).mul_(2**-11).add_(0.5).floor_()
        return (x @ rows).mul_(2**-18).add_(0.5).floor_().clamp_(-128, 127)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # tensors made in inference mode could not be used in training later
def _inverse(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both passes as matrices with a row for each input."""
    even, odd = (torch.tensor(half, dtype=torch.float64).T for half in (_EVEN, _ODD))
    inverse = torch.empty(8, 8, dtype=torch.float64)
    inverse[0::2] = torch.cat([even, even.flip(1)], dim=1)
    inverse[1::2] = torch.cat([odd, -odd.flip(1)], dim=1)
    one = torch.eye(8, dtype=torch.float64)
    columns, rows = torch.kron(inverse, one), torch.kron(one, inverse)
    return columns.to(device, dtype), rows.to(device, dtype)
