"""The differentiable codec against the encoder's files as Pillow decodes them, scipy's DCT, and kornia."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

torch = pytest.importorskip("torch")

from tiny import pictures  # noqa: E402
from torch import Tensor  # noqa: E402

from dnnjpeg import encode  # noqa: E402
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS  # noqa: E402
from dnnjpeg.soft.jpeg import (  # noqa: E402
    DifferentiableJPEG,
    block_grids,
    component_tables,
    from_coefficients,
    to_coefficients,
)
from dnnjpeg.soft.quantizer import quantize  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

JPEG = DifferentiableJPEG()
SOFT = torch.tensor(2.0)  # log κ
SIZES = ((128, 192), (77, 131), (16, 16), (9, 17), (8, 2), (1, 40), (5, 3), (1, 1))
POINTS = (
    *map(standard_table().at, (10, 50, 75)),
    OperatingPoint(50, "4:4:4", tuple(range(3, 67)), (tuple(range(70, 6, -1)), tuple(range(9, 73)))),
)


def drawn(height: int, width: int) -> np.ndarray:
    rows, columns = -(-height // 32), -(-width // 32)
    tiles = pictures(rows * columns, seed=height).reshape(rows, columns, 32, 32, 3)
    return tiles.transpose(0, 2, 1, 3, 4).reshape(32 * rows, 32 * columns, 3)[:height, :width]


def tensor_of(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()


def logs(point: OperatingPoint) -> Tensor:
    return torch.tensor(point.tables).float().log()


def differences(picture: np.ndarray, point: OperatingPoint, subsampling: str) -> np.ndarray:
    """Between the layer in hard mode and the real file, decoded, by sample."""
    data = encode(picture, point, subsampling=subsampling)
    real = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
    ours = JPEG(tensor_of(picture), logs(point), SOFT, "hard", subsampling)[0]
    return np.abs(ours.permute(1, 2, 0).numpy() - real)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("point", POINTS)
def test_hard_mode_is_the_decoded_file(point: OperatingPoint, subsampling: str) -> None:
    for size in SIZES:
        assert differences(drawn(*size), point, subsampling).max() == 0


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_hard_mode_is_the_decoded_photograph(data_dir: Path, subsampling: str) -> None:
    for path in sorted((data_dir / "photos").glob("kodim*.png"))[:4]:
        photo = np.asarray(Image.open(path).convert("RGB"))
        for quality in (20, 60, 90, 96, 100):
            assert differences(photo[101:230, 50:213], standard_table().at(quality), subsampling).max() == 0


def test_coefficients_are_the_orthonormal_dct() -> None:
    picture = drawn(40, 56)
    r, g, b = picture.astype(float).transpose(2, 0, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b  # JFIF 1.02
    for plane, samples in zip(
        to_coefficients(tensor_of(picture)), (y - 128, (b - y) / 1.772, (r - y) / 1.402), strict=True
    ):
        blocks = samples.reshape(5, 8, 7, 8).transpose(0, 2, 1, 3)
        expected = dctn(blocks, axes=(2, 3), norm="ortho").reshape(1, 35, 64)
        assert np.abs(plane.numpy() - expected).max() < 0.05


@pytest.mark.parametrize("integers", [False, True])
def test_without_quantization_pictures_come_back(integers: bool) -> None:
    for size in SIZES:
        pixels = tensor_of(drawn(*size))
        planes = to_coefficients(pixels, integers=integers)
        back = from_coefficients(planes, *size, integers=integers)
        assert (back - pixels).abs().max() <= (2 if integers else 0.05)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    subsampling=st.sampled_from(list(SUBSAMPLINGS)),
    mode=st.sampled_from(["soft", "sampled", "hard"]),
)
def test_a_flat_picture_of_any_size_stays_flat(
    height: int, width: int, colour: tuple[int, int, int], subsampling: str, mode: str
) -> None:
    pixels = torch.tensor(colour).float()[None, :, None, None].expand(2, 3, height, width)
    out = JPEG(pixels, torch.zeros(2, 64), torch.tensor(4.0), mode, subsampling)
    assert out.shape == pixels.shape
    assert (out - pixels).abs().max() <= 3
    assert (out - out[:1, :, :1, :1]).abs().max() < 1e-3
    grids = block_grids(height, width, subsampling)
    planes = to_coefficients(pixels, subsampling)
    assert [p.shape for p in planes] == [(2, rows * columns, 64) for rows, columns in grids]


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_gradcheck_of_the_whole_codec(subsampling: str) -> None:
    torch.manual_seed(0)
    pixels = (torch.rand(2, 3, 9, 19, dtype=torch.float64) * 120 + 60).requires_grad_()
    log_q = (torch.rand(2, 3, 64, dtype=torch.float64) + 1.5).requires_grad_()
    log_kappa = (torch.rand(3, 64, dtype=torch.float64) + 1).requires_grad_()

    def output(*inputs: Tensor) -> Tensor:
        return JPEG(*inputs, "soft", subsampling)

    inputs = (pixels, log_q, log_kappa)
    assert torch.autograd.gradcheck(output, inputs, fast_mode=True, eps=1e-7, atol=1e-3)


def test_hard_gradients_are_soft_ones_through_all_rounding() -> None:
    """Given the same coefficients and steps, the modes differ in rounding and clamping alone."""
    pixels = tensor_of(drawn(24, 40)).clamp(80, 170)
    tables = torch.full((2, 64), 12.0).log()
    weight = torch.randn(pixels.shape)
    found = []
    for mode in ("soft", "hard"):
        log_q = tables.clone().requires_grad_()
        log_kappa = torch.full((2, 64), 1.0).requires_grad_()
        planes = to_coefficients(pixels, integers=True)
        steps = component_tables(log_q, log_kappa, integers=mode == "hard")
        values = [quantize(z, *table, mode) for z, table in zip(planes, steps, strict=True)]
        out = from_coefficients(values, 24, 40, integers=mode == "hard")
        assert ((out > 0) & (out < 255)).all()
        found.append(torch.autograd.grad((out * weight).sum(), (log_q, log_kappa)))
    for soft, hard in zip(*found, strict=True):
        torch.testing.assert_close(hard, soft, rtol=1e-4, atol=1e-3)
    pixels.requires_grad_()
    hard = JPEG(pixels, torch.zeros(1, 64), torch.tensor(-2.0), "hard")  # so soft that gradients go through
    (gradient,) = torch.autograd.grad((hard * weight).sum(), pixels)
    torch.testing.assert_close(gradient, weight, rtol=0, atol=0.02)


def test_tables_by_picture_and_by_component() -> None:
    pixels = torch.cat([tensor_of(drawn(40, 40)), tensor_of(drawn(41, 40)[1:])])
    tables = torch.rand(2, 3, 64) + 2
    together = JPEG(pixels, tables, SOFT, "hard", "4:2:0")
    for i in range(2):
        assert torch.equal(together[i], JPEG(pixels[i : i + 1], tables[i], SOFT, "hard", "4:2:0")[0])
    two = torch.stack([tables[0, 0], tables[0, 1], tables[0, 1]])
    assert torch.equal(JPEG(pixels, two[:2], SOFT), JPEG(pixels, two, SOFT))
    one = two[:1]
    assert torch.equal(JPEG(pixels, one, SOFT), JPEG(pixels, one.expand(3, 64), SOFT))


def test_autocast_changes_nothing() -> None:
    pixels = tensor_of(drawn(40, 56))
    log_q = torch.full((2, 64), 2.0, requires_grad=True)
    plain = JPEG(pixels, log_q, SOFT, "soft", "4:2:0")
    with torch.autocast("cpu", torch.bfloat16):
        cast = JPEG(pixels, log_q, SOFT, "soft", "4:2:0")
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert JPEG(pixels.bfloat16(), log_q.bfloat16(), SOFT).dtype == torch.float32


def test_constants_made_in_inference_mode_serve_training() -> None:
    pixels = torch.full((1, 3, 8, 8), 99.0, dtype=torch.float64)
    with torch.inference_mode():
        JPEG(pixels, torch.ones(1, 64), SOFT, "hard")
    JPEG(pixels.requires_grad_(), torch.ones(1, 64), SOFT, "hard").sum().backward()


def test_little_is_kept_for_backward() -> None:
    """Coefficients and clamped pixels; autograd through the quantizer's formula keeps ten times as much."""
    pixels = torch.rand(2, 3, 64, 64) * 255
    log_q = torch.full((2, 64), 2.5, requires_grad=True)
    log_kappa = torch.full((2, 64), 1.5, requires_grad=True)

    def naive() -> Tensor:
        planes = []
        for z, (q, kappa) in zip(to_coefficients(pixels), component_tables(log_q, log_kappa), strict=True):
            t = z / q
            i = t.detach().round()[..., None] + torch.arange(-2, 3)
            p = torch.softmax(-kappa[..., None] * (t[..., None] - i) ** 2, dim=-1)
            planes.append((p * i).sum(-1) * q)
        return from_coefficients(planes, 64, 64)

    def kept(function: Callable[[], Tensor]) -> int:
        tensors: dict[int, Tensor] = {}

        def keep(x: Tensor) -> Tensor:
            return tensors.setdefault(x.untyped_storage().data_ptr(), x)

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            function()
        return sum(x.untyped_storage().nbytes() for x in tensors.values())

    picture = 4 * pixels.numel()
    assert kept(lambda: JPEG(pixels, log_q, log_kappa)) < 2.2 * picture
    assert kept(lambda: JPEG(pixels, log_q, log_kappa, "hard")) < 1.2 * picture
    assert kept(naive) > 20 * picture


