"""The JPEG layer against real files, scipy's DCT, and the definition of its quantizer."""

import io
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import load, save  # noqa: E402
from tiny import layer_pixels as pixels  # noqa: E402
from tiny import layer_steps as steps  # noqa: E402
from tiny import luma_coefficients, pictures, published_layer  # noqa: E402
from torch import Tensor  # noqa: E402

from dnnjpeg import encode  # noqa: E402
from dnnjpeg.learn.jpegdl import JPEGLayer  # noqa: E402
from dnnjpeg.soft.jpeg import DifferentiableJPEG  # noqa: E402
from dnnjpeg.table.library import load_table, standard_table  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

POINT = OperatingPoint(50, "4:4:4", tuple(range(3, 67)), (tuple(range(70, 6, -1)), tuple(range(9, 73))))


def array_of(decoded: Tensor) -> np.ndarray:
    return decoded.detach().permute(0, 2, 3, 1).numpy()


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def test_soft_is_the_codec_of_the_learner() -> None:
    layer = JPEGLayer(steps(), kappa=6)
    expected = DifferentiableJPEG()(pixels(), torch.tensor(steps()).float().log(), torch.tensor(math.log(6)))
    torch.testing.assert_close(layer(pixels()), expected)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 32),
    width=st.integers(1, 32),
    seed=st.integers(0, 99),
    tables=st.integers(1, 3),
    levels=st.sampled_from([None, 255, 31, 3]),
    rounds=st.integers(1, 3),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0", "4:1:1"]),
    least=st.sampled_from([1.0, 1e-4]),
)
# where coefficients are halfway between two indices
@example(height=7, width=11, seed=2, tables=2, levels=None, rounds=3, subsampling="4:2:0", least=1.0)
@example(height=22, width=31, seed=87, tables=1, levels=None, rounds=3, subsampling="4:4:4", least=1.0)
def test_files_hold_what_the_layer_gives(
    height, width, seed, tables, levels, rounds, subsampling, least
) -> None:
    first = steps(seed, tables) if least == 1 else steps(seed, tables) / 40
    layer = JPEGLayer(first, levels=levels, least=least, rounds=rounds, subsampling=subsampling)
    with torch.no_grad():
        layer.log_q += torch.randn(layer.log_q.shape, generator=torch.Generator().manual_seed(seed)) / 4
    layer.clamp_()
    layer.form = "file"
    given = pixels(1, height, width)
    real = decode(layer.encode(array_of(given)[0].astype(np.uint8)))
    assert np.array_equal(array_of(layer(given))[0], real)


@pytest.mark.parametrize(
    "options", [{}, {"levels": 255}, {"levels": 31, "least": 1e-4}, {"levels": 4095, "least": 1e-4}]
)
def test_files_are_those_of_the_table(options: dict[str, float], tmp_path: Path) -> None:
    first = steps() / 40 if "least" in options else steps()
    JPEGLayer(first, **options).to_table("mine").save(tmp_path / "mine.json")
    again = JPEGLayer.from_point(load_table(tmp_path / "mine.json").points[0])
    for picture in pictures(3):
        data = JPEGLayer(first, **options).encode(picture)
        assert data == encode(picture, again.points()[0])
        assert again.encode(picture) == data


def test_limits_of_no_layer_are_refused() -> None:
    for max_index in ([7, 9, 9], [None, 7, 7]):
        with pytest.raises(ValueError, match="no number of levels gives the point's max_index: give levels"):
            JPEGLayer.from_point(replace(POINT, max_index=max_index))
    assert JPEGLayer.from_point(replace(POINT, max_index=7)).levels == 15
    ones = replace(POINT, luma=(1,) * 64, max_index=[[5, *[9] * 63], 9, 9])
    layer = JPEGLayer.from_point(ones, integer_steps=True)
    assert layer.levels == 19 and layer.least == pytest.approx(5 / 9)
    assert layer.points()[0].max_index == ((5, *(9,) * 63), 9, 9)


def test_levels_cut_coefficients_off() -> None:
    """Of a bright picture, what is left of DC is 3 steps."""
    bright = torch.full((1, 3, 16, 16), 250.0)
    for form in ("soft", "hard", "file"):
        layer = JPEGLayer(np.full((2, 64), 20.0), levels=7, kappa=50)
        layer.form = form
        assert layer(bright).mean().item() == pytest.approx(128 + 3 * 20 / 8, abs=0.51)
    layer.form = "file"
    assert np.array_equal(
        decode(layer.encode(np.full((16, 16, 3), 250, np.uint8))), array_of(layer(bright))[0]
    )


