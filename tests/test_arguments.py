"""Whatever is handed in, for any argument: a result, or a documented exception whose message is short."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dnnjpeg.plugins.opencv
import dnnjpeg.plugins.pillow
from dnnjpeg import OperatingPoint, Table, encode, encode_to_target, inspect, write_coefficients
from dnnjpeg.table.library import standard_table

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numpy would rather have an array
    MATRIX = np.matrix(np.ones((8, 8), int))


class Long:
    def __repr__(self) -> str:
        return "long" * 10_000


def nested(depth: int, width: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value] * width
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


ODD: dict[str, Any] = {
    "an integer beyond float": 10**400,
    "an integer that Python does not print": 10**5000,
    "a fraction beyond float": Fraction(10**400),
    "a longdouble beyond float": np.longdouble("1e4000"),
    "nan": math.nan,
    "infinity": math.inf,
    "complex": 1j,
    "a decimal": Decimal("NaN"),
    "a float32": np.float32(3),
    "a deep list": nested(100_000, 1),
    "a deep and wide list": nested(7, 7),
    "a list of itself": endless(),
    "a deep mapping": {"a": nested(100_000, 1)},
    "a matrix": MATRIX,
    "an array": np.zeros((100, 100)),
    "an array of objects": np.array([None, {}], object),
    "what prints at length": Long(),
    "long text": "x" * 100_000,
    "half of a character": "\ud800",
    "bytes": b"1" * 100,
    "a memoryview": memoryview(b"ab" * 32),
    "a set": {1, 2},
    "a type": int,
}
POINT = standard_table().at(50)
PIXELS = np.zeros((16, 16, 3), np.uint8)
PLANE = np.zeros((1, 1, 8, 8), int)
STEPS = [1] * 64


def calls() -> dict[str, Callable[[Any], object]]:
    """By the name of an argument: what is called with it."""
    found: dict[str, Callable[[Any], object]] = {
        "from_tables": OperatingPoint.from_tables,
        "from_tables, one of them": lambda value: OperatingPoint.from_tables([value]),
        "encode image": encode,
        "encode table": lambda value: encode(PIXELS, value),
        "write_coefficients planes": lambda value: write_coefficients(value, [STEPS], 8, 8),
        "write_coefficients planes[0]": lambda value: write_coefficients([value], [STEPS], 8, 8),
        "write_coefficients tables": lambda value: write_coefficients([PLANE], value, 8, 8),
        "write_coefficients tables[0]": lambda value: write_coefficients([PLANE], [value], 8, 8),
        "write_coefficients width": lambda value: write_coefficients([PLANE], [STEPS], value, 8),
        "inspect": inspect,
        "opencv ext": lambda value: dnnjpeg.plugins.opencv.imencode(value, PIXELS),
        "opencv img": lambda value: dnnjpeg.plugins.opencv.imencode(".jpg", value),
        "opencv params": lambda value: dnnjpeg.plugins.opencv.imencode(".jpg", PIXELS, value),
    }

    def add(prefix: str, names: str, call: Callable[[str, Any], object]) -> None:
        for name in names.split():
            found[f"{prefix} {name}"] = lambda value, name=name: call(name, value)

    add(
        "point",
        "quality subsampling luma chroma hardness bin_width max_index measured",
        lambda name, value: replace(POINT, **{name: value}),
    )
    add(
        "table",
        "name points description provenance",
        lambda name, value: Table(**{"name": "a", "points": [POINT], name: value}),
    )
    add(
        "encode",
        "quality mode adaptive hardness seed subsampling progressive optimize restart_blocks "
        "restart_rows exif xmp icc_profile comment dpi abbreviated threads",
        lambda name, value: encode(PIXELS, **{name: value}),
    )
    add(
        "pillow",
        "quality qtables subsampling optimize progressive exif dpi comment model table streamtype "
        "restart_marker_blocks",
        lambda name, value: dnnjpeg.plugins.pillow.encode(Image.fromarray(PIXELS), **{name: value}),
    )
    add(
        "target",
        "target_bpp target_bytes",
        lambda name, value: encode_to_target([PIXELS], **{name: value}),
    )
    return found


CALLS = calls()


@pytest.mark.filterwarnings("ignore")  # numpy's, of the longdouble and the matrix
@pytest.mark.parametrize("name", CALLS)
def test_what_is_odd_is_refused_in_a_short_line(name: str) -> None:
    for kind, value in ODD.items():
        try:
            CALLS[name](value)
        except (TypeError, ValueError, OSError) as error:
            assert len(str(error)) < 400, kind
            assert "\n" not in str(error), kind
            assert "4300" not in str(error), kind


@pytest.mark.parametrize("table", [7 * MATRIX, np.full((8, 8), 7), [[7] * 8] * 8])
def test_forms_of_a_table_of_8x8(table: Any) -> None:
    assert OperatingPoint.from_tables([table]).luma == (7,) * 64
    assert write_coefficients([PLANE], [table], 8, 8) == write_coefficients([PLANE], [[7] * 64], 8, 8)


@pytest.mark.parametrize("steps", [[32.0] * 64, np.full((8, 8), 32.0), np.full(64, 32, np.float16)])
def test_whole_floats_are_steps_of_coefficients(steps: Any) -> None:
    assert write_coefficients([PLANE], [steps], 8, 8) == write_coefficients([PLANE], [[32] * 64], 8, 8)


def test_a_hardness_beyond_floats_is_named() -> None:
    for value in (10**400, [10**400, None], [None, [10**400] * 64]):
        with pytest.raises(ValueError, match=r"^hardness.* is 10+\.\.\.0+, expected a finite number"):
            replace(POINT, hardness=value)


def test_any_finite_bpp_is_a_limit() -> None:
    best = encode_to_target([PIXELS], target_bpp=1e308)[0]
    assert best.quality == 100 and best.met
    with pytest.raises(ValueError, match=r"target_bpp is 10+.*, expected a finite number above 0"):
        encode_to_target([PIXELS], target_bpp=10**400)


def test_a_record_nested_too_deeply_is_named() -> None:
    for depth in (500, 100_000):
        with pytest.raises(ValueError, match=r"^measured is nested too deeply, expected at most 100 levels$"):
            replace(POINT, measured={"a": nested(depth, 1)})
    assert replace(POINT, measured={"a": nested(90, 1)}).measured == {"a": nested(90, 1)}
