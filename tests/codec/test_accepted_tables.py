"""Every table that validation accepts, with every option of `encode`, gives a file that strict decoders read,
with the coefficients of a float64 DCT.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from decoders import Decode, Read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.fft import dctn

from dnnjpeg import OperatingPoint, encode
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.fields import MIN_HARDNESS, spread

# Pictures whose blocks have the largest coefficients there are: one basis function each, its signs alone.
_WAVES = np.cos((2 * np.arange(8) + 1) * np.arange(8)[:, None] * np.pi / 16) >= 0
EXTREMES = np.where(_WAVES[:, None, :, None] ^ _WAVES[None, :, None, :], 255, 0).reshape(64, 8, 8)


@dataclass(repr=False)
class Case:
    """A YCbCr or gray picture whose chroma is equal within each sample, a point, and options of `encode`."""

    samples: list[np.ndarray]  # by component, uint8, as they are sampled
    point: OperatingPoint
    options: dict[str, Any]

    def __repr__(self) -> str:
        return f"<{[plane.shape for plane in self.samples]}, {self.point}, {self.options}>"

    def picture(self) -> np.ndarray:
        if len(self.samples) == 1:
            return self.samples[0]
        whole = self.samples[0].shape
        return np.stack(
            [np.kron(part, np.ones(np.floor_divide(whole, part.shape), np.uint8)) for part in self.samples], 2
        )


def some(draw: st.DrawFn, one: st.SearchStrategy[Any]) -> Any:
    """One for all coefficients, or 64, most of them alike."""
    if draw(st.booleans()):
        return draw(one)
    few = draw(st.lists(one, min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [few[i] for i in rng.integers(0, len(few), 64)]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    subsampling = draw(st.sampled_from(tuple(SUBSAMPLINGS)))
    tables = draw(st.integers(2, 3))
    step = st.sampled_from((1, 1, 1, 2, 255)) | st.integers(1, 255)
    cell = st.sampled_from((None, 0.5, 0.999, 1, 2)) | st.floats(0.5, 2)
    kappa = st.none() | st.sampled_from((MIN_HARDNESS, 1, 15, 80, 1e300)) | st.floats(MIN_HARDNESS, 100)
    limit = st.sampled_from((None, None, 1023, 1)) | st.integers(1, 1023)
    luma, *chroma = ([*np.broadcast_to(some(draw, step), 64)] for _ in range(tables))
    point = OperatingPoint(
        draw(st.integers(1, 100)),
        subsampling,
        luma,
        chroma,
        None if draw(st.booleans()) else [some(draw, kappa) for _ in range(tables)],
        bin_width=[some(draw, cell) for _ in range(tables)],
        max_index=None if draw(st.booleans()) else [some(draw, limit) for _ in range(tables)],
    )
    options: dict[str, Any] = {
        "progressive": draw(st.sampled_from((False, True, "auto"))),
        "optimize": draw(st.sampled_from((None, True, False))),
        "restart_blocks": draw(st.sampled_from((0, 0, 1, 5))),
        "restart_rows": draw(st.sampled_from((0, 0, 1))),
        "hardness": draw(st.sampled_from((None, math.inf))),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "threads": draw(st.integers(1, 2)),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    (across, down), *_ = SUBSAMPLINGS[subsampling]
    columns, rows = draw(st.integers(1, 4)), draw(st.integers(1, 3))  # MCUs
    shapes = [(rows * down, columns * across), (rows, columns), (rows, columns)]
    samples = [_blocks(rng, *shape) for shape in shapes[: draw(st.sampled_from((1, 3, 3)))]]
    return Case(samples, point, options)


def _blocks(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Noise, flat blocks and extremes."""
    shape = (rows, columns)
    kinds = np.stack(
        [
            rng.integers(0, 256, (*shape, 8, 8)),
            np.broadcast_to(rng.choice([0, 255, 128], (*shape, 1, 1)), (*shape, 8, 8)),
            EXTREMES[rng.integers(0, 64, shape)],
            255 - EXTREMES[rng.integers(0, 64, shape)],
        ]
    )
    chosen = np.take_along_axis(kinds, rng.integers(0, 4, shape)[None, :, :, None, None], 0)[0]
    return chosen.swapaxes(1, 2).reshape(8 * rows, 8 * columns).astype(np.uint8)


def slack(kappa: float | None) -> float:
    """How far, in bin widths, an index may be from its coefficient: half of one where it is rounded; else
    what has a weight of 1e-7 or more.
    """
    if kappa is None:
        return 0.5
    return 1.0 if kappa >= 15 else 0.5 + np.sqrt(16.2 / kappa) + 1


def check(case: Case, read_dct: Read, decode: Decode) -> None:
    point = case.point
    mode = "YCbCr" if len(case.samples) == 3 else "L"
    data = encode(case.picture(), point, mode=mode, **case.options)
    planes, steps = read_dct(data)
    assert decode(data).shape[:2] == case.samples[0].shape
    for c, (samples, plane) in enumerate(zip(case.samples, planes, strict=True)):
        t = min(c, len(point.tables) - 1)
        assert np.array_equal(steps[c].ravel(), point.tables[t])
        rows, columns = plane.shape[:2]
        blocks = samples.reshape(rows, 8, columns, 8).swapaxes(1, 2) - 128.0
        exact = dctn(blocks, axes=(2, 3), norm="ortho").reshape(rows, columns, 64) / point.divisors[t]
        max_index = np.array([2000 if limit is None else limit for limit in spread(point.max_index[t])])
        lowest = np.where(np.arange(64) == 0, -1024, -1023)
        low, high = np.maximum(lowest, -max_index), np.minimum(1023, max_index)
        found = plane.reshape(rows, columns, 64)
        assert (found >= low).all() and (found <= high).all()
        nearest = case.options.get("hardness") is not None
        room = np.array([slack(None if nearest else kappa) for kappa in spread(point.hardness[t])])
        assert (np.abs(found - exact.clip(low, high)) <= room + 2e-3).all(), f"component {c}"


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_every_accepted_table_gives_a_valid_file(case: Case, read_dct: Read, decode: Decode) -> None:
    check(case, read_dct, decode)


@pytest.mark.parametrize("optimize", [None, False])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cell", [0.5, 0.999, [None, *[0.5] * 63], [0.5, *[None] * 63]])
def test_indices_of_the_finest_cells_are_held(
    cell: Any, progressive: bool, optimize: bool | None, read_dct: Read, decode: Decode
) -> None:
    """With steps of 1 and bins below 1, coefficients go to twice what T.81 has room for."""
    picture = np.concatenate([*EXTREMES, *(255 - EXTREMES)], 1).astype(np.uint8)
    ones = (1,) * 64
    point = OperatingPoint(100, "4:4:4", ones, ones, bin_width=[cell, None])
    check(Case([picture], point, {"progressive": progressive, "optimize": optimize}), read_dct, decode)
