"""`write_coefficients`: libjpeg 6b reads what was written, and every decoder shows the same picture."""

import io
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
from decoders import Decode, Read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg import write_coefficients
from dnnjpeg.jpeg.inspect import inspect
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

ONES = [np.ones(64, np.uint8)]


def blocks_of(width: int, height: int, subsampling: str, components: int) -> list[tuple[int, int]]:
    """Rows and columns of blocks by component (T.81 A.1.1, A.2.4)."""
    factors = SUBSAMPLINGS[subsampling] if components == 3 else ((1, 1),) * components
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    samples = [(-(-height * v // down), -(-width * h // across)) for h, v in factors]
    return [(-(-rows // 8), -(-columns // 8)) for rows, columns in samples]


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.laplace(0, 8, shape).round() * (rng.random(shape) < rng.choice([0.01, 0.1, 0.4]))


def dense(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-1023, 1024, shape)


def extreme(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.choice([-1023, 1023], shape)
    values[..., 0] = rng.choice([-1024, 1023], shape[:-1])
    return values


def long_runs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One or two coefficients a block, far apart: runs of 16 and more zeros."""
    values = np.zeros(shape, np.int64)
    for position in rng.choice(64, 2):
        values[..., position] = rng.choice([-1, 0, 1, 7, -200], shape[:-1])
    return values


def small(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """What successive approximation takes apart: magnitudes 0 to 4."""
    return rng.integers(-4, 5, shape) * (rng.random(shape) < rng.choice([0.05, 0.5, 1]))


def flat(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, rng.choice([0, 0, 1, -1, 2, 1023]))


KINDS = (sparse, dense, extreme, long_runs, small, flat)


@dataclass(repr=False)
class Case:
    planes: list[np.ndarray]
    tables: list[np.ndarray]
    width: int
    height: int
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = [(plane.shape[:2], int(plane.min()), int(plane.max())) for plane in self.planes]
        return f"<{self.width} x {self.height}, {shapes}, {len(self.tables)} tables, {self.options}>"

    def write(self, **changes: Any) -> bytes:
        return write_coefficients(self.planes, self.tables, self.width, self.height, **self.options | changes)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    components = draw(st.sampled_from((1, 3, 3, 3, 4)))
    options = {
        "subsampling": draw(st.sampled_from(tuple(SUBSAMPLINGS))),
        "progressive": draw(st.sampled_from((False, True, "auto"))),
        "optimize": draw(st.sampled_from((None, True, False))),
        "restart_blocks": draw(st.sampled_from((0, 0, 1, 2, 3, 7, 8, 1000, 65535))),
        "restart_rows": draw(st.sampled_from((0, 0, 0, 1, 2, 65535))),
    }
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    planes = []
    for rows, columns in blocks_of(width, height, options["subsampling"], components):
        shape = (rows, columns, 64)
        one, other = rng.choice(len(kinds), 2)
        mixed = np.where(
            rng.random((rows, columns, 1)) < 0.5, kinds[one](rng, shape), kinds[other](rng, shape)
        )
        planes.append(mixed.astype(rng.choice([np.int16, np.int64])).reshape(rows, columns, 8, 8))
    tables = list(rng.integers(1, 256, (draw(st.integers(1, 3)), 64)))
    return Case(planes, tables, width, height, options)


def check(case: Case, data: bytes, read_dct: Read) -> None:
    planes, steps = read_dct(data)
    assert len(planes) == len(case.planes)
    for c, (read, given_plane) in enumerate(zip(planes, case.planes, strict=True)):
        assert np.array_equal(read, given_plane.reshape(read.shape)), f"component {c}"
        assert np.array_equal(steps[c].ravel(), np.ravel(case.tables[min(c, len(case.tables) - 1)])), (
            f"table {c}"
        )


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_indices_are_exact_and_decoders_agree(case: Case, read_dct: Read, decode: Decode) -> None:
    data = case.write()
    check(case, data, read_dct)
    assert decode(data).shape[:2] == (case.height, case.width)
    found = inspect(data)
    assert found.complete and not found.trailing_bytes
    if case.options["progressive"] != "auto":
        assert (found.kind == "progressive") == case.options["progressive"]


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_auto_is_the_smaller_file(case: Case) -> None:
    either = [case.write(progressive=progressive) for progressive in (False, True)]
    assert case.write(progressive="auto") == min(either, key=len)


def gray(plane: np.ndarray) -> Case:
    """A gray picture of whole blocks."""
    rows, columns = plane.shape[:2]
    return Case([plane], ONES, 8 * columns, 8 * rows)


@pytest.mark.parametrize("shape", [(1, 4094), (1, 4095), (1, 4096), (2, 4095), (3, 2731), (8, 4096)])
def test_long_runs_of_empty_blocks(shape: tuple[int, int], read_dct: Read) -> None:
    """EOB runs are cut where one symbol cannot hold them."""
    plane = np.zeros((*shape, 64), np.int16)
    for ends in (0, 3):
        plane[[0, -1], [0, -1], 5] = ends
        case = gray(plane)
        for restart_blocks in (0, 4095, 5000):
            check(case, case.write(progressive=True, restart_blocks=restart_blocks), read_dct)


@pytest.mark.parametrize("magnitude", [2, 3, 7, 1023])
def test_corrections_pile_up_in_an_eob_run(magnitude: int, read_dct: Read) -> None:
    """Known coefficients only: each block adds 63 correction bits to the run, none ends it."""
    rng = np.random.default_rng(magnitude)
    plane = np.full((20, 20, 64), magnitude, np.int16) * rng.choice([-1, 1], (20, 20, 64))
    plane[::3, :, 40:] = 0
    plane[1::4, ::5, 63] = 1  # a new one behind many known
    case = gray(plane)
    check(case, case.write(progressive=True), read_dct)


def test_bytes_of_ones_are_stuffed(read_dct: Read, decode: Decode) -> None:
    """Every magnitude's bits all ones: 0xFF follows 0xFF."""
    plane = np.full((33, 47, 64), 1023, np.int16)
    case = gray(plane)
    for options in ({}, {"progressive": True}, {"restart_blocks": 1}, {"optimize": False}):
        data = case.write(**options)
        assert data.count(b"\xff\0") > 10_000
        check(case, data, read_dct)
        decode(data)


@pytest.mark.parametrize("progressive", [False, True])
def test_many_sizes_of_one_run_of_tokens(progressive: bool, read_dct: Read) -> None:
    """Any number of symbols: the packer takes 256 at a time, sixteen in a step."""
    rng = np.random.default_rng(0)
    for blocks in range(1, 40):
        plane = dense(rng, (1, blocks, 64))
        plane[0, -1, rng.integers(1, 64) :] = 0
        case = gray(plane)
        check(case, case.write(progressive=progressive), read_dct)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("restart_rows", [0, 3])
def test_against_pillow_with_the_same_indices(
    subsampling: str, restart_rows: int, photo: Image.Image, read_dct: Read
) -> None:
    """With the standard tables the scan is Pillow's, byte for byte; with our own the file is smaller."""

    def both(**options: Any) -> tuple[bytes, bytes]:
        buffer = io.BytesIO()
        size = {"subsampling": subsampling, "restart_marker_rows": restart_rows}
        photo.crop((0, 0, 151, 117)).save(buffer, "JPEG", quality=80, **size, **options)
        planes, steps = read_dct(buffer.getvalue())
        size = {"subsampling": subsampling, "restart_rows": restart_rows}
        return write_coefficients(planes, steps, 151, 117, **size, **options), buffer.getvalue()

    ours, pillows = both(optimize=False)
    assert scan_of(ours) == scan_of(pillows)
    assert len(ours) < len(pillows)
    for options in ({"optimize": True}, {"progressive": True}):
        ours, pillows = both(**options)
        assert len(ours) < len(pillows)
        assert inspect(ours).kind == inspect(pillows).kind


def scan_of(data: bytes) -> bytes:
    """The entropy-coded data of a file of one scan."""
    start = data.rindex(b"\xff\xda")
    return data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) : -2]


def test_restart_markers_let_a_decoder_recover(decode: Decode) -> None:
    """Bytes destroyed in one interval leave the others as they were: each begins anew."""
    rng = np.random.default_rng(0)
    planes = [sparse(rng, (8, 8, 64)).astype(int) for _ in range(3)]
    data = bytearray(write_coefficients(planes, [np.full(64, 4)], 64, 64, restart_rows=1))
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    markers = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    assert [data[i + 1] for i in markers] == [0xD0 + i for i in range(7)]
    for at in range(markers[2] + 2, markers[3]):
        data[at] = 0
    broken = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    same = (whole == broken).all(axis=(1, 2))
    assert same[:24].all() and same[32:].all() and not same[24:32].all()


# --- what is refused ---

PLANE = np.zeros((1, 1, 8, 8), int)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "planes has 2 components", ([PLANE] * 2, ONES, 8, 8)),
        (ValueError, "planes has 0 components", ([], ONES, 8, 8)),
        (TypeError, r"planes\[1\] is an array of float64", ([PLANE, PLANE * 1.0, PLANE], ONES, 8, 8)),
        (TypeError, r"planes\[0\] is an array of bool", ([PLANE == 0], ONES, 8, 8)),
        (ValueError, r"planes\[0\] has shape \(1, 1, 8, 8\), expected \(1, 2, 8, 8\)", ([PLANE], ONES, 9, 8)),
        (ValueError, r"planes\[0\] has shape \(1, 1, 8, 8\), expected \(2, 1, 8, 8\)", ([PLANE], ONES, 8, 9)),
        (ValueError, r"planes\[0\] has shape \(8, 8\)", ([PLANE[0, 0]], ONES, 8, 8)),
        (ValueError, r"planes\[0\] holds .*1024", ([PLANE + 1024], ONES, 8, 8)),
        (ValueError, r"planes\[0\] holds .*-1024", ([PLANE - 1024], ONES, 8, 8)),
        (ValueError, r"planes\[0\] holds", ([PLANE.astype(np.uint64) + np.uint64(2**63)], ONES, 8, 8)),
        (ValueError, r"planes\[0\] is \[\[1\], \[1, 2\]\], expected an array", ([[[1], [1, 2]]], ONES, 8, 8)),
        (
            ValueError,
            r"tables\[0\] is \[\[1.*, expected 64 steps",
            ([PLANE], [[[1] * 8] * 7 + [[1] * 7]], 8, 8),
        ),
        (ValueError, "tables has 0 tables", ([PLANE], [], 8, 8)),
        (ValueError, "tables has 4 tables", ([PLANE], ONES * 4, 8, 8)),
        (ValueError, r"tables\[0\] has 63 steps", ([PLANE], [np.ones(63, int)], 8, 8)),
        (ValueError, r"tables\[1\]\[7\] is 0", ([PLANE] * 3, [ONES[0], [1] * 7 + [0] * 57], 8, 8)),
        (ValueError, r"tables\[0\]\[0\] is 256", ([PLANE], [[256] * 64], 8, 8)),
        (ValueError, r"tables\[0\]\[0\] is nan", ([PLANE], [[np.nan] * 64], 8, 8)),
        (ValueError, r"tables\[0\]\[0\] is 1.5", ([PLANE], [[1.5] * 64], 8, 8)),
        (ValueError, r"tables\[0\]", ([PLANE], ["x"], 8, 8)),
        (ValueError, "width is 0", ([PLANE], ONES, 0, 8)),
        (ValueError, "width is 65536", ([PLANE], ONES, 65536, 8)),
        (ValueError, "height is -1", ([PLANE], ONES, 8, -1)),
        (ValueError, "height is 8.0", ([PLANE], ONES, 8, 8.0)),
    ],
)
def test_wrong_arguments(error: type[Exception], message: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(error, match=message):
        write_coefficients(*arguments)


def test_dc_reaches_one_below_ac(read_dct: Read) -> None:
    plane = PLANE.copy()
    plane[0, 0, 0, 0] = -1024
    check(gray(plane.reshape(1, 1, 64)), write_coefficients([plane], ONES, 8, 8), read_dct)


def test_tables_beyond_the_components_are_not_written(read_dct: Read) -> None:
    tables = [np.full(64, i + 1) for i in range(3)]
    assert inspect(write_coefficients([PLANE], tables, 8, 8)).quantization.keys() == {0}
    _, steps = read_dct(write_coefficients([PLANE] * 4, tables, 8, 8))
    assert [int(step[0, 0]) for step in steps] == [1, 2, 3, 3]


def test_equal_tables_are_written_once(read_dct: Read) -> None:
    one, two = np.full(64, 5), np.full(64, 9)
    for tables, count in (
        ([one, two, one], 2),
        ([one, one, two], 2),
        ([one, one, one], 1),
        ([one, two, two], 2),
    ):
        data = write_coefficients([PLANE] * 3, tables, 8, 8)
        assert len(inspect(data).quantization) == count
        assert [int(step[0, 0]) for step in read_dct(data)[1]] == [int(table[0]) for table in tables]


def test_lists_and_strided_arrays_are_taken(read_dct: Read) -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(-50, 50, (2, 3, 8, 8))
    expected = write_coefficients([plane], ONES, 24, 16)
    wide = np.zeros((4, 6, 8, 8), np.int32)
    wide[::2, ::-2] = plane
    for same in (
        plane.tolist(),
        plane.reshape(2, 3, 64),
        np.asfortranarray(plane),
        wide[::2, ::-2],
        plane.astype(np.int8),
    ):
        assert write_coefficients([same], ONES, 24, 16) == expected
