"""`read_coefficients`: what libjpeg 6b reads is read, and what was written comes back."""

import io
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import Read
from hypothesis import HealthCheck, given, settings
from PIL import Image
from test_write_coefficients import Case, cases

from dnnjpeg import Coefficients, encode, read_coefficients, tables_only, write_coefficients
from dnnjpeg.codec import intervals
from dnnjpeg.codec.read_scans import MAX_SCANS
from dnnjpeg.codec.reader import bytes_array
from dnnjpeg.jpeg.markers import segment
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


# --- what is refused ---


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Before anything is timed."""
    for data in (GOOD, PROGRESSIVE):
        read_coefficients(data)


PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
GOOD = encode(PICTURE, signature=False)
PROGRESSIVE = encode(PICTURE, signature=False, progressive=True)


def with_segment(data: bytes, marker: int, change: Callable[[bytes], bytes]) -> bytes:
    """The file with the content of its first segment of this kind changed."""
    start = data.index(bytes((0xFF, marker)))
    length = int.from_bytes(data[start + 2 : start + 4])
    body = change(data[start + 4 : start + 2 + length])
    return data[:start] + segment(marker, body) + data[start + 2 + length :]


def at(place: int, value: int) -> Callable[[bytes], bytes]:
    return lambda body: body[:place] + bytes([value]) + body[place + 1 :]


def replaced(kind: int) -> bytes:
    return GOOD.replace(b"\xff\xc0", bytes((0xFF, kind)), 1)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a JPEG: it starts with nothing"),
    "not a JPEG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a JPEG: it starts with 89 50"),
    "nothing but a beginning": (GOOD[:2], r"no end \(EOI\), at byte 2"),
    "a byte less": (GOOD[:-1], r"stray bytes \(1\), at byte"),
    "two bytes less": (GOOD[:-2], r"no end \(EOI\), at byte"),
    "half": (GOOD[: len(GOOD) // 2], "breaks off at byte"),
    "half of the headers": (GOOD[:100], "are left"),
    "more behind the end": (GOOD + b"\0", r"stray bytes \(1\), at byte"),
    "bytes between segments": (GOOD[:2] + b"abc" + GOOD[2:], r"stray bytes \(3\), at byte 2"),
    "no picture": (b"\xff\xd8\xff\xd9", r"no frame header \(SOF\), at byte 4"),
    "no frame": (with_segment(GOOD, 0xC0, lambda _: b""), "SOF has 0 bytes"),
    "two frames": (
        GOOD[: GOOD.index(b"\xff\xda")] + GOOD[GOOD.index(b"\xff\xc0") :],
        "a second frame header",
    ),
    "65,500 pixels a side": (
        with_segment(GOOD, 0xC0, lambda body: body[:1] + b"\xff\xdc\xff\xdc" + body[5:]),
        "65500x65500, more than 178,956,970 pixels",
    ),
    "no height": (with_segment(GOOD, 0xC0, lambda body: body[:1] + bytes(2) + body[3:]), "is 50x0, at byte"),
    "12 bits": (with_segment(GOOD, 0xC0, at(0, 12)), "12 bits a sample, expected 8, at byte"),
    "two components": (
        with_segment(GOOD, 0xC0, lambda body: body[:5] + b"\2" + body[6:12]),
        "2 components, expected 1, 3 or 4",
    ),
    "sampling of 0": (with_segment(GOOD, 0xC0, at(7, 0x20)), "sampling 2x0, expected 1..4"),
    "sampling of 17 blocks": (
        with_segment(GOOD, 0xC0, at(7, 0x44)),
        "MCU has 18 blocks, expected at most 10",
    ),
    "components alike": (with_segment(GOOD, 0xC0, at(9, 1)), "two components have one number"),
    "lossless": (replaced(0xC3), "file is lossless"),
    "arithmetic": (replaced(0xC9), "extended sequential, arithmetic"),
    "progressive, arithmetic": (replaced(0xCA), "progressive, arithmetic"),
    "hierarchical": (replaced(0xC5), "unexpected marker ffc5 at byte"),
    "no quantization": (
        GOOD.replace(b"\xff\xdb", b"\xff\xe7", 1),
        "quantization table 0 is missing, at byte",
    ),
    "steps of 0": (
        with_segment(GOOD, 0xDB, lambda body: body[:1] + bytes(64) + body[65:]),
        "table 0 has a step of 0, at byte",
    ),
    "half a quantization table": (with_segment(GOOD, 0xDB, lambda body: body[:30]), "DQT: table 0"),
    "no Huffman tables": (
        GOOD.replace(b"\xff\xc4", b"\xff\xe7", 1),
        "Huffman table DC 0 is missing, at byte",
    ),
    "too many Huffman codes": (
        with_segment(GOOD, 0xC4, lambda _: b"\0" + bytes([3] + [0] * 15) + bytes(3)),
        "more Huffman codes than their lengths allow, at byte",
    ),
    "half a Huffman table": (with_segment(GOOD, 0xC4, lambda body: body[:20]), "DHT: table 00"),
    "a Huffman code that is none": (
        with_segment(GOOD, 0xC4, lambda body: body[:1] + bytes([1] + [0] * 15) + b"\0" + body[1:]),
        "DHT: table",
    ),
    "scan of no component": (with_segment(GOOD, 0xDA, lambda _: b"\0\0\x3f\0"), "SOS has 4 bytes"),
    "scan of another component": (
        with_segment(GOOD, 0xDA, at(1, 9)),
        r"SOS names the components \[9, 2, 3\]",
    ),
    "scan of one component twice": (
        with_segment(GOOD, 0xDA, at(3, 1)),
        r"SOS names the components \[1, 1, 3\]",
    ),
    "sequential scan of a band": (with_segment(GOOD, 0xDA, at(7, 5)), "sequential scan of the band 5..63"),
    "the scan twice": (GOOD[:-2] + GOOD[GOOD.index(b"\xff\xda") :], "scan of what is known already"),
    "DC and AC at once": (with_segment(PROGRESSIVE, 0xDA, at(8, 5)), "SOS has the band 0..5"),
    "a bit too far": (with_segment(PROGRESSIVE, 0xDA, at(9, 0x0B)), "bits 0, 11"),
    "a scan left out": (
        re.sub(rb"\xff\xda\0\x0c.*?\xff\xc4", b"\xff\xc4", PROGRESSIVE, count=1, flags=re.S),
        "scan of AC before that of DC",
    ),
    "a marker in the scan": (
        GOOD[:-400] + b"\xff\xd3" + GOOD[-400:],
        "marker that is not due at byte|breaks",
    ),
    "bytes behind the scan": (GOOD[:-2] + bytes(9) + GOOD[-2:], "bytes left over at byte"),
    "10,000 scans": (
        PROGRESSIVE[:-2] + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * 10_000 + b"\xff\xd9",
        "of what is known already",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    data, message = BAD[name]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as caught:
        read_coefficients(data)
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value)
    assert re.search(r"at byte \d+$|starts with|are left$", str(caught.value))


def test_scans_are_bounded() -> None:
    """Also where damage is read as far as it goes."""
    data, _ = BAD["10,000 scans"]
    with pytest.raises(ValueError, match=f"more than {MAX_SCANS} scans"):
        read_coefficients(data, salvage=True)


def test_the_limit_of_pixels() -> None:
    assert read_coefficients(GOOD, max_pixels=2000).width == 50
    with pytest.raises(ValueError, match="50x40, more than 1,999 pixels"):
        read_coefficients(GOOD, max_pixels=1999)


@pytest.mark.parametrize("data", [None, "a.jpg", bytearray(GOOD)])
def test_what_is_not_bytes(data: Any) -> None:
    with pytest.raises(TypeError, match="data is a"):
        read_coefficients(data)


# --- damage ---


@pytest.mark.parametrize("data", [GOOD, PROGRESSIVE], ids=["baseline", "progressive"])
def test_salvage_of_what_is_cut_short(data: bytes) -> None:
    whole = read_coefficients(data)
    for size in range(data.index(b"\xff\xda") + 20, len(data), 97):
        found = read_coefficients(data[:size], salvage=True)
        assert found.tables == whole.tables
        if data is GOOD:
            same = (found.planes[0] == whole.planes[0]).all(axis=2)
            good = int(np.argmin(same)) if not same.all() else same.size
            assert not found.planes[0].reshape(-1, 64)[good + same.shape[1] * 2 + 1 :].any()
    for more in (data + b"abc", data[:-2], data[:2] + b"abc" + data[2:]):
        found = read_coefficients(more, salvage=True)
        assert all(map(np.array_equal, found.planes, whole.planes))


def intervals_of(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """What is before the last scan's data, the intervals without their restarts, the end."""
    start = data.rindex(b"\xff\xda")
    start += 2 + int.from_bytes(data[start + 2 : start + 4])
    return data[:start], re.split(rb"\xff[\xd0-\xd7]", data[start:-2]), data[-2:]


