"""The shipped tables are what the committed slopes give."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import slope_tables  # noqa: E402

from dnnjpeg.table.library import load_table  # noqa: E402

RESULTS = json.loads((BENCHMARKS / "results/slopes.json").read_text())


@pytest.mark.parametrize("name", RESULTS["tables"])
def test_tables_are_those_of_the_slopes(name: str) -> None:
    """But for steps that another library of linear algebra may round to their neighbours."""
    made, shipped = slope_tables.made(RESULTS, name), load_table(slope_tables.file_of(name))
    assert [(p.quality, p.subsampling) for p in made.points] == [
        (p.quality, p.subsampling) for p in shipped.points
    ]
    for one, other in zip(made.points, shipped.points, strict=True):
        assert np.abs(np.subtract(one.tables, other.tables)).max() <= 1
        assert one.bin_width == other.bin_width
    assert shipped.provenance["command"] == slope_tables.COMMAND


def test_a_point_loses_as_much_as_its_quality_says() -> None:
    """Where places lie on a line of x by the logarithm of libjpeg's factor, so do the points."""
    fit = slope_tables.fitted(RESULTS["trials"], ["mobilenet_v2"], "4:2:0")
    placed = {"4:2:0": [[0.0, 25], [1.0, 25 / np.e], [2.0, 25 / np.e**2]]}
    point = slope_tables.point_at(fit, 50 / 2 / np.e**0.5, placed, "4:2:0")
    expected = slope_tables.as_point(fit.log_steps(0.5), "4:2:0").tables
    np.testing.assert_allclose(point.tables, expected, rtol=0.02, atol=1)  # the factor is a whole number