def test_kornia_agrees() -> None:
    """Kornia rounds x to round(x) + (x - round(x))^3, scales chroma by other filters, and has the colour
    matrix to three digits. A picture whose indices are whole numbers, and whose chroma is flat, both return.
    """
    kornia = pytest.importorskip("kornia", reason="kornia is not installed")
    generator = torch.Generator().manual_seed(0)
    luma_steps = torch.arange(2.0, 66.0)
    chroma_steps = torch.arange(70.0, 6.0, -1)
    log_q = torch.stack([luma_steps, chroma_steps]).log()
    index = torch.randint(-2, 3, (1, 16, 64), generator=generator) / torch.arange(1, 65).sqrt()
    luma = index.round() * luma_steps
    cb, cr = (torch.zeros(1, 4, 64) for _ in range(2))
    cb[..., 0], cr[..., 0] = 2 * chroma_steps[0], -chroma_steps[0]
    pixels = from_coefficients([luma, cb, cr], 32, 32, "4:2:0")
    assert pixels.min() > 0
    assert pixels.max() < 255
    theirs = kornia.enhance.jpeg_codec_differentiable(
        pixels / 255,
        torch.tensor([50.0]),
        luma_steps.view(8, 8),
        chroma_steps.view(8, 8),
    )
    ours = JPEG(pixels, log_q, torch.tensor(5.0), "soft", "4:2:0")
    assert (ours - pixels).abs().max() < 0.05
    assert (255 * theirs - ours).abs().max() < 1
    with pytest.raises(AssertionError):  # with another table it would not
        assert (JPEG(pixels, log_q.flip(1), torch.tensor(5.0), "soft", "4:2:0") - pixels).abs().max() < 5


@pytest.mark.parametrize(
    ("pixels", "log_q", "subsampling", "message"),
    [
        ((3, 8, 8), (2, 64), "4:4:4", "pixels has shape"),
        ((1, 1, 8, 8), (2, 64), "4:4:4", "pixels has shape"),
        ((1, 3, 0, 8), (2, 64), "4:4:4", "pixels has shape"),
        ((1, 3, 8, 8), (64,), "4:4:4", "log_q has shape"),
        ((1, 3, 8, 8), (4, 64), "4:4:4", "log_q has shape"),
        ((1, 3, 8, 8), (2, 8, 8), "4:4:4", "log_q has shape"),
        ((1, 3, 8, 8), (2, 64), "4:3:2", "subsampling is '4:3:2', expected one of 4:4:4"),
    ],
)
def test_what_does_not_fit_is_refused(
    pixels: tuple[int, ...], log_q: tuple[int, ...], subsampling: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        JPEG(torch.zeros(pixels), torch.zeros(log_q), SOFT, "soft", subsampling)
