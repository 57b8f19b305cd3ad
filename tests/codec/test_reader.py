"""`read_coefficients`: what libjpeg 6b reads is read, and what was written comes back."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import Read
from hypothesis import HealthCheck, given, settings
from PIL import Image
from test_write_coefficients import Case, cases
from whole_files import GOOD

from dnnjpeg import Coefficients, encode, read_coefficients, tables_only, write_coefficients
from dnnjpeg.codec import marks
from dnnjpeg.codec.reader import bytes_array
from dnnjpeg.jpeg.segments import find_mark


def check(data: bytes, read_dct: Read) -> Coefficients:
    """The file's indices and steps are those of libjpeg 6b."""
    found = read_coefficients(data)
    planes, steps = read_dct(data)
    assert len(found.planes) == len(planes)
    for c, plane in enumerate(planes):
        assert found.planes[c].dtype == np.int16
        assert np.array_equal(found.planes[c], plane.reshape(found.planes[c].shape)), f"component {c}"
        assert found.tables[c] == tuple(np.ravel(steps[c]).tolist()), f"table {c}"
    return found


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_what_was_written_comes_back(case: Case) -> None:
    found = read_coefficients(case.write())
    assert (found.width, found.height) == (case.width, case.height)
    for c, plane in enumerate(case.planes):
        assert np.array_equal(found.planes[c], plane.reshape(found.planes[c].shape)), f"component {c}"
        assert found.tables[c] == tuple(case.tables[min(c, len(case.tables) - 1)].tolist())
    if len(case.planes) == 3:
        assert found.subsampling == case.options["subsampling"]
    if case.options["progressive"] != "auto":
        assert found.progressive == case.options["progressive"]
    # and what was read is written as it was
    options = case.options | {"subsampling": found.subsampling} if len(case.planes) == 3 else case.options
    tables = list(dict.fromkeys(found.tables)) if len(case.planes) == 4 else found.tables
    if len(tables) < 4:
        again = write_coefficients(found.planes, tables, found.width, found.height, **options)
        assert all(map(np.array_equal, read_coefficients(again).planes, found.planes))


Cjpeg = Callable[..., bytes]

SAVINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "optimal": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "restarts, progressive": {"restart_marker_blocks": 3, "progressive": True},
    "fine": {"quality": 100, "subsampling": 0},
    "4:2:2": {"subsampling": 1, "quality": 95},
    "RGB": {"keep_rgb": True},
    "RGB, progressive": {"keep_rgb": True, "progressive": True},
}


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("name", SAVINGS)
def test_pillows_files(name: str, mode: str, photo: Image.Image, read_dct: Read) -> None:
    if "RGB" in name and mode != "RGB":
        pytest.skip("of RGB only")
    for size in ((1, 1), (8, 17), (151, 117), photo.size):
        buffer = io.BytesIO()
        photo.crop((0, 0, *size)).convert(mode).save(buffer, "JPEG", **SAVINGS[name])
        found = check(buffer.getvalue(), read_dct)
        assert found.colour == {"L": "gray", "RGB": "RGB" if "RGB" in name else "YCbCr"}.get(mode, mode)
        assert found.progressive == ("progressive" in name)


