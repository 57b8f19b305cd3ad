"""Depthwise convolution against torch in float64."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import CALLS, Call  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from dnnjpeg.sparse.depthwise import Depthwise  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402


@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 4), (1, 3)), ((1, 1), (2, 1))]
)
@given(
    channels=st.integers(1, 70), size=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 4)),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    call=CALLS,
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_results_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    channels: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    call: Call,
) -> None:
    needed = [max(0, k - n - p) for k, n, p in zip(kernel, size, padding, strict=True)]
    ends = (needed[0] + more[0], needed[1] + more[1])
    geometry = Geometry(channels, *size, channels, kernel, stride, padding, ends, groups=channels)
    call.check(Depthwise, geometry)


def test_nan_and_infinity_go_where_they_go_in_torch() -> None:
    geometry = Geometry(20, 6, 9, 20, (3, 3), (1, 1), (1, 1), groups=20)
    x = torch.randn(1, 20, 6, 9)
    x[0, 3, 2, 4], x[0, 17, 5, 8] = torch.nan, -torch.inf
    weights = torch.randn(20, 1, 3, 3)
    y = Depthwise(geometry, weights, None)(x, activation="relu6")
    assert torch.allclose(
        y, F.conv2d(x, weights, padding=1, groups=20).clamp(0, 6), atol=1e-5, equal_nan=True
    )
