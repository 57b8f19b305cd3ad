"""The fast kernel against torch in float64: every tiling, layout, thread count; what it hands on; NaN and
inf.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import geometries, sparse_input, truth, weights_for  # noqa: E402
from torch import Tensor  # noqa: E402

from dnnjpeg.sparse import lists, ring  # noqa: E402
from dnnjpeg.sparse import threads as pools  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.lists import Lists  # noqa: E402
from dnnjpeg.sparse.ring import RingConvolution  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling, tilings  # noqa: E402

# few kernels, as each is compiled; kernel widths, strides and rows in the ring in all their kinds
LAYERS = [
    (Geometry(40, 9, 11, 70, (3, 3), (1, 1), (1, 1)), Tiling(True, 16, 2, 3)),
    (Geometry(40, 9, 11, 70, (3, 3), (1, 1), (1, 1)), Tiling(False, 32, 4, 1)),
    (Geometry(150, 5, 2, 33, (3, 3), (1, 1), (1, 1)), Tiling(True, 128, 1, 1)),
    (Geometry(17, 12, 20, 40, (3, 3), (2, 2), (1, 1)), Tiling(True, 32, 4, 1)),
    (Geometry(5, 7, 19, 16, (1, 7), (1, 1), (0, 3)), Tiling(True, 16, 1, 1)),
    (Geometry(5, 4, 3, 16, (1, 7), (1, 1), (0, 3)), Tiling(True, 16, 1, 1)),  # both ends of a row at once
    (Geometry(20, 19, 7, 20, (7, 1), (1, 1), (3, 0)), Tiling(True, 16, 2, 7)),
    # rows and columns change places
    (Geometry(20, 19, 7, 20, (7, 1), (1, 1), (3, 0)), Tiling(True, 16, 2, turned=True)),
    (Geometry(20, 9, 6, 32, (5, 1), (2, 1), (1, 0), (2, 0)), Tiling(False, 32, 2, turned=True)),
    (Geometry(17, 3, 5, 33, (3, 1), (1, 2), (1, 2)), Tiling(True, 16, 1, turned=True)),
    (Geometry(16, 8, 8, 100, (1, 1)), Tiling(True, 64, 8, 1)),
    (Geometry(16, 9, 8, 30, (1, 1), (2, 3)), Tiling(False, 16, 1, 1)),
    (Geometry(3, 30, 31, 64, (7, 7), (2, 2), (3, 3)), Tiling(True, 16, 1, 1)),
    (Geometry(1, 4, 4, 1, (4, 4)), Tiling(True, 16, 1, 4)),
    # channels that fill a block: the pixels of a row are packed as one
    (Geometry(16, 5, 7, 20, (3, 3), (1, 1), (1, 1)), Tiling(True, 16, 2, 3)),
    (Geometry(32, 5, 6, 32, (3, 3), (2, 2), (1, 1)), Tiling(True, 32, 2, 1)),
    # filters that fill their vectors: sums go straight to the map
    (Geometry(40, 9, 21, 64, (3, 3), (1, 1), (1, 1)), Tiling(False, 16, 4, 1)),
    (Geometry(20, 13, 14, 32, (3, 3), (2, 2), (1, 1)), Tiling(True, 32, 2, 1)),
    (Geometry(20, 6, 23, 32, (3, 3), (1, 1), (1, 1)), Tiling(True, 16, 2, 3)),
    # rows of the output that read padding only
    (Geometry(18, 3, 9, 32, (2, 3), (1, 1), (4, 5)), Tiling(True, 16, 2, 2)),
    (Geometry(18, 4, 3, 16, (1, 1), (3, 1), (3, 2)), Tiling(False, 16, 1, 1)),
]


def close(y: Tensor, expected: Tensor) -> bool:
    return float((y - expected).abs().max()) <= 1e-5 * max(1e-30, float(expected.abs().max()))


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share what would not be worth it."""
    for module in (ring, lists):
        monkeypatch.setattr(module, "SHARED", -1)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(("geometry", "tiling"), LAYERS, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_layers(geometry: Geometry, tiling: Tiling, threads: int) -> None:
    weights, bias = weights_for(geometry, 0), torch.linspace(-1, 1, geometry.filters)
    layer = RingConvolution(geometry, weights, bias, tiling, threads=threads)
    rectified = RingConvolution(geometry, weights, bias, tiling, threads=threads, activation="relu6")
    for zeros in (0, 0.5, 0.97, 1):
        for batch, last, out_last in ((1, True, True), (3, False, False), (2, True, False), (2, False, True)):
            x = sparse_input(geometry, zeros, batch, last, batch)
            lists = layer.compress(x)
            assert lists.nonzeros == int((x != 0).sum())
            assert lists.zeros == pytest.approx(float((x == 0).float().mean()))
            expected = truth(x, geometry, weights, bias)
            y, _ = layer.convolve(lists, channels_last=out_last)
            assert y is not None and y.shape == expected.shape and close(y, expected)
            assert y.is_contiguous(memory_format=torch.channels_last if out_last else torch.contiguous_format)
            y, _ = rectified.convolve(lists, channels_last=out_last)
            assert y is not None and close(y, expected.clamp(0, 6))
            residual = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
            y, _ = rectified.convolve(lists, channels_last=out_last, residual=residual)
            assert y is not None and close(y, (expected + residual).clamp(0, 6))


@given(geometry=geometries(channels=70, filters=90, size=12, stride=2), zeros=st.sampled_from([0, 0.5, 0.9]),
       seed=st.integers(0, 99), data=st.data())  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_any_geometry(geometry: Geometry, zeros: float, seed: int, data: st.DataObject) -> None:
    """In tilings whose kernels are few: one vector of filters, one kernel row in the ring."""
    tiling = Tiling(False, data.draw(st.sampled_from([16, 64])), 1, 1, data.draw(st.booleans()))
    x, weights = sparse_input(geometry, zeros, 1, True, seed), weights_for(geometry, seed)
    layer = RingConvolution(geometry, weights, None, tiling)
    y, _ = layer.convolve(layer.compress(x))
    assert y is not None and close(y, truth(x, geometry, weights))


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("patterns", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_lists_for_the_next_layer(patterns: bool, threads: int) -> None:
    """They are those that would be made of the dense map, which is not needed for them."""
    geometry = Geometry(16, 10, 13, 90, (3, 3), (1, 1), (1, 1))
    following = Geometry(90, 10, 13, 20, (3, 3), (1, 1), (1, 1))
    first = RingConvolution(
        geometry, weights_for(geometry, 0), None, Tiling(True, 16, 2, 3), activation="relu", threads=threads
    )
    onward = Tiling(patterns, 32, 2, 1)
    second = RingConvolution(following, weights_for(following, 1), None, onward, threads=threads)
    assert first.tiling.can_feed(onward) and not first.tiling.can_feed(Tiling(patterns, 64, 2, 1))
    x = sparse_input(geometry, 0.5, 2, True, 0)
    y, none = first.convolve(first.compress(x))
    assert none is None and y is not None
    absent, lists = first.convolve(first.compress(x), onward=onward, dense=False)
    assert absent is None and isinstance(lists, Lists)
    assert lists.nonzeros == int((y != 0).sum()) and lists.memory() == second.compress(y).memory()
    z, _ = second.convolve(lists)
    expected, _ = second.convolve(second.compress(y))
    assert z is not None and torch.equal(z, expected)


def test_lists_of_turned_pictures_are_for_layers_that_turn() -> None:
    """A square picture's lists would fit otherwise too."""
    geometry = Geometry(16, 8, 8, 16, (5, 1), (1, 1), (2, 0))
    weights = [weights_for(geometry, seed) for seed in range(2)]
    turned, plain = Tiling(True, 16, 1, turned=True), Tiling(True, 16, 1)
    assert turned.can_feed(turned) and not turned.can_feed(plain) and not plain.can_feed(turned)
    first, second, third = (
        RingConvolution(geometry, kernel, None, tiling)
        for kernel, tiling in ((weights[0], turned), (weights[1], turned), (weights[1], plain))
    )
    x = sparse_input(geometry, 0.5, 2, True, 0)
    y, lists = first.convolve(first.compress(x), activation="relu", onward=turned)
    assert y is not None and lists is not None
    assert second.reads(lists) and not third.reads(lists) and not second.reads(third.compress(y))
    z, _ = second.convolve(lists)
    assert z is not None and close(z, truth(y, geometry, weights[1]))


def test_numbers_that_are_none() -> None:
    """NaN and inf go where torch lets them go; but zero times inf is nothing here, as zeros are not
    multiplied.
    """
    geometry = Geometry(16, 6, 6, 16, (3, 3), (1, 1), (1, 1))
    weights = weights_for(geometry, 0)
    layer = RingConvolution(geometry, weights, None, Tiling(True, 16, 1, 3), activation="relu")
    x = sparse_input(geometry, 0.5, 1, True, 0)
    x[0, 3, 2, 2], x[0, 4, 5, 5] = torch.nan, torch.inf
    y, _ = layer.convolve(layer.compress(x))
    expected = torch.nn.functional.conv2d(x, weights, padding=1).relu()
    assert y is not None
    assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())
    finite = expected.isfinite()
    assert torch.allclose(y[finite], expected[finite], atol=1e-4)
    weights[:, 0, 0, 0] = torch.inf
    layer = RingConvolution(geometry, weights, None, Tiling(True, 16, 1, 3))
    y, _ = layer.convolve(layer.compress(x * 0))
    assert y is not None and (y[..., :2, :2].isnan() | (y[..., :2, :2] == 0)).all()


def test_negative_zero_is_zero_and_the_smallest_number_is_not() -> None:
    geometry = Geometry(16, 3, 3, 16, (1, 1))
    layer = RingConvolution(geometry, weights_for(geometry, 0), None, Tiling(True, 16, 1, 1))
    x = torch.zeros(1, 16, 3, 3).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0], x[0, 1, 0, 0] = -0.0, 1e-45
    assert layer.compress(x).nonzeros == 1