SCRIPTS = {
    # scans of one component each, in one band; by many bits; and the bands of T.81's own example
    "one by one": "0; 1; 2;",
    "chroma together": "0; 1 2;",
    "luma last": "1 2; 0;",
    "bands": "0 1 2: 0-0, 0, 0; 0: 1-2, 0, 0; 0: 3-9, 0, 0; 0: 10-63, 0, 0; 1: 1-63, 0, 0; 2: 1-63, 0, 0;",
    "bits": (
        "0,1,2: 0-0, 0, 3; 0: 1-63, 0, 3; 1: 1-63, 0, 3; 2: 1-63, 0, 3;"
        + "".join(
            f"0,1,2: 0-0, {b}, {b - 1};" + "".join(f"{c}: 1-63, {b}, {b - 1};" for c in range(3))
            for b in (3, 2, 1)
        )
    ),
    "DC apart": "0: 0-0, 0, 1; 1: 0-0, 0, 0; 2: 0-0, 0, 2; 0: 1-63, 0, 0; 0: 0-0, 1, 0; 2: 0-0, 2, 1;"
    "1: 1-63, 0, 1; 2: 1-63, 0, 0; 1: 1-63, 1, 0; 2: 0-0, 1, 0;",
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("sample", ["1x1", "2x1", "2x2", "1x2", "4x1,1x1,2x1", "3x1", "2x2,2x1,1x2"])
def test_scan_scripts(
    script: str, sample: str, photo: Image.Image, read_dct: Read, tmp_path: Path, cjpeg: Cjpeg
) -> None:
    path = tmp_path / "scans"
    path.write_text(SCRIPTS[script])
    for size in ((17, 9), (151, 117)):
        for restart in ("0", "1", "7B"):
            options = ("-revert", "-quality", "90", "-sample", sample, "-restart", restart)
            data = cjpeg(photo.crop((0, 0, *size)), *options, "-scans", str(path))
            check(data, read_dct)


@pytest.mark.parametrize("quality", ["10", "75", "98"])
def test_mozjpegs_files(quality: str, photo: Image.Image, read_dct: Read, cjpeg: Cjpeg) -> None:
    for options in ((), ("-baseline",), ("-revert", "-progressive"), ("-dct", "float", "-quant-table", "3")):
        check(cjpeg(photo, "-quality", quality, *options), read_dct)


def test_steps_of_sixteen_bits(photo: Image.Image, read_dct: Read, cjpeg: Cjpeg) -> None:
    """cjpeg's at low quality, in an extended sequential file."""
    data = cjpeg(photo, "-revert", "-quality", "3")
    assert max(max(table) for table in check(data, read_dct).tables) > 255


@pytest.mark.parametrize("quality", [20, 85, 99])
def test_jpeglis_files(quality: int, photo: Image.Image, read_dct: Read) -> None:
    pyjpegli = pytest.importorskip("pyjpegli")
    check(pyjpegli.encode(photo.tobytes(), *photo.size, quality=quality), read_dct)


def test_tables_of_another_stream() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (33, 47, 3), np.uint8)
    tables, picture = tables_only(), encode(image, abbreviated=True)
    whole = read_coefficients(encode(image, optimize=False))
    found = read_coefficients(picture, tables=tables)
    assert found.tables == whole.tables
    assert all(map(np.array_equal, found.planes, whole.planes))
    with pytest.raises(ValueError, match=r"quantization table 0 is missing, at byte"):
        read_coefficients(picture)
    with pytest.raises(ValueError, match=r"no frame header \(SOF\), at byte"):
        read_coefficients(tables)
    with pytest.raises(ValueError, match="tables is a whole picture"):
        read_coefficients(picture, tables=GOOD)


def test_segments_are_kept_as_they_are(photo: Image.Image) -> None:
    data = encode(photo, exif=b"MM\0*", icc_profile=bytes(70_000), comment=b"note", jfif=True)
    found = read_coefficients(data)
    assert [segment[1] for segment in found.segments] == [0xE0, 0xE1, 0xE2, 0xE2, 0xFE, 0xE9]
    assert data[2:].startswith(b"".join(found.segments))


def test_marks_are_found_as_by_search() -> None:
    generator = np.random.default_rng(0)
    for size in (0, 1, 2, 63, 64, 65, 200, 1000):
        for others in (np.array([0]), np.array([0, 0xD0, 0xD7, 7]), np.array([0, 0xCF, 0xD8, 255])):
            array = np.where(generator.random(size) < 0.3, 255, generator.choice(others, size))
            data = array.astype(np.uint8).tobytes()
            expected = [i for i in range(size - 1) if re.match(rb"\xff[^\0\xd0-\xd7]", data[i:], re.S)]
            for start in range(size):
                due = next((i for i in expected if i >= start), -1)
                assert find_mark(data, start) == due
                assert marks.find_mark(bytes_array(data), start) == due