@pytest.mark.parametrize("levels", [None, 9])
def test_bits_are_those_of_the_files(levels: int | None) -> None:
    layer = JPEGLayer.from_point(standard_table().at(70), levels=levels)
    found = layer.bits(pixels(12)) / 8
    (point,) = layer.points()
    real = [len(encode(picture, point, signature=False)) for picture in pictures(12)]
    assert found.mean().item() == pytest.approx(np.mean(real), rel=0.04)
    found.mean().backward()
    assert layer.log_q.grad[0].sum() < 0
    with pytest.raises(ValueError, match="2 rounds"):
        JPEGLayer(rounds=2).bits(pixels(1))


@pytest.mark.parametrize("form", ["soft", "hard", "file"])
def test_integers_for_steps_below_1_have_the_same_bounds(form: str) -> None:
    """A quarter, 127 times, is 32 times 1: of a bright picture that much of DC is left."""
    bright = torch.full((1, 3, 16, 16), 250.0)
    layer = JPEGLayer(np.full((2, 64), 0.25), alpha=5, levels=255, least=1e-5, integer_steps=True)
    layer.form = form
    out = layer(bright)
    assert out.mean().item() == pytest.approx(128 + 32 / 8, abs=1e-4 if form != "file" else 0.01)
    assert layer.log_kappa().exp().unique().tolist() == pytest.approx([5])  # of steps of 1
    out.mean().backward()
    moved = layer.log_q.grad[0]
    assert moved[0, 0] > 0.9 and moved[0, 1:].abs().max() < 1e-6  # the bound by the step
    assert set(layer.points()[0].luma) == {1}


def test_steps_below_1_are_trained_as_files_hold_them() -> None:
    soft = JPEGLayer(steps() / 1000, alpha=5, levels=255, least=1e-5, integer_steps=True)
    given = array_of(pixels(1))[0]
    real = decode(soft.encode(given.astype(np.uint8)))
    assert np.abs(array_of(soft(pixels(1)))[0] - real).mean() < 1
    assert np.abs(given - real).mean() > 5
    soft.form = "hard"
    apart = (soft.frozen()(pixels()) - soft(pixels())).abs() > 1e-3
    assert apart.float().mean() < 0.01


@pytest.mark.parametrize("alpha", [0.01, 5.0])
def test_as_published(alpha: float) -> None:
    """Pixels beyond 0..255 stay, other steps clip what is strong, and five indices are all there are."""
    first = steps()
    first[:, 20:40] = 1e-4
    layer = JPEGLayer(first, alpha=alpha, levels=255, least=1e-5, published=True)
    given = ((pixels() - 128) * 6 + 128).clamp(0, 255)
    expected = published_layer(given.double(), layer.q[0].detach().double(), alpha)
    assert expected.max() > 256 and expected.min() < -1
    apart = (layer(given) - expected).abs()
    assert apart.mean() < 0.01 and apart.max() < 0.3  # weights of colours are rounded, and alpha is hard
    for form in ("hard", "sampled"):
        layer.form = form
        assert layer(given).max() > 256
    layer.form = "hard"
    apart = (layer.frozen()(given) - layer(given)).abs() > 1e-3
    assert apart.float().mean() < 0.01
    layer.form = "file"
    picture = given[0].permute(1, 2, 0).byte().numpy()
    assert np.array_equal(decode(layer.encode(picture)), array_of(layer(given[:1].floor()))[0])
    assert "published=True" in repr(layer)


def test_clip_without_quantization() -> None:
    """κ = 1 leaves coefficients as they are, within the limit."""
    picture = pictures(1)[0]
    grey = np.repeat(picture.mean(2, keepdims=True).round(), 3, axis=2)
    layer = JPEGLayer(np.full((1, 64), 3.0), kappa=1, levels=21)
    after = array_of(layer(torch.from_numpy(grey).permute(2, 0, 1)[None].float()))[0]
    assert np.abs(luma_coefficients(after) - luma_coefficients(grey).clip(-30, 30)).max() < 0.05
    assert np.abs(luma_coefficients(grey)).max() > 60


