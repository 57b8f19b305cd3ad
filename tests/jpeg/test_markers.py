"""Marker segments: metadata as Pillow reads it back, headers as small as is legal, abbreviated streams."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from decoders import Decode, Read
from PIL import Image, ImageCms, ImageFile

from dnnjpeg import OperatingPoint, Table, encode, tables_only, write_coefficients
from dnnjpeg.jpeg.inspect import inspect

SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment up to the scan header; then the rest as one."""
    assert data.startswith(SOI)
    at = 2
    while data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
        size = int.from_bytes(data[at + 2 : at + 4])
        yield data[at + 1], data[at + 4 : at + 2 + size]
        at += 2 + size
    yield data[at + 1], data[at:]


def named(data: bytes) -> list[str]:
    names = {
        0xDB: "DQT",
        0xC0: "SOF0",
        0xC2: "SOF2",
        0xC4: "DHT",
        0xDD: "DRI",
        0xDA: "SOS",
        0xD9: "EOI",
        0xFE: "COM",
    }
    return [names.get(marker, f"APP{marker - 0xE0}") for marker, _ in segments(data)]


def opened(data: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# --- the smallest header ---


def test_a_file_has_only_what_it_needs(photo: Image.Image) -> None:
    for image in (photo, photo.convert("L")):
        assert named(encode(image, signature=False)) == ["DQT", "SOF0", "DHT", "SOS"]
        assert named(encode(image, signature=False, optimize=False)) == ["DQT", "SOF0", "DHT", "SOS"]
        assert named(encode(image, signature=False, restart_rows=1)) == ["DQT", "SOF0", "DHT", "DRI", "SOS"]
        assert named(encode(image, signature=False, progressive=True))[:3] == ["DQT", "SOF2", "DHT"]
    cmyk = encode(photo.convert("CMYK"), signature=False)
    assert named(cmyk) == ["APP14", "DQT", "SOF0", "DHT", "SOS"]
    assert opened(cmyk).info["adobe_transform"] == 0


def test_sizes_of_headers(photo: Image.Image) -> None:
    gray = inspect(encode(photo.convert("L"), signature=False))
    assert gray.segments["DQT"] == 2 + 2 + 65 and gray.segments["SOF0"] == 13 and gray.segments["SOS"] == 10
    assert inspect(encode(photo, signature=False)).segments["DQT"] == 2 + 2 + 2 * 65
    point = OperatingPoint(50, "4:2:0", (9,) * 64, ((7,) * 64, (8,) * 64))
    assert inspect(encode(photo, point)).segments["DQT"] == 2 + 2 + 3 * 65
    assert (
        inspect(encode(photo, OperatingPoint(50, "4:2:0", (9,) * 64, (9,) * 64))).segments["DQT"]
        == 2 + 2 + 65
    )


def test_a_tiny_picture_shares_its_huffman_tables() -> None:
    """One pair of tables for all components where a second costs more than it saves."""
    data = encode(np.full((16, 16, 3), 200, np.uint8), signature=False)
    (dht,) = (content for marker, content in segments(data) if marker == 0xC4)
    assert (dht[0], dht[1 + 16 + sum(dht[1:17])]) == (0x00, 0x10)
    assert len(dht) == (1 + 16 + sum(dht[1:17])) + (1 + 16 + 1)  # two tables; the AC one has EOB alone


def test_components_are_numbered_from_1_so_that_no_app0_is_needed(photo: Image.Image) -> None:
    assert [one.id for one in inspect(encode(photo)).components] == [1, 2, 3]
    assert opened(encode(photo)).mode == "RGB"
    difference = np.asarray(opened(encode(photo, quality=100, subsampling="4:4:4")), int) - np.asarray(photo)
    assert np.abs(difference).mean() < 2


def test_interval_is_written_once_for_scans_that_share_it(photo: Image.Image) -> None:
    def intervals(**options: int) -> int:
        return encode(photo, "standard", progressive=True, signature=False, **options).count(
            b"\xff\xdd\0\x04"
        )

    assert intervals() == 0
    assert intervals(restart_blocks=9) == 1
    assert intervals(restart_rows=1) > 1  # rows of luma, of chroma and of both are of different lengths


# --- metadata ---


def test_exif(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    with_prefix = exif.tobytes()
    assert with_prefix.startswith(b"Exif\0\0")
    data = encode(photo, exif=with_prefix)
    assert dict(opened(data).getexif()) == {0x0112: 6, 0x010E: "a picture"}
    assert encode(photo, exif=with_prefix[6:]) == data
    assert opened(data).info["exif"] == with_prefix


def test_xmp_comment_and_dpi(photo: Image.Image) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    image = opened(encode(photo, xmp=xmp, comment=b"a remark \xff\xd9", dpi=(300, 150)))
    assert image.info["xmp"] == xmp
    assert image.info["comment"] == b"a remark \xff\xd9"
    assert image.info["dpi"] == (300, 150)
    assert image.info["jfif_density"] == (300, 150) and image.info["jfif_unit"] == 1


@pytest.mark.parametrize("size", [1, 500, 65519, 65520, 200_000])
def test_icc_profiles_of_any_size(size: int, photo: Image.Image) -> None:
    profile = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    data = encode(photo, icc_profile=profile)
    assert opened(data).info["icc_profile"] == profile
    assert named(data).count("APP2") == -(-size // 65519)


def test_a_real_profile(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = opened(encode(photo, icc_profile=profile))
    assert ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"])).tobytes() == profile


def test_metadata_of_every_kind_at_once(photo: Image.Image, decode: Decode) -> None:
    plain = decode(encode(photo, signature=False))
    options: dict[str, Any] = {
        "exif": b"MM\0*\0\0\0\x08\0\0",
        "xmp": b"<x/>",
        "icc_profile": bytes(70_000),
        "comment": b"remark",
        "dpi": (72, 72),
    }
    for progressive in (False, True):
        data = encode(photo, progressive=progressive, **options)
        assert np.array_equal(decode(data), plain)
        assert named(data)[:7] == ["APP0", "APP1", "APP1", "APP2", "APP2", "COM", "APP9"]
    planes = [np.zeros((1, 1, 64), int)]
    written = opened(write_coefficients(planes, [np.ones(64, int)], 8, 8, **options))
    assert written.info["comment"] == b"remark" and written.info["dpi"] == (72, 72)
    assert len(written.info["icc_profile"]) == 70_000


def test_jfif_only_where_something_needs_it(photo: Image.Image) -> None:
    assert "jfif" not in opened(encode(photo)).info
    image = opened(encode(photo, jfif=True))
    assert (
        image.info["jfif_version"] == (1, 1)
        and image.info["jfif_density"] == (1, 1)
        and image.info["jfif_unit"] == 0
    )
    assert named(encode(photo, jfif=True))[0] == "APP0"
    assert opened(encode(photo, dpi=(299.6, 300.4))).info["jfif_density"] == (300, 300)


def test_signature_names_table_and_quality(photo: Image.Image) -> None:
    def content(*arguments: Any, **options: Any) -> list[bytes]:
        return [
            content for marker, content in segments(encode(photo, *arguments, **options)) if marker == 0xE9
        ]

    point = OperatingPoint(33.5, "4:2:0", (9,) * 64, (9,) * 64)
    assert content() == [b"dnnjpeg\0universal 75"]
    assert content("standard", 82.25) == [b"dnnjpeg\0standard 82.25"]
    assert content(Table("mein Netz é", (point,)), 33.5) == ["dnnjpeg\0mein Netz é 33.5".encode()]
    assert content(point) == [b"dnnjpeg\0custom 33.5"]
    assert content(signature=False) == []


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("EXIF data is too long: 65,534 bytes, expected at most 65,533", {"exif": bytes(65528)}),
        ("XMP data is too long", {"xmp": bytes(65505)}),
        ("comment is too long: 65,534 bytes", {"comment": bytes(65534)}),
        (
            "ICC profile is too long: 16,707,346 bytes, expected at most 16,707,345",
            {"icc_profile": bytes(255 * 65519 + 1)},
        ),
    ],
)
def test_what_does_not_fit_is_refused(message: str, options: dict[str, bytes], photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=message):
        encode(photo, **options)
    ((name, value),) = options.items()
    encode(photo, **{name: value[:-1]})


@pytest.mark.parametrize("name", ["exif", "xmp", "icc_profile", "comment"])
@pytest.mark.parametrize("value", ["text", None, 5, bytearray(b"x"), [1, 2]])
def test_metadata_is_bytes(name: str, value: Any, photo: Image.Image) -> None:
    with pytest.raises(TypeError, match=f"{name} is a {type(value).__name__}, expected bytes"):
        encode(photo, **{name: value})


@pytest.mark.parametrize(
    "dpi",
    [300, (300,), (300, 300, 300), (0, 72), (72, -1), (70000, 72), (72, float("nan")), ("72", "72"), "72"],
)
def test_wrong_densities(dpi: Any, photo: Image.Image) -> None:
    with pytest.raises(ValueError, match=r"dpi is .*, expected two numbers 1\.\.65535"):
        encode(photo, dpi=dpi)


# --- abbreviated streams (T.81 B.5) ---


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"restart_blocks": 4}, {"hardness": 2}, {"subsampling": "4:1:1"}])
def test_tables_and_picture_make_the_whole_file(
    mode: str, options: dict[str, Any], photo: Image.Image
) -> None:
    image = photo.convert(mode)
    options = {"signature": False, "quality": 60, **options}
    whole = encode(image, optimize=False, **options)
    tables = tables_only(quality=60, components={"L": 1, "RGB": 3, "CMYK": 4}[mode])
    picture = encode(image, abbreviated=True, **options)
    assert named(tables) == ["DQT", "DHT", "EOI"]
    assert not {"DQT", "DHT"} & set(named(picture))
    assert len(tables) + len(picture) == len(whole) + 4
    # a decoder that has read the tables reads the picture as if they were one
    spliced = tables[:-2] + picture[2:]
    assert np.array_equal(np.asarray(opened(spliced)), np.asarray(opened(whole)))
    # and with the segments put in the order of a file it is the file
    by_marker = dict(segments(tables))
    parts = []
    for marker, content in segments(picture):
        segment = (
            content if marker == 0xDA else bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content
        )
        if marker == 0xC0:
            parts.append(b"\xff\xdb" + (len(by_marker[0xDB]) + 2).to_bytes(2) + by_marker[0xDB] + segment)
            parts.append(b"\xff\xc4" + (len(by_marker[0xC4]) + 2).to_bytes(2) + by_marker[0xC4])
        else:
            parts.append(segment)
    assert SOI + b"".join(parts) == whole


