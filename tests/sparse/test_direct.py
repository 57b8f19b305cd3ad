"""Direct dense convolution against torch in float64."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import CALLS, Call, truth  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse.direct import Direct  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402


@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((3, 3), (1, 1)), ((5, 4), (1, 3))]
)
@given(
    channels=st.integers(1, 20), filters=st.sampled_from([16, 24, 32, 37]),
    size=st.tuples(st.integers(1, 12), st.integers(20, 40)),
    padding=st.sampled_from([(0, 0), (1, 2), (2, 4)]),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    call=CALLS,
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_results_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    channels: int,
    filters: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    call: Call,
) -> None:
    ends = (max(0, kernel[0] - size[0] - padding[0]) + more[0], more[1])
    geometry = Geometry(channels, *size, filters, kernel, stride, padding, ends)
    call.check(Direct, geometry)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "height", "filters"), [(96, 60, 24), (64, 7, 300), (9, 80, 32)])
def test_work_is_divided_without_a_gap(threads: int, channels: int, height: int, filters: int) -> None:
    for kernel, padding in (((1, 1), (0, 0)), ((3, 3), (1, 1))):
        geometry = Geometry(channels, height, 61, filters, kernel, (1, 1), padding)
        x, weights = torch.randn(2, channels, height, 61), torch.randn(filters, channels, *kernel)
        y = Direct(geometry, weights, None)(x, threads)
        expected = truth(x, geometry, weights, None)
        assert float((y - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(("width", "filters"), [(1, 37), (3, 8)])
def test_rows_shorter_than_a_tile(width: int, filters: int) -> None:
    geometry = Geometry(5, 4, width, filters, (3, 3), (1, 1), (1, 1))
    x, weights = torch.randn(2, 5, 4, width), torch.randn(filters, 5, 3, 3)
    expected = truth(x, geometry, weights, None)
    y = Direct(geometry, weights, None)(x)
    assert float((y - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_nan_and_infinity_go_where_they_go_in_torch() -> None:
    geometry = Geometry(3, 6, 9, 20, (3, 3), (1, 1), (1, 1))
    x = torch.randn(1, 3, 6, 9)
    x[0, 2, 2, 4], x[0, 1, 5, 8] = torch.nan, -torch.inf
    weights = torch.randn(20, 3, 3, 3)
    y = Direct(geometry, weights, None)(x, activation="relu6")
    assert torch.allclose(y, F.conv2d(x, weights, padding=1).clamp(0, 6), atol=1e-5, equal_nan=True)


def test_what_does_not_fit_is_refused() -> None:
    geometry = Geometry(4, 6, 9, 4, (3, 3), groups=4)
    with pytest.raises(ValueError, match="groups"):
        Direct(geometry, torch.randn(4, 1, 3, 3), None)
    layer = Direct(Geometry(4, 6, 9, 8, (1, 1)), torch.randn(8, 4, 1, 1), None)
    with pytest.raises(ValueError, match="the input is"):
        layer(torch.randn(1, 4, 6, 8))
    with pytest.raises(ValueError, match="the residual is"):
        layer(torch.randn(1, 4, 6, 9), residual=torch.randn(1, 8, 6, 8))
