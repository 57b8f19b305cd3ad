"""Damaged files: read as far as they go with `salvage`, and never a crash or a long wait."""

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from decoders import Read
from PIL import Image
from whole_files import GOOD, PICTURE, PROGRESSIVE

from dnnjpeg import encode, read_coefficients
from dnnjpeg.jpeg import markers


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


def test_a_coefficient_behind_the_block_leaves_no_trace() -> None:
    """Of four coefficients with 15 zeros before each, the last would be the 65th of the block."""

    def table(kind: int, symbol: int) -> bytes:
        return markers.dht(bytes([kind, 1, *[0] * 15, symbol]))  # the code 0

    bits = "0" + 4 * "01" + 7 * "1"
    data = int(bits, 2).to_bytes(2, "big").replace(b"\xff", b"\xff\0")
    tables = markers.dqt(((1,) * 64,)) + table(0x00, 0) + table(0x10, 0xF1)
    head = (
        markers.SOI + tables + markers.sof(0, 8, 8, [(1, 1, 0)]) + markers.sos(((0, 0, 0),), (0, 63), (0, 0))
    )
    with pytest.raises(ValueError, match="beyond the last one of a block"):
        read_coefficients(head + data + markers.EOI)
    (plane,) = read_coefficients(head + data + markers.EOI, salvage=True).planes
    assert np.flatnonzero(plane[0, 0][list(markers.NATURAL)]).tolist() == [16, 32, 48]
