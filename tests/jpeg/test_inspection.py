"""`inspect` against Pillow, against files put together by hand, and on damaged ones."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import dnnjpeg
from dnnjpeg.jpeg.inspect import Likeness, inspect
from dnnjpeg.jpeg.segments import Component
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_scale


def save(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def frame(width: int = 8, height: int = 8, factors: tuple[int, ...] = (0x11,), kind: int = 0xC0) -> bytes:
    parts = b"".join(bytes([i + 1, factor, min(i, 1)]) for i, factor in enumerate(factors))
    return segment(kind, bytes([8]) + height.to_bytes(2) + width.to_bytes(2) + bytes([len(factors)]) + parts)


SOI, EOI, DQT, DHT = (
    b"\xff\xd8",
    b"\xff\xd9",
    segment(0xDB, b"\0" + b"\1" * 64),
    segment(0xC4, b"\0" + b"\0" * 16),
)
SOS = segment(0xDA, b"\1\1\0\0\x3f\0")


def check_against_pillow(data: bytes) -> None:
    found = inspect(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (found.width, found.height, found.precision) == (*image.size, image.bits)
        assert (found.kind == "progressive") == ("progressive" in image.info)
        layers = [(one.id, one.horizontal, one.vertical, one.table) for one in found.components]
        assert layers == image.layer
        assert found.quantization == {number: tuple(steps) for number, steps in image.quantization.items()}
        for name, key in (
            ("JFIF", "jfif"),
            ("EXIF", "exif"),
            ("ICC", "icc_profile"),
            ("Adobe", "adobe"),
            ("XMP", "xmp"),
        ):
            assert (name in found.metadata) == (key in image.info), name
    assert sum(found.segments.values()) == len(data)
    assert found.header_bytes + found.scan_bytes + found.trailing_bytes == len(data)
    assert found.complete


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "restart_marker_rows": 1}])
def test_pillows_files(photo: Image.Image, mode: str, subsampling: int, options: dict) -> None:
    data = save(photo.convert(mode), subsampling=subsampling, quality=62, **options)
    check_against_pillow(data)
    found = inspect(data)
    if mode == "RGB":
        assert found.subsampling == ("4:4:4", "4:2:2", "4:2:0")[subsampling]
    elif mode == "L":
        assert found.subsampling == "4:0:0"
    assert found.kind == ("progressive" if "progressive" in options else "baseline")
    if options.get("progressive"):
        assert (
            found.scans == {"L": 6, "RGB": 10, "CMYK": found.scans}[mode]
        )  # jpeg_simple_progression's scripts
        assert found.scans > 1
    else:
        assert (found.scans, found.huffman_tables) == (1, 4 if mode == "RGB" else 2)
    assert (found.restart_interval > 0) == ("restart_marker_rows" in options)


def test_web_photographs(data_dir: Path) -> None:
    files = sorted((data_dir / "photos" / "web").glob("*.jpg"))
    assert files
    for path in files:
        check_against_pillow(path.read_bytes())


@pytest.mark.parametrize("quality", range(1, 101))
def test_the_standard_quality_is_recognised(photo: Image.Image, quality: int) -> None:
    found = inspect(save(photo, quality=quality))
    assert found.luma == found.chroma == Likeness(quality, True)


def test_tables_that_are_not_standard_resemble_some(photo: Image.Image) -> None:
    found = inspect(save(photo, qtables=[[s + 1 for s in ijg_scale(STANDARD_LUMA, 70)], STANDARD_CHROMA]))
    assert found.luma is not None and not found.luma.exact and abs(found.luma.quality - 70) <= 4
    assert found.chroma == Likeness(50, True)
    found = inspect(save(photo, qtables=[STANDARD_LUMA, STANDARD_CHROMA, ijg_scale(STANDARD_CHROMA, 60)]))
    assert found.chroma is not None and 50 <= found.chroma.quality <= 60 and not found.chroma.exact
    assert inspect(save(photo, qtables=[STANDARD_LUMA])).chroma is None
    assert inspect(save(photo.convert("L"))).chroma is None


def test_metadata_and_comment(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = bytes(range(256)) * 512  # more than a segment holds
    data = save(photo, exif=exif, xmp=b"<x/>", icc_profile=profile, comment="drawn in Köln\n")
    found = inspect(data)
    check_against_pillow(data)
    assert set(found.metadata) == {"JFIF", "EXIF", "XMP", "ICC"}
    assert found.comment == found.made_by == "drawn in Köln"
    assert found.segments["APP2"] == len(profile) + 3 * (14 + 4)
    assert inspect(save(photo)).made_by == "unknown"
    assert inspect(SOI + segment(0xFE, b"one") + segment(0xFE, b"two") + DQT + EOI).comment == "one"
    latin = data.replace("drawn in Köln\n".encode(), "drawn in Köln..".encode("latin-1"))
    assert inspect(latin).comment == "drawn in Köln.."


@pytest.mark.parametrize(
    ("content", "table", "quality"),
    [
        (b"resnet50 75", "resnet50", 75),
        (b"two words 62.5", "two words", 62.5),
        (b"resnet50", None, None),
        (b"resnet50 nan", None, None),
        (b"resnet50 101", None, None),
        (b"\xff 75", None, None),
    ],
)
def test_our_signature(photo: Image.Image, content: bytes, table: str | None, quality: float | None) -> None:
    data = save(photo, comment="theirs")
    found = inspect(data[:2] + segment(0xE9, b"dnnjpeg\0" + content) + data[2:])
    assert (found.table, found.quality) == (table, quality)
    assert found.made_by == (f"dnnjpeg {content.decode()}" if table else "theirs")


def test_a_file_put_together_by_hand() -> None:
    """Fill bytes, stuffing, restarts, a second scan, tables between scans, stray and trailing bytes."""
    scan = b"\x12\xff\x00\xff\xd0\x34\xff\xd7\xff\x01"
    data = SOI + b"\xff\xff\xff" + segment(0xFE, b"hi\0") + b"stray\xff\x00" + DQT
    data += (
        frame(factors=(0x22, 0x11, 0x11))
        + DHT
        + segment(0xDD, b"\0\7")
        + SOS
        + scan
        + b"\xff"
        + DHT
        + SOS
        + scan
    )
    data += b"\xff\xff" + EOI + b"\xff\xd8 and more"
    found = inspect(data)
    assert found.segments == {
        "SOI": 2,
        "COM": 3 + 7,
        "stray": 7,
        "DQT": 69,
        "SOF0": 19,
        "DHT": 21 + 1 + 21,
        "DRI": 6,
        "SOS": 10 + 10,
        "scan": 2 * len(scan),
        "EOI": 2 + 2,
        "trailing": 11,
    }
    assert sum(found.segments.values()) == len(data)
    assert (found.scan_bytes, found.trailing_bytes, found.header_bytes) == (20, 11, len(data) - 31)
    assert (found.scans, found.huffman_tables, found.restart_interval, found.comment) == (2, 2, 7, "hi")
    assert found.components == (Component(1, 2, 2, 0), Component(2, 1, 1, 1), Component(3, 1, 1, 1))


@pytest.mark.parametrize(
    ("factors", "name"),
    [
        ((0x11, 0x11, 0x11), "4:4:4"),
        ((0x22, 0x22, 0x22), "4:4:4"),
        ((0x21, 0x11, 0x11), "4:2:2"),
        ((0x22, 0x12, 0x12), "4:2:2"),
        ((0x22, 0x11, 0x11), "4:2:0"),
        ((0x12, 0x11, 0x11), "4:4:0"),
        ((0x41, 0x11, 0x11), "4:1:1"),
        ((0x22, 0x11, 0x11, 0x22), "4:2:0"),
        ((0x22, 0x11, 0x11, 0x11), "2x2,1x1,1x1,1x1"),
        ((0x42, 0x11, 0x11), "4x2,1x1,1x1"),
        ((0x22, 0x11, 0x21), "2x2,1x1,2x1"),
        ((0x21, 0x11), "2x1,1x1"),
        ((0x22,), "4:0:0"),
    ],
)
def test_subsampling_names(factors: tuple[int, ...], name: str) -> None:
    assert inspect(SOI + DQT + frame(factors=factors) + DHT + SOS + EOI).subsampling == name


@pytest.mark.parametrize(
    ("marker", "kind"),
    [
        (0xC0, "baseline"),
        (0xC1, "extended sequential"),
        (0xC2, "progressive"),
        (0xC3, "lossless"),
        (0xCA, "progressive, arithmetic"),
    ],
)
def test_kinds_of_frames(marker: int, kind: str) -> None:
    assert inspect(SOI + frame(kind=marker) + SOS + EOI).kind == kind


def test_sixteen_bit_steps() -> None:
    wide = segment(0xDB, b"\x11" + b"".join((300 + i).to_bytes(2) for i in range(64)) + b"\0" + b"\2" * 64)
    found = inspect(SOI + wide + frame() + SOS + EOI)
    assert found.quantization[0] == (2,) * 64
    assert found.quantization[1][:10] == (300, 301, 305, 306, 314, 315, 327, 328, 302, 304)  # T.81 Figure A.6


def test_a_height_that_follows_the_scan() -> None:
    found = inspect(SOI + DQT + frame(height=0) + SOS + b"abc" + segment(0xDC, b"\1\2") + EOI)
    assert (found.width, found.height) == (8, 258)
    found = inspect(SOI + DQT + frame(height=9) + SOS + b"abc" + segment(0xDC, b"\1\2") + EOI)
    assert found.height == 9


def test_abbreviated_streams(photo: Image.Image) -> None:
    tables = inspect(save(photo, streamtype=1, quality=80))
    assert (tables.kind, tables.width, tables.height, tables.scans, tables.components) == (
        "tables only",
        0,
        0,
        0,
        (),
    )
    assert (tables.luma, tables.chroma) == (Likeness(80, True), Likeness(80, True))
    picture = inspect(save(photo, streamtype=2, quality=80))
    assert (picture.width, picture.height, picture.scans, picture.quantization) == (160, 120, 1, {})
    assert picture.luma is picture.chroma is None
    assert tables.huffman_tables == 4 and picture.huffman_tables == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG: it starts with nothing"),
        (b"\x89PNG\r\n", "not a JPEG: it starts with 89 50 4e 47"),
        (SOI, "no frame header"),
        (SOI + DQT, "no frame header"),
        (SOI + DQT + frame(), "no scan"),
        (SOI + DQT + frame() + EOI, "no scan"),
        (SOI + SOS + EOI, "a scan before the frame header"),
        (SOI + frame() + frame() + SOS + EOI, "a second frame header"),
        (SOI + frame(width=0) + SOS + EOI, "the picture is 0x8"),
        (SOI + frame(height=0) + SOS + EOI, "the picture is 8x0"),
        (SOI + frame(factors=(0x15,)) + SOS + EOI, "component 1 has sampling 1x5"),
        (
            SOI + segment(0xC0, b"\x08\0\1\0\1\2\1\x11\0") + EOI,
            "SOF has 9 bytes of content, for 2 components",
        ),
        (SOI + segment(0xC0, b"") + EOI, "SOF has 0 bytes of content"),
        (SOI + DQT[:-1], "DQT at byte 2 says that it has 67 bytes, 66 are left"),
        (SOI + b"\xff\xfe\0\1", "COM at byte 2 says that it has 1 bytes"),
        (SOI + b"\xff\xfe\0", "COM at byte 2 says"),
        (SOI + segment(0xDB, b"\4" + b"\1" * 64), "DQT: table 4"),
        (SOI + segment(0xDB, b"\0" + b"\1" * 63), "DQT: table 0"),
        (SOI + segment(0xC4, b"\0" + b"\1" * 16), "DHT: table 00"),
        (SOI + segment(0xC4, b"\x20" + b"\0" * 16), "DHT: table 20"),
        (SOI + segment(0xC4, b"\0" + b"\x11" * 16 + b"\0" * 272), "DHT: table 00 with 272 symbols"),
        (SOI + segment(0xDD, b"\0"), "DRI has 1 bytes of content, expected 2"),
        (SOI + SOI, "unexpected marker ffd8 at byte 2"),
        (SOI + b"\xff\x02", "unexpected marker ff02 at byte 2"),
        (SOI + segment(0xDE, b"") + EOI, "unexpected marker ffde at byte 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}") as caught:
        inspect(data)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_in_its_scan_is_told(photo: Image.Image) -> None:
    data = save(photo)
    found = inspect(data[:-100])
    assert not found.complete
    assert sum(found.segments.values()) == len(data) - 100


def test_malformed_files(data_dir: Path) -> None:
    """Each is read or refused, and none that Pillow decodes whole is refused."""
    files = sorted((data_dir / "malformed").glob("*.jpg"))
    assert len(files) > 100
    for path in files:
        data = path.read_bytes()
        try:
            assert sum(inspect(data).segments.values()) == len(data)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
            with (
                pytest.raises((OSError, SyntaxError, Image.DecompressionBombError)),
                Image.open(path) as image,
            ):
                image.load()


TINY = save(Image.linear_gradient("L").resize((24, 16)).convert("RGB"), progressive=True, comment="c")


@given(st.data())
@settings(max_examples=300)
def test_damage_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(TINY)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(TINY) - 1))] = data.draw(
            st.sampled_from([0, 1, 0xC0, 0xDA, 0xFF]) | st.integers(0, 255)
        )
    cut = bytes(damaged[: data.draw(st.just(None) | st.integers(0, len(TINY)))])
    try:
        found = inspect(cut)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert sum(found.segments.values()) == len(cut)
        json.dumps(found.to_json())


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    data = SOI + frame() + SOS + noise
    try:
        assert sum(inspect(data).segments.values()) == len(data)
    except ValueError as error:
        assert "\n" not in str(error)


TABLES = segment(0xC4, b"\0" * 17 * 3800) + segment(0xDB, (b"\0" + b"\1" * 64) * 1000)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit",
    [TABLES, b"\xff", b"\xff\xd0", b"\xff\xfe\0\2", b"\xff\x00", b"\0", SOS, SOS + b"\xff\xff\0", b"random"],
)
def test_hostile_megabytes_take_seconds_at_most(unit: bytes) -> None:
    size = 1_000_000
    body = random.Random(0).randbytes(size) if unit == b"random" else unit * (size // len(unit))
    for data in (SOI + DQT + frame() + SOS + body, SOI + DQT + frame() + SOS + body + EOI, SOI + body):
        try:
            assert sum(inspect(data).segments.values()) == len(data)
        except ValueError as error:
            assert "\n" not in str(error)


def test_the_face_has_it(photo: Image.Image) -> None:
    found = dnnjpeg.inspect(save(photo))
    document = json.loads(json.dumps(found.to_json()))
    assert document["made_by"] == "unknown"
    assert document["components"][0] == {"id": 1, "horizontal": 2, "vertical": 2, "table": 0}
    assert document["header_bytes"] == found.header_bytes


@pytest.mark.parametrize("data", ["photo.jpg", Path("photo.jpg"), None, 5, io.BytesIO()])
def test_only_bytes_are_inspected(data: Any) -> None:
    with pytest.raises(TypeError, match=f"data is a {type(data).__name__}, expected the bytes of a file"):
        inspect(data)


def test_whatever_holds_bytes_is_inspected(photo: Image.Image) -> None:
    data = dnnjpeg.encode(photo)
    for held in (bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert inspect(held) == inspect(data)
