"""A differentiable JPEG codec: RGB pixels to DCT coefficients, quantization, and back to RGB pixels.

Encoding follows `dnnjpeg.codec`, decoding follows libjpeg-turbo as Pillow uses it. Everything but the
quantizer is linear. With `integers`, all rounding and clipping of a real encoder and decoder is done, too,
and gradients pass through it unchanged.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.soft.exact import decoder_samples, encoder_indices
from dnnjpeg.soft.quantizer import Mode, quantize

# The encoder's weights of R, G, B in Y, Cb, Cr, in 1/32768, and libjpeg's of Cb, Cr in R, G, B, in 1/65536.
# All products with samples fit a float32 exactly.
_YCBCR = ((9798, 19235, 3735), (-5529, -10855, 16384), (16384, -13720, -2664))
_RGB = ((0, 91881), (-22554, -46802), (116130, 0))

MaxIndices = Sequence[int | Tensor | None]


class DifferentiableJPEG(nn.Module):
    """A JPEG codec as a module, differentiable in the pixels, the steps and the hardness."""

    def forward(
        self,
        pixels: Tensor,
        log_q: Tensor,
        log_kappa: Tensor,
        mode: Mode = "soft",
        subsampling: str = "4:4:4",
        *,
        steady: bool = False,
    ) -> Tensor:
        """Encode and decode pictures.

        pixels: float [N, 3, height, width], RGB, 0..255. The result has the same shape, and is float32 (or
            float64, like the pixels).
        log_q: logarithms of the steps in natural order, [T, 64], or [N, T, 64] if each picture has its own. T
            is 1 to 3 tables for Y, Cb, Cr. The last one serves all further components.
        log_kappa: logarithm of the hardness. Its shape broadcasts to that of `log_q`.
        mode: as in `quantize`. "sampled" and "hard" also round steps to 1..255 and samples to 0..255, as
            files do, with straight-through gradients.
        subsampling: a key of `dnnjpeg.jpeg.subsampling.SUBSAMPLINGS`.
        steady: as in `quantize`.

        Autocast has no effect. Raises ValueError for other shapes, modes or subsamplings.
        """
        integers = mode != "soft"
        tables = component_tables(log_q, log_kappa, integers=integers)
        return roundtrip(pixels, tables, mode, subsampling, integers=integers, steady=steady)


def roundtrip(
    pixels: Tensor,
    tables: Sequence[tuple[Tensor, Tensor]],
    mode: Mode,
    subsampling: str,
    *,
    integers: bool,
    max_index: MaxIndices = (None, None, None),
    steady: bool = False,
    K: int | None = None,
    held: bool = True,
) -> Tensor:
    """`pixels` after JPEG. See `DifferentiableJPEG`.

    tables: steps and hardness from `component_tables`.
    integers: as in `to_coefficients` and `from_coefficients`.
    max_index: as in `quantize`, for Y, Cb and Cr.
    steady, K: as in `quantize`.
    held: as in `from_coefficients`.
    """
    samples = _samples(pixels, subsampling, integers)
    is_file = integers and mode == "hard"
    planes = []
    for part, (q, kappa), most in zip(samples, tables, max_index, strict=True):
        index = encoder_indices(part, q, most) if is_file else None
        planes.append(quantize(_dct(part), q, kappa, mode, index=index, max_index=most, steady=steady, K=K))
    height, width = pixels.shape[-2:]
    return from_coefficients(planes, height, width, subsampling, integers=integers, held=held)


def component_tables(
    log_q: Tensor, log_kappa: Tensor, *, integers: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Steps and hardness of Y, Cb, Cr, each [1, 64] or [N, 1, 64], which broadcasts over blocks.

    log_q, log_kappa: as in `DifferentiableJPEG`.
    integers: round steps to 1..255, as in files, with straight-through gradients.
    """
    if log_q.ndim not in (2, 3) or log_q.shape[-1] != 64 or not 1 <= log_q.shape[-2] <= 3:
        raise ValueError(f"log_q has shape {tuple(log_q.shape)}, expected ([N,] 1 to 3 tables, 64)")
    steps = log_q.to(torch.promote_types(log_q.dtype, torch.float32)).exp()
    if integers:
        steps = straight_through(steps, steps.detach().round().clamp(1, 255))
    kappa = log_kappa.to(steps.dtype).exp().expand_as(steps)
    which = [min(c, steps.shape[-2] - 1) for c in range(3)]
    return [(steps[..., c, :].unsqueeze(-2), kappa[..., c, :].unsqueeze(-2)) for c in which]


