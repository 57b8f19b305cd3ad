"""What a network is shown: against Pillow, in whole steps and as matrices."""

import numpy as np
import pytest
from drawing import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg.files.view import FILTERS, View
from dnnjpeg.networks.preprocess import Preprocess

SIDES = st.integers(1, 300)
VIEWS = st.builds(
    lambda size, more, kind: View(size, None if more is None else size + more, kind),
    st.integers(1, 60),
    st.none() | st.integers(0, 20),
    st.sampled_from(sorted(FILTERS)),
)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, VIEWS)
def test_matrices_are_what_pillow_does(width: int, height: int, view: View) -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (height, width)).astype(np.float32)
    down, across = view.matrices(width, height)
    expected = np.asarray(view.show(Image.fromarray(plane)))
    np.testing.assert_allclose(down @ plane @ across.T, expected, atol=0.1)


@pytest.mark.parametrize("kind", sorted(FILTERS))
@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (80, 60), (227, 227), (60, 1000)])
def test_resize_and_centre_crop(kind: str, width: int, height: int) -> None:
    """As torchvision's Resize(40) and CenterCrop(32) on a PIL image: whole sides, then whole corners."""
    image = Image.fromarray(draw(width, height))
    short = min(width, height)
    wide, high = int(40 * width / short), int(40 * height / short)
    left, top = round((wide - 32) / 2.0), round((high - 32) / 2.0)
    usual = image.resize((wide, high), FILTERS[kind]).crop((left, top, left + 32, top + 32))
    shown = np.asarray(View(32, 40, kind).show(image)).astype(int)
    assert np.abs(shown - np.asarray(usual)).max() <= 1


def test_a_square_of_the_size_is_shown_as_it_is() -> None:
    picture = draw(32, 32)
    for view in (View(32), View(32, 40), View(32, 40, "bilinear")):
        assert view.of(picture) is picture
        np.testing.assert_array_equal(np.asarray(view.show(Image.fromarray(picture))), picture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": 10}, "resize is 10"),
        ({"resize": 40.5}, "resize"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest', expected bilinear or bicubic"),
    ],
)
def test_preprocessing_that_cannot_be(change: dict[str, object], message: str) -> None:
    known = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert Preprocess.of(known | {"resize": 40}).view == View(32, 40)
    with pytest.raises(ValueError, match=message):
        Preprocess.of(known | change)