def test_memory_is_smaller_than_that_of_im2col() -> None:
    """At 90 % zeros by more than the 26 times of the paper, in both forms; patterns take less."""
    geometry = Geometry(64, 28, 28, 64, (3, 3), (1, 1), (1, 1))
    x = sparse_input(geometry, 0.9, 1, True, 0)
    elements = {}
    for patterns in (True, False):
        layer = RingConvolution(geometry, weights_for(geometry, 0), None, Tiling(patterns, 64, 2, 1))
        elements[patterns] = layer.compress(x).memory().elements
        assert geometry.im2col_elements > 26 * elements[patterns]
    assert elements[True] < elements[False]


@given(geometry=geometries(channels=300, filters=300), zeros=st.floats(0, 1), patterns=st.booleans())
def test_tilings_fit_the_layer(geometry: Geometry, zeros: float, patterns: bool) -> None:
    found = tilings(geometry, patterns, zeros)
    assert found and len(set(found)) == len(found)
    for tiling in found:
        assert tiling.patterns == patterns and tiling.ring_rows in (1, geometry.kernel[0])
        assert tiling.block in (16, 32, 64, 128) and tiling.filters >= 1
        assert not tiling.turned or geometry.kernel[1] == 1


def test_several_threads_of_python_share_a_layer() -> None:
    from concurrent.futures import ThreadPoolExecutor

    geometry = Geometry(16, 24, 24, 16, (3, 3), (1, 1), (1, 1))
    weights = weights_for(geometry, 0)
    layer = RingConvolution(geometry, weights, None, Tiling(True, 16, 1, 3))
    inputs = [sparse_input(geometry, 0.5, 1, True, seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda x: layer.convolve(layer.compress(x))[0], inputs))
    for x, y in zip(inputs, outputs, strict=True):
        assert y is not None and close(y, truth(x, geometry, weights))