def block_grids(height: int, width: int, subsampling: str) -> list[tuple[int, int]]:
    """Rows and columns of blocks of Y, Cb, Cr, without those that only fill MCUs (T.81 A.1.1, A.2.4)."""
    if subsampling not in SUBSAMPLINGS:
        raise ValueError(f"subsampling is {subsampling!r}, expected one of {', '.join(SUBSAMPLINGS)}")
    h, v = SUBSAMPLINGS[subsampling][0]
    chroma = -(-height // (8 * v)), -(-width // (8 * h))
    return [(-(-height // 8), -(-width // 8)), chroma, chroma]


def to_coefficients(pixels: Tensor, subsampling: str = "4:4:4", *, integers: bool = False) -> list[Tensor]:
    """Orthonormal DCT coefficients of Y, Cb and Cr (T.81 A.3.3). The encoder divides these by the steps.

    pixels: [N, 3, height, width], RGB, 0..255, any size. The last pixels are repeated to fill the last MCU,
        as in the encoder.
    integers: round samples to integers, as the encoder does, with straight-through gradients.

    Returns three tensors [N, blocks, 64] in the dtype of pixels (at least float32). Blocks are in raster
    order, and `block_grids` gives their numbers. Frequencies are in natural order.
    """
    return [_dct(part) for part in _samples(pixels, subsampling, integers)]


def _samples(pixels: Tensor, subsampling: str, integers: bool) -> list[Tensor]:
    """The samples of Y (minus 128), Cb and Cr, in the shape of the result of `to_coefficients`."""
    if pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels has shape {tuple(pixels.shape)}, expected N x 3 x height x width")
    height, width = pixels.shape[-2:]
    grids = block_grids(height, width, subsampling)
    h, v = SUBSAMPLINGS[subsampling][0]
    pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))
    padding = -width % (8 * h), -height % (8 * v)
    if any(padding):
        pixels = functional.pad(pixels, (0, padding[0], 0, padding[1]), mode="replicate")
    padded_height, padded_width = pixels.shape[-2:]
    channels = _product(_constant("ycbcr", pixels), pixels.flatten(2)).view_as(pixels)
    luma, chroma = channels[:, :1] - 128, channels[:, 1:]
    if h * v > 1:
        chroma = chroma.reshape(-1, 2, padded_height // v, v, padded_width // h, h).mean(dim=(3, 5))
    if integers:  # .5 is rounded up in luma, down in chroma
        luma = straight_through(luma, (luma.detach() + 0.5).floor_())
        chroma = straight_through(chroma, (chroma.detach() - 0.5).ceil_())
    planes = luma[:, 0], chroma[:, 0], chroma[:, 1]
    return [_blocks(plane, *grid) for plane, grid in zip(planes, grids, strict=True)]


def _dct(samples: Tensor) -> Tensor:
    return _product(samples, _constant("dct", samples).T)


def from_coefficients(
    planes: Sequence[Tensor],
    height: int,
    width: int,
    subsampling: str = "4:4:4",
    *,
    integers: bool = False,
    held: bool = True,
) -> Tensor:
    """Pixels [N, 3, height, width], RGB, 0..255, from coefficients like those of `to_coefficients`.

    Upsampling is libjpeg-turbo's: triangle ("fancy") for factors of two, repetition for 4:1:1.

    integers: round and clip samples as libjpeg's decoder does, with straight-through gradients. Otherwise
        only pixels are clipped, and clipped pixels have no gradient.
    held: False leaves pixels beyond 0..255 unclipped, unless `integers` is set.
    """
    grids = block_grids(height, width, subsampling)
    h, v = SUBSAMPLINGS[subsampling][0]
    samples = []
    for plane, grid in zip(planes, grids, strict=True):
        blocks = _product(plane, _constant("dct", plane))
        if integers:
            blocks = straight_through(blocks, decoder_samples(plane.detach()))
        samples.append(_plane(blocks, *grid))
    luma = samples[0][:, None, :height, :width]
    chroma = torch.stack([plane[:, : -(-height // v), : -(-width // h)] for plane in samples[1:]], dim=1)
    if h * v > 1:
        chroma = _upsample(chroma, h, v, integers)[..., :height, :width]
    colour = _product(_constant("rgb", chroma), chroma.flatten(2)).reshape(-1, 3, height, width)
    if not integers:
        return _hold(luma + 128 + colour) if held else luma + 128 + colour
    rgb = luma + 128 + straight_through(colour, (colour.detach() + 0.5).floor_())
    return straight_through(rgb, rgb.detach().clamp(0, 255))


def _upsample(chroma: Tensor, h: int, v: int, integers: bool) -> Tensor:
    """Upsample chroma [N, 2, rows, columns] to h times the columns and v times the rows (jdsample.c)."""
    if h == 4 or (h == 2 and chroma.shape[-1] <= 2):
        return functional.interpolate(chroma, scale_factor=(v, h), mode="nearest")
    fine = functional.interpolate(chroma, scale_factor=(v, h), mode="bilinear", align_corners=False)
    if not integers:
        return fine
    # libjpeg alternates the direction in which a half is rounded
    halves = torch.tensor(
        (8 / 16, 7 / 16) if h == v else (1 / 4, 2 / 4), dtype=fine.dtype, device=fine.device
    )
    bias = halves.repeat(chroma.shape[-1]) if h == 2 else halves.repeat(chroma.shape[-2])[:, None]
    return straight_through(fine, (fine.detach() + bias).floor_())


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """`value`, with the gradient of x."""
    return _straight_through(x, value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


_straight_through: Callable[[Tensor, Tensor], Tensor] = _StraightThrough.apply


class _Hold(torch.autograd.Function):
    """Clip to 0..255. It saves one byte for each sample, while torch would save the samples."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((x >= 0) & (x <= 255))
        return x.clamp(0, 255)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0]


_hold: Callable[[Tensor], Tensor] = _Hold.apply


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in their own precision, also under autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _blocks(plane: Tensor, rows: int, columns: int) -> Tensor:
    """Blocks [N, rows · columns, 64] from samples [N, height, width], which may have more blocks."""
    tiles = plane[:, : 8 * rows, : 8 * columns].reshape(-1, rows, 8, columns, 8)
    return tiles.transpose(2, 3).reshape(-1, rows * columns, 64)


def _plane(blocks: Tensor, rows: int, columns: int) -> Tensor:
    """Samples [N, 8 rows, 8 columns] from blocks [N, rows · columns, 64]."""
    tiles = blocks.reshape(-1, rows, columns, 8, 8).transpose(2, 3)
    return tiles.reshape(-1, 8 * rows, 8 * columns)


def _constant(name: str, like: Tensor) -> Tensor:
    return _constant_on(name, like.device, like.dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # tensors made in inference mode have no gradients later
def _constant_on(name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrices above by name. `dct` has a row for each frequency."""
    if name == "ycbcr":
        matrix = torch.tensor(_YCBCR, dtype=torch.float64) / 32768
    elif name == "rgb":
        matrix = torch.tensor(_RGB, dtype=torch.float64) / 65536
    else:
        x = torch.arange(8, dtype=torch.float64)
        basis = torch.cos((2 * x + 1) * x[:, None] * torch.pi / 16) / 2
        basis[0] /= 2**0.5
        matrix = torch.kron(basis, basis)
    return matrix.to(device, dtype)
