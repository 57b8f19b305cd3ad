"""The Pillow plugin against Pillow's own JPEG writer."""

import io
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from saving import (
    MODES,
    closeness,
    huffman_tables,
    refused,
    save,
    save_and_open,
    segments,
    tables,
)

import dnnjpeg
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.plugins import pillow, pillow_options

# Pictures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quality", [30, 90])
def test_every_mode_decodes_as_pillows(photo: Image.Image, mode: str, quality: int) -> None:
    image = photo.convert("RGB").convert(mode)
    ours, theirs = (save_and_open(image, f, quality=quality) for f in ("DNNJPEG", "JPEG"))
    assert (ours.format, ours.mode, ours.size) == ("JPEG", theirs.mode, theirs.size)
    assert tables(ours) == tables(theirs)
    assert closeness(ours, theirs) < 1.5


@pytest.mark.parametrize("mode", ["P", "PA", "LA", "La", "RGBA", "RGBa", "LAB", "HSV", "I", "F", "I;16"])
def test_other_modes_are_refused_as_by_pillow(mode: str) -> None:
    refused(Image.new(mode, (8, 8)), OSError, f"cannot write mode {mode} as JPEG")


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_empty_picture(size: tuple[int, int]) -> None:
    refused(Image.new("RGB", size), ValueError, "empty")


def test_too_large_picture() -> None:
    refused(Image.new("L", (65536, 1)), ValueError, "65,?535")


def test_sizes_beyond_pillows_limit() -> None:
    with pytest.warns(UserWarning, match="65,535 x 2 pixels, and most decoders stop at 65,500"):
        data = save(Image.new("L", (65535, 2)))
    assert Image.open(io.BytesIO(data)).size == (65535, 2)


# Entropy coding and structure


def test_optimize(photo: Image.Image) -> None:
    assert huffman_tables(save(photo, optimize=False)) == huffman_tables(save(photo, "JPEG"))
    assert len(save(photo)) == len(save(photo, optimize=True)) < len(save(photo, optimize=False))


def test_progressive(photo: Image.Image) -> None:
    plain = save_and_open(photo)
    assert "progressive" not in plain.info
    for options in ({"progressive": True}, {"progressive": 1}, {"progression": True}):
        progressive = save_and_open(photo, **options)
        assert progressive.info["progressive"]
        assert closeness(progressive, plain) == 0
    both = [len(save(photo, progressive=value)) for value in (False, True)]
    assert len(save(photo, progressive="auto")) == min(both)
    refused(photo, ValueError, "progressive", progressive="yes")


@pytest.mark.parametrize("options", [{"restart_marker_blocks": 3}, {"restart_marker_rows": 1}])
def test_restart_markers(photo: Image.Image, options: dict[str, int]) -> None:
    ours, theirs = (dict(segments(save(photo, f, **options))) for f in ("DNNJPEG", "JPEG"))
    assert ours[0xDD] == theirs[0xDD]
    assert b"\xff\xd0" in save(photo, **options)
    assert closeness(save_and_open(photo, **options), save_and_open(photo)) == 0


@pytest.mark.parametrize("name", ["restart_marker_blocks", "restart_marker_rows"])
@pytest.mark.parametrize("value", [-1, 65536, 1.5])
def test_bad_restart_markers(photo: Image.Image, name: str, value: Any) -> None:
    refused(photo, ValueError, "restart", **{name: value})


def test_streamtype(photo: Image.Image) -> None:
    whole, only_tables, only_image = (save(photo, streamtype=i, optimize=False) for i in (0, 1, 2))
    assert {marker for marker, _ in segments(only_tables)} == {0xDB, 0xC4}
    assert only_tables[-2:] == b"\xff\xd9"
    assert not {0xDB, 0xC4} & {marker for marker, _ in segments(only_image)}
    joined = Image.open(io.BytesIO(only_tables[:-2] + only_image[2:]))
    assert closeness(joined, Image.open(io.BytesIO(whole))) == 0
    refused(photo, ValueError, "streamtype", streamtype=3)


# Files and registration


