"""Winograd's convolution against torch in float64."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import CALLS, Call, truth  # noqa: E402

from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.winograd import LargeWinograd, Winograd  # noqa: E402

KINDS = pytest.mark.parametrize("kind", [Winograd, LargeWinograd])


@KINDS
@given(
    channels=st.integers(1, 5), filters=st.integers(1, 5),
    size=st.tuples(st.integers(1, 12), st.integers(1, 20)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    call=CALLS,
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_results_are_those_of_torch(
    kind: type[Winograd],
    channels: int,
    filters: int,
    size: tuple[int, int],
    padding: tuple[int, int],
    more: tuple[int, int],
    call: Call,
) -> None:
    needed = [max(0, 3 - n - p) for n, p in zip(size, padding, strict=True)]
    ends = (needed[0] + more[0], needed[1] + more[1])
    geometry = Geometry(8 * channels, *size, 8 * filters, (3, 3), (1, 1), padding, ends)
    call.check(kind, geometry)


@KINDS
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "height", "filters"), [(96, 61, 24), (64, 7, 304), (16, 80, 16)])
def test_work_is_divided_without_a_gap(
    kind: type[Winograd], threads: int, channels: int, height: int, filters: int
) -> None:
    geometry = Geometry(channels, height, 62, filters, (3, 3), (1, 1), (1, 1))
    x, weights = torch.randn(2, channels, height, 62), torch.randn(filters, channels, 3, 3)
    y = kind(geometry, weights, None)(x, threads)
    expected = truth(x, geometry, weights, None)
    assert float((y - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(8, 6, 9, 8, (3, 3), groups=8),
        Geometry(8, 6, 9, 8, (3, 3), (2, 1)),
        Geometry(8, 6, 9, 8, (1, 3)),
        Geometry(4, 6, 9, 8, (3, 3)),
        Geometry(8, 6, 9, 12, (3, 3)),
    ],
)
def test_other_kinds_of_layers_are_refused(geometry: Geometry) -> None:
    weights = torch.randn(geometry.filters, geometry.channels // geometry.groups, *geometry.kernel)
    with pytest.raises(ValueError, match="is not for Winograd's kernel"):
        Winograd(geometry, weights, None)