def joined(front: bytes, intervals: list[tuple[int, bytes]], end: bytes) -> bytes:
    """A file of intervals, each with the number of the restart before it."""
    restarts = b"".join(bytes((0xFF, 0xD0 + number % 8)) + part for number, part in intervals)
    return front + restarts[2:] + end


DAMAGE: dict[str, Callable[[list[tuple[int, bytes]]], None]] = {
    "an interval is empty": lambda parts: parts.__setitem__(5, (5, b"")),
    "an interval is too long": lambda parts: parts.__setitem__(5, (5, parts[5][1] + bytes(9))),
    "an interval is noise": lambda parts: parts.__setitem__(5, (5, bytes([0xF7, 0xFE] * 40))),
    "a marker in an interval": lambda parts: parts.__setitem__(5, (5, b"\xff\x3c" + parts[5][1])),
    "an interval is lost": lambda parts: parts.pop(5),
    "two intervals are lost": lambda parts: parts.__delitem__(slice(4, 6)),
    "an interval comes twice": lambda parts: parts.insert(5, parts[4]),
    "a restart is another": lambda parts: parts.__setitem__(5, (9, parts[5][1])),
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", DAMAGE)
def test_salvage_goes_on_at_a_restart(name: str, progressive: bool, read_dct: Read) -> None:
    """As libjpeg does, but that it fills damaged intervals with what it takes for data."""
    rng = np.random.default_rng(0)
    size = 12 * 16
    picture = np.kron(rng.integers(0, 256, (12, 24), np.uint8), np.ones((16, 8), np.uint8))
    picture ^= rng.integers(0, 32, picture.shape, np.uint8)
    data = encode(picture, "standard", 90, restart_rows=1, progressive=progressive)
    front, parts, end = intervals_of(data)
    assert len(parts) == 2 * 12
    numbered = [*enumerate(parts, -1)]
    assert joined(front, numbered, end) == data
    DAMAGE[name](numbered)
    damaged = joined(front, numbered, end)
    with pytest.raises(ValueError, match="at byte"):
        read_coefficients(damaged)
    found, whole = read_coefficients(damaged, salvage=True).planes[0], read_coefficients(data).planes[0]
    (theirs,), _ = read_dct(damaged)
    good = [*range(3), *range(8, size // 8)]
    assert np.array_equal(theirs.reshape(whole.shape)[good], whole[good])
    assert np.array_equal(found[good], whole[good])


def seeds() -> list[bytes]:
    files = []
    for mode, options in (
        ("RGB", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": "4:4:4"}),
        ("RGB", {"restart_blocks": 2}), ("RGB", {"restart_rows": 1, "progressive": True}),
        ("RGB", {"optimize": False}), ("CMYK", {}),
    ):  # fmt: skip
        picture = np.asarray(Image.fromarray(PICTURE).convert(mode))
        files.append(encode(picture, mode=mode, quality=60, **options))
    files.append(encode(PICTURE[:, :, 0], progressive=True))
    return files


def test_mutations() -> None:
    """Whatever happens to a file, it is read or refused in one line, in no time."""
    rng = random.Random(0)
    files = seeds()
    for i in range(1000):
        data = bytearray(files[i % len(files)])
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[place] = rng.randrange(256)
            elif kind == 1:
                data[place] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del data[place : place + rng.randrange(1, 9)]
            else:
                data[place:place] = bytes(
                    rng.choice((0, 255, rng.randrange(256))) for _ in range(rng.randrange(9))
                )
        for salvage in (False, True):
            start = time.perf_counter()
            try:
                read_coefficients(bytes(data), max_pixels=10_000_000, salvage=salvage)
            except ValueError as error:
                assert "\n" not in str(error)
            assert time.perf_counter() - start < 1


def test_malformed(data_dir: Path) -> None:
    """Broken, odd and hostile files from elsewhere."""
    for path in sorted((data_dir / "malformed").iterdir()):
        for salvage in (False, True):
            start = time.perf_counter()
            try:
                read_coefficients(path.read_bytes(), salvage=salvage)
            except ValueError as error:
                assert "\n" not in str(error)
            assert time.perf_counter() - start < 2


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
                assert intervals.find_mark(bytes_array(data), start) == due