def test_tables_serve_every_picture_of_their_kind(photo: Image.Image) -> None:
    tables = tables_only()
    for angle in (0, 90):
        image = photo.rotate(angle, expand=True)
        picture = encode(image, abbreviated=True)
        assert np.array_equal(
            np.asarray(opened(tables[:-2] + picture[2:])), np.asarray(opened(encode(image)))
        )


def test_abbreviated_streams_of_coefficients(read_dct: Read) -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(-9, 9, (2, 3, 64)) for _ in range(3)]
    steps = [np.full(64, 3), np.full(64, 5)]
    tables = tables_only(OperatingPoint.from_tables(steps))
    picture = write_coefficients(planes, steps, 24, 16, abbreviated=True)
    found, steps = read_dct(tables[:-2] + picture[2:])
    assert all(np.array_equal(one.reshape(2, 3, 64), other) for one, other in zip(found, planes, strict=True))
    assert [int(step[0, 0]) for step in steps] == [3, 5, 5]


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("components is 2, expected 1, 3 or 4", {"components": 2}),
        ("quality is 0", {"quality": 0}),
        ("no table is named 'none'", {"table": "none"}),
        ("give one of them", {"table": "standard", "model": "resnet18"}),
    ],
)
def test_wrong_options_of_tables_only(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        tables_only(**options)


@pytest.mark.parametrize("options", [{"progressive": True}, {"progressive": "auto"}, {"optimize": True}])
def test_abbreviated_streams_have_the_standard_tables(options: dict[str, Any], photo: Image.Image) -> None:
    with pytest.raises(ValueError, match="an abbreviated picture cannot"):
        encode(photo, abbreviated=True, **options)
