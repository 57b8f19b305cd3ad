"""im2col, MEC, CPO and CPS: their structures as published, their results as torch's in float64."""

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import geometries, sparse_input, truth, weights_for  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dnnjpeg.sparse import cpo, cps, im2col, mec  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402

ALGORITHMS = [im2col, mec, cpo, cps]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda module: module.__name__.rpartition(".")[2])
@given(geometry=geometries(), zeros=st.sampled_from([0, 0.3, 0.8, 1]), batch=st.integers(1, 3),
       last=st.booleans(), seed=st.integers(0, 99))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_results_are_those_of_torch(
    algorithm: ModuleType, geometry: Geometry, zeros: float, batch: int, last: bool, seed: int
) -> None:
    x, weights = sparse_input(geometry, zeros, batch, last, seed), weights_for(geometry, seed)
    y = algorithm.convolve(algorithm.compress(x, geometry), weights)
    expected = truth(x, geometry, weights)
    assert y.shape == expected.shape and y.dtype == torch.float32
    assert float((y - expected).abs().max()) <= 1e-5 * max(1e-30, float(expected.abs().max()))
    if geometry.filters > 1 and expected.shape[2] * expected.shape[3] > 1 and not ambiguous(x):
        assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def ambiguous(x: Tensor) -> bool:
    return x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def by_hand(channel: np.ndarray, geometry: Geometry) -> list[list[tuple[int, int, float]]]:
    """(leftmost window, IN, DA) by pattern, in the published order, from the definition alone."""
    (above, left), (below, right) = geometry.padding, geometry.ends
    (_, width), (_, stride) = geometry.kernel, geometry.stride
    padded = np.pad(channel, ((above, below), (left, right)))
    found: list[list[tuple[int, int, float]]] = [[] for _ in range(-(-width // stride))]
    for j in range(padded.shape[1]):
        holds = [m for m in range(geometry.output[1]) if m * stride <= j < m * stride + width]
        for i in range(padded.shape[0]):
            if holds and padded[i, j] != 0:
                found[len(holds) - 1].append((holds[0], j - holds[0] * stride + i * width, padded[i, j]))
    return found


@given(geometry=geometries(), zeros=st.sampled_from([0, 0.5, 0.9, 1]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_cpo_is_what_was_published(geometry: Geometry, zeros: float, seed: int) -> None:
    x = sparse_input(geometry, zeros, 1, False, seed)
    made = cpo.compress(x, geometry)
    sizes = cpo.patterns(geometry)[2]
    for c in range(geometry.channels):
        (p, _, k), (p_end, _, k_end) = made.starts[c], made.starts[c + 1]
        expected = by_hand(x[0, c].numpy(), geometry)
        flat = [entry for pattern in expected for entry in pattern]
        assert made.indices[k:k_end].tolist() == [index for _, index, _ in flat]
        assert made.values[k:k_end].tolist() == [value for *_, value in flat]
        assert (p_end == p) == (not flat)
        if not flat:
            continue
        done = 0
        for pattern, size in zip(expected, sizes, strict=True):
            ptr = made.ptr[p : p + size]
            windows = [m for m, *_ in pattern]
            last = geometry.output[1] - 1
            starts = [0, last] if size == 3 else list(range(size - 1))
            if size == 3 and last == 0:
                starts = [0]  # the first window is the last
            for place, m in enumerate(starts):
                assert ptr[place + 1] - ptr[place] == windows.count(m)
            assert ptr[0] == done and ptr[-1] == done + len(pattern)
            done, p = done + len(pattern), p + size
        assert p == p_end


@pytest.mark.parametrize(
    ("density", "expected"), [(0.05, 59), (0.1, 34.5), (0.2, 18.8), (0.3, 13.0), (0.5, 8.0)]
)
def test_compression_ratios_of_the_authors(density: float, expected: float) -> None:
    """Their log of a 3x3 kernel on 50x50."""
    geometry = Geometry(1, 50, 50, 1, (3, 3))
    ratios = []
    for seed in range(20):
        x = sparse_input(geometry, 0, 1, False, seed)
        x.view(-1)[torch.randperm(2500)[: round(2500 * (1 - density))]] = 0
        ratios.append(cpo.compress(x, geometry).compression_ratio)
    assert np.mean(ratios) == pytest.approx(expected, rel=0.03)
    assert mec.compress(x, geometry).compression_ratio == pytest.approx(2.8, rel=0.03)
    assert im2col.compress(x, geometry).memory().elements == geometry.im2col_elements


def decoded(sets: list[int], width: int) -> list[int]:
    """CPO's IN, from the definition of CPS alone."""
    found = []
    numbers = iter(sets)
    for number in numbers:
        pattern = next(numbers) if number % 2 else 1
        found += [number // 2 + row * width for row in range(4) if pattern >> row & 1]
    return found


@pytest.mark.parametrize("algorithm", [cpo, cps])
@given(geometry=geometries(), zeros=st.sampled_from([0, 0.5, 0.9, 1]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_sums_are_in_the_published_order(
    algorithm: ModuleType, geometry: Geometry, zeros: float, seed: int
) -> None:
    """To the last bit those of one multiplication after the other, as the non-zeros follow each other."""
    x, weights = sparse_input(geometry, zeros, 1, False, seed), weights_for(geometry, seed).numpy()
    (rows, columns), (kernel_rows, width), (down, right) = geometry.output, geometry.kernel, geometry.stride
    expected = np.zeros((geometry.filters, rows, columns), np.float32)
    for c in range(geometry.channels):
        for window, index, value in itertools.chain(*by_hand(x[0, c].numpy(), geometry)):
            for y, m in itertools.product(range(rows), range(window, columns)):
                kernel_row, kernel_column = index // width - y * down, index % width - (m - window) * right
                if 0 <= kernel_row < kernel_rows and kernel_column >= 0:
                    expected[:, y, m] += value * weights[:, c, kernel_row, kernel_column]
    y = algorithm.convolve(algorithm.compress(x, geometry), torch.from_numpy(weights))
    assert np.array_equal(y[0].numpy(), expected)


@given(geometry=geometries(), zeros=st.sampled_from([0, 0.3, 0.7, 1]), batch=st.integers(1, 2),
       seed=st.integers(0, 99))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_cps_tells_the_same_in_fewer_numbers(geometry: Geometry, zeros: float, batch: int, seed: int) -> None:
    x = sparse_input(geometry, zeros, batch, False, seed)
    plain, made = cpo.compress(x, geometry), cps.compress(x, geometry)
    assert decoded(made.sets.tolist(), geometry.kernel[1]) == plain.indices.tolist()
    assert np.array_equal(made.ptr, plain.ptr) and np.array_equal(made.values, plain.values)
    overlap = cpo.patterns(geometry)[0][geometry.padding[1] :][: geometry.width]
    used = (
        np.pad(x.numpy(), ((0, 0), (0, 0), (geometry.padding[0], geometry.ends[0]), (0, 0)))[
            ..., overlap >= 0
        ]
        != 0
    )
    used = np.pad(used, ((0, 0), (0, 0), (0, -used.shape[2] % 4), (0, 0)))
    sets = used.reshape(*used.shape[:2], used.shape[2] // 4, 4, used.shape[3]).sum(axis=3)
    assert made.sets.size == np.minimum(sets, 2).sum()
    assert made.starts[-1].tolist() == [made.ptr.size, made.sets.size, made.values.size]
    assert made.memory().elements == made.ptr.size + made.sets.size + made.values.size


@pytest.mark.parametrize("algorithm", [cpo, cps])
def test_a_channel_of_zeros_is_nothing(algorithm: ModuleType) -> None:
    geometry = Geometry(3, 6, 6, 2, (3, 3))
    x = sparse_input(geometry, 0, 1, False, 0)
    x[:, 1] = 0
    made = algorithm.compress(x, geometry)
    assert (made.starts[1] == made.starts[2]).all() and (made.starts[2] < made.starts[3]).all()
    empty = algorithm.compress(x * 0, geometry)
    assert empty.memory().elements == 0 and empty.compression_ratio == float("inf")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("x", "fault"),
    [
        (torch.zeros(1, 2, 5, 5), r"float32 \(1, 2, 5, 5\), expected float32 N x 3 x 5 x 5"),
        (torch.zeros(3, 5, 5), r"\(3, 5, 5\), expected"),
        (torch.zeros(1, 3, 5, 5, dtype=torch.float64), "float64"),
        (torch.zeros(1, 3, 5, 5, device="meta"), "on meta, expected the CPU"),
    ],
)
def test_another_input_is_refused(algorithm: ModuleType, x: Tensor, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        algorithm.compress(x, Geometry(3, 5, 5, 4, (3, 3)))


def test_geometry_of_a_module() -> None:
    module = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2))
    geometry = Geometry.of(module, (4, 3, 10, 11))
    assert geometry == Geometry(3, 10, 11, 8, (3, 5), (2, 1), (1, 2))
    assert (4, 8, *geometry.output) == module(torch.zeros(4, 3, 10, 11)).shape
    assert str(geometry) == "3x10x11->8 3x5 stride 2x1 pad 1x2"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dilation": 2}, "dilated"),
        ({"groups": 2}, "groups"),
        ({"padding": "same"}, "padding"),
        ({"padding": 1, "padding_mode": "reflect"}, "padding"),
        ({"dtype": torch.float64}, "float32"),
    ],
)
def test_other_convolutions_are_left_to_torch(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Geometry.of(nn.Conv2d(4, 4, 3, **options), (1, 4, 8, 8))


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (0, 5)])
def test_a_kernel_larger_than_the_input_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"no output|below 1"):
        Geometry(1, *size, 1, (3, 3))
