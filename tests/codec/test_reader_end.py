"""Where a scan ends. Of a lone scan the reader guesses it, so what is read must be as if it had searched."""

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transcoding import saved

from dnnjpeg import encode, read_coefficients, transcode
from dnnjpeg.codec import marks, reader
from dnnjpeg.codec.read_scans import NATURAL_ORDER
from dnnjpeg.codec.reader import MAX_PIXELS, FileCoefficients, Unsupported, read_source

COMMENT = b"\xff\xfe\0\5abc"
PIECES = (
    COMMENT, b"\xff\xe5\0\4ab", b"\xff", b"\xff\xff", b"\xff\xd9", b"\xff\xd0", b"\xff\0", b"\0",
    b"\xff\xdc\0\4\0\x38", b"\xff\xdd\0\4\0\3",
)  # fmt: skip


def outcome(read: Any) -> Any:
    """The coefficients and all else, or the error."""
    try:
        found: FileCoefficients = read()
    except ValueError as error:
        return type(error), str(error)
    return [plane.tolist() for plane in found.views()], *found[2:-1]


def searched(data: bytes, order: np.ndarray = NATURAL_ORDER) -> FileCoefficients:
    return reader._Reader(order, MAX_PIXELS, False, False, guess=False).read(data, b"")


def test_the_end_of_a_lone_scan_is_not_searched(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(photo)
    planes = read_coefficients(data).planes
    monkeypatch.setattr(marks, "find_mark", pytest.fail)
    assert all(map(np.array_equal, read_coefficients(data).planes, planes))
    assert len(transcode(data, "standard", 40)) < len(data)


@pytest.mark.parametrize("strip", [False, True])
def test_a_comment_behind_the_scan_is_kept(photo: Image.Image, strip: bool) -> None:
    data = saved(photo)
    with_comment = data[:-2] + COMMENT + data[-2:]
    assert read_coefficients(with_comment).segments[-1] == COMMENT
    made = transcode(with_comment, "standard", 40, strip=strip)
    assert (COMMENT in made) == (not strip)
    assert read_coefficients(made).planes[0].shape == read_coefficients(data).planes[0].shape


def test_a_second_picture_is_told_from_the_scan(photo: Image.Image) -> None:
    data = saved(photo)
    two = data[:2] + b"\xff\xe2\0\x08MPF\0ab" + data[2:] + data
    for later in (False, True):
        with pytest.raises(Unsupported, match="further pictures"):
            read_source(two, NATURAL_ORDER, later=later)


def damaged(seeds: list[bytes], rng: random.Random) -> bytes:
    """A file with bytes changed, put in or cut out, often around the end of its scan."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        begin = data.find(b"\xff\xda")
        at = rng.choice((rng.randrange(2, len(data)), rng.randrange(begin, len(data)), len(data) - 2, begin))
        how = rng.randrange(5)
        if how == 0:
            data[at] = rng.randrange(256)
        elif how < 3:
            data[at:at] = rng.choice(PIECES)
        elif how == 3:
            del data[at : at + rng.randrange(1, 4)]
        else:
            data += rng.choice((b"\0", b"\xff\xd9", b"\xff", COMMENT + b"\xff\xd9"))
        if len(data) < 400:
            break
    return bytes(data)


def test_what_is_read_is_as_if_the_end_were_searched(photo: Image.Image) -> None:
    rng, small = random.Random(0), photo.resize((40, 24))
    seeds = [saved(small, subsampling=way, restart_marker_blocks=k) for way in (0, 2) for k in (0, 3)]
    seeds += [saved(small.convert("L")), saved(small, progressive=True), encode(small, restart_rows=1)]
    read = 0
    for _ in range(1500):
        data = damaged(seeds, rng)
        expected = outcome(lambda data=data: searched(data))
        assert outcome(lambda data=data: read_source(data, NATURAL_ORDER)) == expected
        read += len(expected) > 2
        with pytest.MonkeyPatch.context() as patch:
            made = [_made(data)]
            patch.setattr("dnnjpeg.transcoder.read_source", lambda data, order, **_: searched(data, order))
            made.append(_made(data))
        assert made[0] == made[1]
    assert 300 < read < 1300


def _made(data: bytes) -> bytes | str:
    try:
        return transcode(data, "standard", 60, strip=True)
    except ValueError as error:
        return str(error)