@pytest.mark.usefixtures("shared")
def test_threads_where_torch_has_no_pool_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_openmp", lambda: None)
    geometry = Geometry(16, 24, 24, 16, (3, 3), (1, 1), (1, 1))
    weights = weights_for(geometry, 0)
    x = sparse_input(geometry, 0.5, 2, False, 0)
    for count in (2, 3):
        layer = RingConvolution(geometry, weights, None, Tiling(True, 16, 1, 3), threads=count)
        y, _ = layer.convolve(layer.compress(x))
        assert y is not None and close(y, truth(x, geometry, weights))


def test_few_nonzeros_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes less time than to wake a thread."""
    asked: list[int] = []

    def run(code: object, job: object, threads: int) -> None:
        asked.append(threads)
        pools.run(code, job, threads)

    for module in (ring, lists):
        monkeypatch.setattr(module, "run", run)
    geometry = Geometry(64, 28, 28, 64, (3, 3), (1, 1), (1, 1))
    weights = weights_for(geometry, 0)
    layer = RingConvolution(geometry, weights, None, Tiling(True, 64, 2, 1), threads=2)
    for zeros, expected in ((0.5, [2, 2]), (0.999, [2, 1])):
        asked.clear()
        x = sparse_input(geometry, zeros, 1, True, 0)
        y, _ = layer.convolve(layer.compress(x))
        assert asked == expected and y is not None and close(y, truth(x, geometry, weights))
    asked.clear()
    small = Geometry(16, 24, 24, 16, (1, 1))
    layer = RingConvolution(small, weights_for(small, 0), None, Tiling(True, 16, 1, 1), threads=2)
    layer.convolve(layer.compress(sparse_input(small, 0, 1, True, 0)))
    assert asked == [1, 1]


@pytest.mark.usefixtures("shared")
def test_threads_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP may give fewer than it was asked for: those there are do the work of all."""
    geometry = Geometry(16, 24, 24, 32, (3, 3), (1, 1), (1, 1))
    weights = weights_for(geometry, 0)
    layer = RingConvolution(geometry, weights, None, Tiling(True, 16, 1, 3), threads=3)
    x = sparse_input(geometry, 0.5, 2, False, 0)
    for module in (ring, lists):
        monkeypatch.setattr(module, "run", lambda code, job, threads: pools.run(code, job, threads - 1))
    y, _ = layer.convolve(layer.compress(x))
    assert y is not None and close(y, truth(x, geometry, weights))