def test_integer_steps_are_those_of_files() -> None:
    layer, real = JPEGLayer(steps(), integer_steps=True, kappa=6), JPEGLayer(steps(), kappa=6)
    rounded = JPEGLayer(steps().round(), kappa=6)
    torch.testing.assert_close(layer(pixels()), rounded(pixels()), atol=1e-2, rtol=0)
    assert (layer(pixels()) - real(pixels())).abs().max() > 0.1
    layer(pixels()).square().mean().backward()
    assert (layer.log_q.grad != 0).any()
    layer.form = "hard"
    torch.testing.assert_close(layer.frozen()(pixels()), layer(pixels()), atol=1e-3, rtol=0)


def test_rounds_are_one_after_the_other() -> None:
    both = JPEGLayer(steps(), rounds=2)
    with torch.no_grad():
        both.log_q[1] += 0.5
    first, second = JPEGLayer(steps()), JPEGLayer(both.log_q[1].detach().exp().numpy())
    torch.testing.assert_close(both(pixels()), second(first(pixels())))


@pytest.mark.parametrize("hardness", [{"kappa": 4.0}, {"alpha": 0.3}])
def test_derivatives_by_hardness(hardness: dict[str, float]) -> None:
    layer = JPEGLayer(np.full((2, 64), 5.0), learn_hardness=True, **hardness).double()
    weight = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss() -> Tensor:
        return (layer(pixels().double()) * weight).sum()

    loss().backward()
    found = layer.log_hardness.grad.sum().item()
    values = []
    for change in (1e-4, -2e-4):
        with torch.no_grad():
            layer.log_hardness += change
        values.append(loss().item())
    assert found == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)


def test_alpha_is_kappa_by_step() -> None:
    layer = JPEGLayer(steps(), alpha=0.05)
    expected = (0.05 * steps() ** 2).clip(1, 1e4)
    assert np.allclose(layer.log_kappa()[0].detach().exp().numpy(), expected, rtol=1e-5)
    layer(pixels()).sum().backward()
    assert torch.isfinite(layer.log_q.grad).all() and (layer.log_q.grad != 0).any()


def test_sampled_is_between_neighbours() -> None:
    layer = JPEGLayer(np.full((2, 64), 12.0), kappa=3)
    layer.form = "sampled"
    torch.manual_seed(0)
    one, other = layer(pixels()), layer(pixels())
    assert not torch.equal(one, other)
    mean = torch.stack([layer(pixels()) for _ in range(200)]).mean(0)
    layer.form = "soft"
    assert (mean - layer(pixels())).abs().mean() < 0.6


def test_learned_hardness_stays_where_it_can_be_learned() -> None:
    """Beyond its bounds κ would have no gradient, and never come back."""
    layer = JPEGLayer(np.full((2, 64), 6.0), learn_hardness=True)
    with torch.no_grad():
        layer.log_hardness[0, 0] -= 100
        layer.log_hardness[0, 1] += 100
    layer.clamp_()
    assert layer.log_hardness.exp()[0].mean(1).tolist() == pytest.approx([1, 1e4], rel=1e-4)
    layer(pixels()).square().mean().backward()
    assert (layer.log_hardness.grad[0, 0] != 0).any()


def test_tables_in_and_out() -> None:
    layer = JPEGLayer.from_point(POINT, levels=255, rounds=2)
    assert layer.subsampling == "4:4:4" and layer.levels == 255
    for point in layer.points():
        assert point.tables == POINT.tables and point.subsampling == "4:4:4"
    table = layer.to_table("mine", which=1, description="of a test", provenance={"seed": 0})
    assert table.points[0].luma == POINT.luma and table.description == "of a test"
    soft = OperatingPoint(50, "4:2:0", (10,) * 64, ((20,) * 64,), [7.0, [None] * 63 + [3.0]])
    kappas = JPEGLayer.from_point(soft).log_kappa()[0].exp()
    assert torch.allclose(kappas[0], torch.tensor(7.0))
    assert kappas[1].tolist() == pytest.approx([1e4] * 63 + [3.0], rel=1e-4)
    assert torch.equal(JPEGLayer.from_point(soft, kappa=None, alpha=None).log_kappa()[0].exp(), kappas)
    assert JPEGLayer.from_point(soft, kappa=5).log_kappa().exp().unique().tolist() == pytest.approx([5])


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 1e4), min_size=64, max_size=64))
def test_points_are_steps_that_files_hold(values: list[float]) -> None:
    layer = JPEGLayer([values], least=1e-5)
    (point,) = layer.points()
    expected = np.array(values).clip(1e-5, 255).astype(np.float32).round().clip(1, 255)
    assert np.abs(np.array(point.luma) - expected).max() <= (np.abs(expected % 1 - 0.5) < 1e-3).any() + 1