def test_jpg_and_opening_stay_pillows(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "theirs.jpg")
    assert (tmp_path / "theirs.jpg").read_bytes() == save(photo, "JPEG")
    photo.save(tmp_path / "ours.jpg", "DNNJPEG")
    assert (tmp_path / "ours.jpg").read_bytes() == save(photo) == save(photo, "dnnjpeg")
    with Image.open(tmp_path / "ours.jpg") as opened:
        assert opened.format == "JPEG"
    assert "DNNJPEG" not in Image.OPEN
    assert "DNNJPEG" not in Image.registered_extensions().values()
    assert Image.MIME["DNNJPEG"] == "image/jpeg"


def test_a_fresh_process() -> None:
    program = """
import io, sys
from PIL import Image
image = Image.new("RGB", (8, 8))
try:
    image.save(io.BytesIO(), "DNNJPEG")
except KeyError as error:
    assert error.args == ("DNNJPEG",)
else:
    raise AssertionError("known before the import")
import dnnjpeg
heavy = {"numpy", "numba", "cv2", "torch"} & sys.modules.keys()
assert not heavy, heavy
buffer = io.BytesIO()
image.save(buffer, "DNNJPEG")
assert Image.open(buffer).size == (8, 8)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_save_all_is_refused_before_the_file_is_touched(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"old")
    with pytest.raises(KeyError, match="DNNJPEG"):
        photo.save(path, "DNNJPEG", save_all=True)
    assert path.read_bytes() == b"old"
    photo.save(path, "DNNJPEG", save_all=False)
    assert path.read_bytes() == save(photo)


def test_a_refused_save_leaves_no_new_file(photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        photo.save(tmp_path / "x.jpg", "DNNJPEG", modle="resnet50")
    assert list(tmp_path.iterdir()) == []


def test_pillow_empties_an_old_file_before_it_asks(photo: Image.Image, tmp_path: Path) -> None:
    """As the module says; once Pillow stops doing so, it may say less."""
    (tmp_path / "x.jpg").write_bytes(b"old")
    with pytest.raises(TypeError):
        photo.save(tmp_path / "x.jpg", "DNNJPEG", modle="resnet50")
    assert (tmp_path / "x.jpg").read_bytes() == b""


def test_the_way_that_keeps_an_old_file(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomic(path, pillow.encode(photo, modle="resnet50"))
    assert path.read_bytes() == b"old"
    write_atomic(path, pillow.encode(photo, quality=60))
    assert path.read_bytes() == save(photo, quality=60)


def test_one_write(photo: Image.Image) -> None:
    class Target:
        """No more than what Pillow asks of a file object."""

        calls: list[bytes]

        def __init__(self) -> None:
            self.calls = []

        def write(self, data: bytes) -> int:
            self.calls.append(data)
            return len(data)

    target: Any = Target()
    photo.save(target, "DNNJPEG")
    assert target.calls == [save(photo)]


def test_a_raw_file_gets_all(photo: Image.Image) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with ThreadPoolExecutor(1) as pool, open(reader, "rb") as read:  # noqa: PTH123
        found = pool.submit(read.read)
        with open(writer, "wb", 0) as file:  # noqa: PTH123
            photo.resize((800, 600)).save(file, "DNNJPEG", quality=100)
    assert found.result() == save(photo.resize((800, 600)), quality=100)
    assert len(found.result()) > 1 << 16  # more than a pipe takes


def test_saving_from_many_threads(photo: Image.Image) -> None:
    def job(quality: int) -> bytes:
        return save(photo.copy(), quality=quality)

    qualities = list(range(10, 90, 5))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, qualities)) == [job(quality) for quality in qualities]


def test_the_face_encodes_the_same(photo: Image.Image) -> None:
    assert dnnjpeg.encode(photo, "standard", 60) == save(photo, model="standard", quality=60)


# Whatever a user passes

VALID: dict[str, st.SearchStrategy[Any]] = {
    "quality": st.integers(-1, 100) | st.floats(1, 100),
    "subsampling": st.sampled_from([-1, 0, 1, 2, "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", "web_high"]),
    "optimize": st.booleans(),
    "progressive": st.sampled_from([False, True, 0, 1, "auto"]),
    "streamtype": st.just(0),
    "dpi": st.tuples(st.integers(1, 65535), st.floats(1, 65535)),
    "exif": st.binary(max_size=100),
    "xmp": st.binary(max_size=100),
    "icc_profile": st.binary(max_size=70000),
    "comment": st.binary(max_size=100) | st.text(max_size=30),
    "restart_marker_blocks": st.integers(0, 65535),
    "smooth": st.just(0),
    "keep_rgb": st.just(False),
    "seed": st.integers(0, 2**63 - 1),
    "hardness": st.floats(0.5, 1000) | st.just(math.inf),
    "threads": st.integers(1, 3),
    "jfif": st.booleans(),
    "signature": st.booleans(),
}
NUMBER = st.booleans() | st.integers() | st.floats()
ANYTHING = st.none() | NUMBER | st.text(max_size=5) | st.binary(max_size=5)
ANY_OPTION = st.sampled_from(sorted({*pillow_options.OPTIONS, "modle", "", "save"}))
SMALL = Image.effect_noise((17, 9), 60).convert("RGB")


@given(st.fixed_dictionaries({}, optional=VALID), st.sampled_from(MODES))
@settings(max_examples=60, deadline=None)
def test_valid_options_write_a_readable_file(options: dict[str, Any], mode: str) -> None:
    opened = save_and_open(SMALL.convert(mode), **options)
    assert opened.size == SMALL.size
    assert opened.mode == ("L" if mode in "1L" else "CMYK" if mode == "CMYK" else "RGB")


@given(
    st.fixed_dictionaries({}, optional=VALID),
    st.dictionaries(ANY_OPTION, ANYTHING | st.lists(ANYTHING, max_size=3), min_size=1, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_a_file_whole_or_nothing(valid: dict[str, Any], arbitrary: dict[str, Any]) -> None:
    options = valid | arbitrary
    buffer = io.BytesIO()
    try:
        SMALL.save(buffer, "DNNJPEG", **options)
    except (TypeError, ValueError, OSError, OverflowError):
        assert buffer.getvalue() == b""
    else:
        data = buffer.getvalue()
        assert data[:2] == b"\xff\xd8"
        assert data[-2:] == b"\xff\xd9"
        if not options.get("streamtype"):
            assert np.asarray(Image.open(buffer)).shape == (9, 17, 3)


# From a file's own coefficients


def test_an_untouched_file_is_transcoded(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo.save(path, quality=95, comment=b"a note")
    data = path.read_bytes()
    with Image.open(path) as image:
        found = save(image, quality=50, progressive="auto", icc_profile=b"profile")
        finer = save(image, quality=50, subsampling="4:4:4")
        assert save(image, quality=50, subsampling="keep", comment=None) == dnnjpeg.transcode(
            data.replace(b"\xff\xfe\0\x08a note", b""), "standard", 50, strip=True
        )
    expected = dnnjpeg.read_coefficients(dnnjpeg.transcode(data, "standard", 50))
    assert all(map(np.array_equal, dnnjpeg.read_coefficients(found).planes, expected.planes))
    assert dnnjpeg.inspect(found).comment == "a note" and "ICC" in dnnjpeg.inspect(found).metadata
    # what the file has not is made of pixels
    assert dnnjpeg.inspect(finer).subsampling == "4:4:4"
    assert finer == dnnjpeg.encode(
        np.asarray(photo_of(data)), "standard", 50, subsampling="4:4:4", comment=b"a note"
    )


def photo_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_touched_file_is_not(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo.save(path, quality=95)
    image = Image.open(path)
    image.putpixel((3, 3), (255, 0, 0))
    assert save(image, quality=50) == dnnjpeg.encode(np.asarray(image), "standard", 50)
    gone = Image.open(path)
    gone.load()
    path.unlink()
    assert save(gone, quality=50) == dnnjpeg.encode(np.asarray(gone), "standard", 50)
    gone.save(path, "JPEG", quality=20)
    assert save(gone, quality=50) == dnnjpeg.encode(np.asarray(gone), "standard", 50)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_picture_from_a_pipe(photo: Image.Image, tmp_path: Path) -> None:
    """A pipe gives its data once. To open it again would wait for ever."""
    photo.save(tmp_path / "a.jpg", quality=95)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import sys; from PIL import Image; import dnnjpeg\n"
        "image = Image.open(sys.argv[1]); image.load(); image.save(sys.argv[2], format='DNNJPEG')"
    )
    command = [sys.executable, "-c", program, str(pipe), str(tmp_path / "b.jpg")]
    with subprocess.Popen(command) as process:
        pipe.write_bytes((tmp_path / "a.jpg").read_bytes())
        assert process.wait(60) == 0
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.size == photo.size
