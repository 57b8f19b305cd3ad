"""Quality by picture: the law in numbers, and the same file wherever it is asked for."""

import io
import math

import cv2
import numpy as np
import pytest
from drawing import draw
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transcoding import unsigned

from dnnjpeg import OperatingPoint, encode, inspect
from dnnjpeg.adaptive import DOUBT, USUAL_BITS, USUAL_DIVERGENCE, adapted_quality
from dnnjpeg.codec.pixels import _from_array
from dnnjpeg.jpeg.standard import ijg_factor
from dnnjpeg.plugins.opencv import imencode

PICTURE = draw(72, 56, 3)
FLAT = np.full((56, 72, 3), 90, np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (56, 72, 3), np.uint8)


def quality_of(data: bytes) -> float:
    quality = inspect(data).made_by.split()[-1]
    return float(quality)


@given(quality=st.floats(1, 100), bits=st.floats(0.01, 30))
def test_steps_grow_with_the_root_of_the_bits(quality, bits):
    found = adapted_quality(quality, bits)
    wanted = ijg_factor(quality) * np.sqrt(bits / USUAL_BITS)
    finer, coarser = ijg_factor(min(found + 1, 100)), ijg_factor(max(found - 1, 1))
    assert finer <= wanted or found == 100
    assert wanted <= coarser or found == 1
    assert adapted_quality(quality, 2 * bits) <= found <= adapted_quality(quality, bits / 2)


@given(quality=st.integers(1, 100))
def test_the_usual_picture_keeps_its_quality(quality):
    assert adapted_quality(quality, USUAL_BITS) == quality


def restrained(factor: float, change: float) -> float:
    """By bisection."""
    low, high = -5.0, 5.0
    for _ in range(60):
        x = (low + high) / 2
        excess = x + (factor / 250) ** 4 * (math.exp(4 * x) - 1) / 4 - change
        low, high = (low, x) if excess > 0 else (x, high)
    return math.exp(low)


@given(quality=st.integers(1, 100), bits=st.floats(0.01, 30), lost=st.floats(0, 20))
def test_steps_shrink_as_the_divergence_grows(quality, bits, lost):
    usual = USUAL_DIVERGENCE - DOUBT
    assert adapted_quality(quality, bits, usual) == adapted_quality(quality, bits)
    found = adapted_quality(quality, bits, lost)
    factor = ijg_factor(quality)
    wanted = factor * (bits / 0.58) ** 0.5 * restrained(factor, -0.6 * math.log((lost + 0.06) / 0.43))
    assert ijg_factor(min(found + 1, 100)) <= 1.0001 * wanted or found == 100
    assert wanted <= 1.0001 * ijg_factor(max(found - 1, 1)) or found == 1
    assert found <= adapted_quality(quality, bits, 2 * lost)


@pytest.mark.parametrize("quality", [60, 90, 98])
def test_fine_steps_shrink_with_a_power_of_the_divergence(quality):
    factor = ijg_factor(quality) * (1.06 / 0.43) ** -0.6
    assert adapted_quality(quality, USUAL_BITS, 1.0) == pytest.approx(100 - factor / 2, abs=0.7)


def test_a_little_lost_in_the_coarse_file_is_much_in_a_coarser_one():
    assert [adapted_quality(quality, USUAL_BITS, 0.0) for quality in (10, 20, 50)] == [9, 14, 20]


@pytest.mark.parametrize("quality", [10, 50, 75, 90])
def test_it_is_another_quality(quality):
    found = [encode(picture, quality=quality, adaptive=True) for picture in (FLAT, PICTURE, NOISE)]
    qualities = [quality_of(data) for data in found]
    assert qualities[0] > quality > qualities[2]
    assert qualities == sorted(qualities, reverse=True)
    for picture, data, own in zip((FLAT, PICTURE, NOISE), found, qualities, strict=True):
        assert unsigned(data) == encode(picture, quality=own, signature=False)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_pictures(mode):
    image = Image.fromarray(NOISE).convert(mode)
    data = encode(image, quality=60, adaptive=True)
    assert quality_of(data) < 60
    assert unsigned(data) == encode(image, quality=quality_of(data), signature=False)


def test_a_picture_is_made_pixels_once(monkeypatch):
    """An array whose rows cannot be read in place is copied for it."""
    made = []

    def make(array, mode):
        made.append(mode)
        return _from_array(array, mode)

    monkeypatch.setattr("dnnjpeg.codec.pixels._from_array", make)
    turned = NOISE.swapaxes(0, 1)
    data = encode(turned, quality=60, mode="BGR", adaptive=True)
    assert made == ["BGR"]
    assert unsigned(data) == encode(turned.copy(), quality=quality_of(data), mode="BGR", signature=False)


def test_other_options_have_no_say_in_the_quality():
    plain = quality_of(encode(NOISE, quality=50, adaptive=True))
    for options in ({"subsampling": "4:4:4"}, {"progressive": True}, {"hardness": 20}, {"threads": 3}):
        assert quality_of(encode(NOISE, quality=50, adaptive=True, **options)) == plain


def test_plugins():
    expected = encode(NOISE, "resnet18", quality=50, adaptive=True)
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "DNNJPEG", model="resnet18", quality=50, adaptive=True)
    assert file.getvalue() == expected
    params = [cv2.IMWRITE_JPEG_QUALITY, 50]
    _, data = imencode(".jpg", NOISE[..., ::-1], params, model="resnet18", adaptive=True)
    assert data.tobytes() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"table": OperatingPoint(50, "4:2:0", (9,) * 64, ((9,) * 64,))},
            "adaptive=True needs a Table, not an OperatingPoint",
        ),
        ({"abbreviated": True}, "adaptive gives each picture its own tables"),
        ({"quality": 0}, "quality is 0"),
        ({"quality": float("nan")}, "quality is nan"),
        ({"adaptive": "yes"}, "adaptive is 'yes'"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        encode(PICTURE, **{"adaptive": True, **options})
