"""What `read_coefficients` refuses: in one line that names the place, and fast."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from whole_files import GOOD, PROGRESSIVE

from dnnjpeg import read_coefficients
from dnnjpeg.codec.read_scans import MAX_SCANS
from dnnjpeg.jpeg.markers import segment


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
    "components alike": (with_segment(GOOD, 0xC0, at(9, 1)), "two components have the same number"),
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
    "a Huffman code of ones only": (
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
        "marker in the wrong place at byte|breaks",
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