def test_whole_in_the_state_dict() -> None:
    layer = JPEGLayer(steps(), alpha=0.2, levels=255, least=0.5, subsampling="4:2:0")
    layer.form = "hard"
    other = JPEGLayer()
    other.load_state_dict(load(save({k: v.contiguous() for k, v in layer.state_dict().items()})))
    assert torch.equal(other(pixels()), layer(pixels()))
    assert (other.levels, other.least, other.form, other.is_alpha) == (255, 0.5, "hard", True)
    assert not other.integer_steps
    assert {tensor.device.type for tensor in layer.to("meta").state_dict().values()} == {"meta", "cpu"}


def test_steps_stay_within_bounds() -> None:
    layer = JPEGLayer(steps(), least=2)
    with torch.no_grad():
        layer.log_q[0, 0] -= 100
        layer.log_q[0, 1] += 100
    layer.clamp_()
    assert layer.log_q.exp()[0].amin(1).tolist() == pytest.approx([2, 255])


def test_keeps_no_more_than_the_pictures_and_a_half() -> None:
    given = torch.rand(8, 3, 128, 128) * 255
    for options in ({}, {"levels": 255, "alpha": 5}):
        layer, kept = JPEGLayer(steps(), **options), {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.setdefault(x.untyped_storage().data_ptr(), x), lambda x: x
        ):
            layer(given)
        assert sum(x.untyped_storage().nbytes() for x in kept.values()) < 1.5 * given.nbytes


def test_autocast_changes_nothing() -> None:
    layer = JPEGLayer(steps())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(pixels()), layer.double().float()(pixels()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kappa": 5, "alpha": 5}, "both given"),
        ({"kappa": 0}, "kappa is 0, expected a number above 0"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"least": -1}, "least is -1"),
        ({"least": 256}, "least is 256, expected at most 255"),
        (
            {"least": 0.5, "integer_steps": True},
            "least is 0.5, expected at least 1, .*: raise it, or give levels",
        ),
        ({"levels": 256}, "levels is 256, expected an odd number"),
        ({"levels": 1}, "levels is 1"),
        ({"rounds": 0}, "rounds is 0"),
        ({"subsampling": "4:1:0"}, "subsampling is '4:1:0'"),
        ({"steps": np.ones((4, 64))}, r"\(4, 64\), expected 1 to 3 tables x 64"),
        ({"steps": np.ones(64)}, "expected 1 to 3 tables"),
        ({"steps": [[1] * 64, [1] * 63]}, r"steps is \[\[1, .*\], expected 1 to 3 tables x 64"),
        ({"steps": ["a"]}, r"steps is \['a'\], expected 1 to 3 tables x 64"),
        ({"steps": np.zeros((2, 64))}, "not above 0"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        JPEGLayer(**arguments)


@pytest.mark.parametrize("levels", [None, 255])
@pytest.mark.parametrize(
    "picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), "u1")]
)
def test_files_are_of_8_bit_rgb(levels: int | None, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 H x W x 3"):
        JPEGLayer(levels=levels).encode(picture)


def test_unknown_form() -> None:
    layer = JPEGLayer()
    layer.form = "firm"
    with pytest.raises(ValueError, match="form is 'firm', expected one of soft, sampled, hard, file"):
        layer(pixels())


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, 1.0, "look scaled.*multiply them by 255"),
        (-2.1, 2.6, "look normalised.*before the normalisation"),
    ],
)
def test_pixels_in_another_range_are_noticed_once(low: float, high: float, message: str) -> None:
    numbers = low + (high - low) * torch.rand(2, 3, 16, 16)
    layer = JPEGLayer()
    with pytest.warns(UserWarning, match=message):
        layer(numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(numbers)
        JPEGLayer()(torch.zeros(1, 3, 16, 16))  # black
        JPEGLayer()(255 * torch.rand(1, 3, 16, 16) - 4)  # attacked
