"""Pillow's and OpenCV's JPEG writers taken over, and given back."""

import io
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from saving import FLAT, save, tables

import dnnjpeg
from dnnjpeg.plugins import opencv, pillow
from dnnjpeg.table.library import standard_table

PILLOWS, IMENCODE, IMWRITE = Image.SAVE["JPEG"], cv2.imencode, cv2.imwrite


@pytest.fixture(autouse=True)
def _the_writers_are_back() -> Any:
    yield
    assert Image.SAVE["JPEG"] is PILLOWS is JpegImagePlugin._save
    assert (cv2.imencode, cv2.imwrite) == (IMENCODE, IMWRITE)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    return save(image, "JPEG", **options)


def made_by(data: bytes) -> str:
    return dnnjpeg.inspect(data).made_by


# Pillow


def test_bytes_are_those_of_encode(photo: Image.Image, tmp_path: Path) -> None:
    with pillow.takeover("universal", 60) as taken:
        assert jpeg(photo) == jpeg(photo, quality=100) == dnnjpeg.encode(photo, "universal", 60)
        photo.save(tmp_path / "x.jpg")
    assert (tmp_path / "x.jpg").read_bytes() == dnnjpeg.encode(photo, "universal", 60)
    assert (taken.written, taken.refused) == (3, 0)
    assert made_by(jpeg(photo)) == "unknown"


def test_a_given_quality_is_the_callers(photo: Image.Image) -> None:
    with pillow.takeover("universal"):
        assert jpeg(photo) == dnnjpeg.encode(photo, "universal", 75)
        assert jpeg(photo, quality=40) == dnnjpeg.encode(photo, "universal", 40)


def test_an_operating_point_has_its_quality(photo: Image.Image) -> None:
    point = standard_table().at(33)
    with pillow.takeover(point):
        assert jpeg(photo, quality=90) == dnnjpeg.encode(photo, point)
    with pytest.raises(ValueError, match="leave out quality"):
        pillow.takeover(point, 50)


def test_options_of_the_takeover_and_of_the_save(photo: Image.Image) -> None:
    pillow.register(model="resnet18", quality=20)  # of another format
    with pillow.takeover("universal", subsampling="4:4:4", progressive=True):
        assert jpeg(photo) == dnnjpeg.encode(photo, "universal", subsampling="4:4:4", progressive=True)
        assert jpeg(photo, subsampling=2, progressive=False) == dnnjpeg.encode(
            photo, "universal", subsampling="4:2:0"
        )


def test_a_save_with_its_own_tables_keeps_them(photo: Image.Image) -> None:
    with pillow.takeover("universal", 50) as taken:
        data = jpeg(photo, qtables=FLAT[:2])
        low = jpeg(photo, quality="web_low")
    assert taken.written == 2
    assert tables(Image.open(io.BytesIO(data))) == [FLAT[0], FLAT[1], FLAT[1]]
    assert tables(Image.open(io.BytesIO(low))) == tables(
        Image.open(io.BytesIO(jpeg(photo, quality="web_low")))
    )


def test_what_pillow_ignores_is_ignored(photo: Image.Image) -> None:
    plain = dnnjpeg.encode(photo, "universal", 75)
    with pillow.takeover("universal") as taken:
        assert jpeg(photo, compress_level=1, model="resnet18", seed="x", optimize=False, smooth=0) == plain
        assert jpeg(photo, progressive=True, optimize=False) == dnnjpeg.encode(
            photo, "universal", progressive=True
        )
    assert taken.refused == 0


@pytest.mark.parametrize("options", [{"smooth": 10}, {"extra": b"\xff\xee\0\4ab"}, {"quality": 300}])
def test_what_is_refused_pillow_writes(
    photo: Image.Image, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected = jpeg(photo, **options)
    with caplog.at_level(logging.WARNING, "dnnjpeg"), pillow.takeover("universal") as taken:
        assert jpeg(photo, **options) == jpeg(photo, **options) == expected
        assert (taken.written, taken.refused) == (0, 2)
    (record,) = caplog.records
    assert record.name == "dnnjpeg"
    assert next(iter(options)) in record.getMessage()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (Image.new("RGBA", (8, 8)), OSError),
        (Image.new("RGB", (65501, 1)), OSError),
        (Image.new("RGB", (0, 8)), ValueError),
    ],
)
def test_errors_are_pillows(image: Image.Image, error: type[Exception]) -> None:
    with pytest.raises(error) as theirs:
        jpeg(image)
    with pillow.takeover("universal"), pytest.raises(error) as ours:
        jpeg(image)
    assert str(ours.value) == str(theirs.value)


def test_a_full_disk_is_not_written_to_twice(photo: Image.Image) -> None:
    class Full(io.BytesIO):
        calls = 0

        def write(self, data: Any) -> int:
            self.calls += 1
            raise OSError(28, "No space left on device")

    file = Full()
    with pillow.takeover("universal") as taken, pytest.raises(OSError, match="No space"):
        photo.save(file, "JPEG")
    assert (file.calls, taken.refused) == (1, 0)


def test_nesting_and_exceptions(photo: Image.Image) -> None:
    with pytest.raises(KeyError), pillow.takeover("universal"):
        with pillow.takeover("resnet18", 30) as inner:
            assert made_by(jpeg(photo)) == "dnnjpeg resnet18 30"
        assert made_by(jpeg(photo)) == "dnnjpeg universal 75"
        inner.restore()  # once is enough
        assert made_by(jpeg(photo)) == "dnnjpeg universal 75"
        raise KeyError
    assert Image.SAVE["JPEG"] is PILLOWS


def test_an_inner_refusal_goes_to_pillow_itself(photo: Image.Image) -> None:
    expected = jpeg(photo, smooth=1)
    with pillow.takeover("universal") as outer, pillow.takeover("resnet18"):
        assert jpeg(photo, smooth=1) == expected
    assert (outer.written, outer.refused) == (0, 0)


def test_ends_in_another_order(photo: Image.Image) -> None:
    first, second = pillow.takeover("universal"), pillow.takeover("resnet18")
    first.restore()
    assert made_by(jpeg(photo)) == "dnnjpeg resnet18 75"
    second.restore()


def test_restore_ends_the_latest(photo: Image.Image) -> None:
    pillow.takeover("universal")
    pillow.takeover("resnet18")
    pillow.restore()
    assert made_by(jpeg(photo)) == "dnnjpeg universal 75"
    pillow.restore()
    with pytest.raises(RuntimeError, match="nothing to restore"):
        pillow.restore()


def test_a_writer_that_somebody_kept_is_pillows_afterwards(photo: Image.Image) -> None:
    expected = jpeg(photo)
    with pillow.takeover("universal"):
        kept = Image.SAVE["JPEG"]
    Image.SAVE["KEPT"] = kept
    try:
        assert save(photo, "KEPT") == expected
    finally:
        del Image.SAVE["KEPT"]


def test_a_writer_that_somebody_has_put_there_stays() -> None:
    def other(*_: Any) -> None: ...

    with pillow.takeover("universal"):
        Image.SAVE["JPEG"] = other
    assert Image.SAVE["JPEG"] is other
    Image.SAVE["JPEG"] = PILLOWS


def test_threads(photo: Image.Image) -> None:
    expected, found = dnnjpeg.encode(photo, "universal", 75), []

    def work() -> None:
        for _ in range(10):
            found.append(jpeg(photo))

    with pillow.takeover("universal") as taken:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 40
    assert taken.written == 40


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("resnet5000",), {}),
        (("universal", 0), {}),
        (("universal", "given-ish"), {}),
        (("universal",), {"subsampling": "4:2:1"}),
        (("universal",), {"qualty": 5}),
        (("universal",), {"smooth": 5}),
    ],
)
def test_bad_options_are_refused_at_once(arguments: Any, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        pillow.takeover(*arguments, **options)
    if "qualty" not in options and "smooth" not in options:
        with pytest.raises((ValueError, TypeError)):
            opencv.takeover(*arguments, **options)


def test_those_who_measure_pillow_are_told(tmp_path: Path) -> None:
    from dnnjpeg.evaluate.codecs import load_codec

    with pillow.takeover("universal"):
        for name in ("pillow", "pillow-optimize,subsampling=4:4:4"):
            with pytest.raises(ValueError, match="taken over"):
                load_codec(name)
        load_codec("webp")
    command = [sys.executable, "-m", "dnnjpeg", "demo", str(tmp_path / "demo")]
    environment = os.environ | {"DNNJPEG_TAKEOVER": "universal"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unset DNNJPEG_TAKEOVER" in done.stderr


# OpenCV


@pytest.fixture
def bgr(photo: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(photo)[..., ::-1])


def test_cv2(bgr: np.ndarray, photo: Image.Image, tmp_path: Path) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 40]
    with opencv.takeover("universal") as taken:
        assert cv2.imencode(".jpg", bgr)[1].tobytes() == dnnjpeg.encode(photo, "universal", 95)
        assert cv2.imencode(".JPEG", img=bgr, params=quality)[1].tobytes() == dnnjpeg.encode(
            photo, "universal", 40
        )
        assert cv2.imwrite(str(tmp_path / "x.jpg"), bgr, quality) is True
        assert cv2.imwrite(filename=str(tmp_path / "y.jpeg"), img=bgr, params=quality) is True
    for name in ("x.jpg", "y.jpeg"):
        assert (tmp_path / name).read_bytes() == dnnjpeg.encode(photo, "universal", 40)
    assert (taken.written, taken.refused) == (4, 0)


def test_cv2_with_a_quality(bgr: np.ndarray, photo: Image.Image) -> None:
    params = [
        cv2.IMWRITE_JPEG_QUALITY,
        90,
        cv2.IMWRITE_JPEG_CHROMA_QUALITY,
        20,
        cv2.IMWRITE_PNG_COMPRESSION,
        3,
    ]
    with opencv.takeover("universal", 60):
        assert cv2.imencode(".jpg", bgr, params)[1].tobytes() == dnnjpeg.encode(photo, "universal", 60)
    with opencv.takeover(standard_table().at(33)):
        assert cv2.imencode(".jpg", bgr, params)[1].tobytes() == dnnjpeg.encode(
            photo, standard_table().at(33)
        )


def test_cv2_ignores_what_it_ignored(bgr: np.ndarray, photo: Image.Image) -> None:
    params = [cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_JPEG_OPTIMIZE, 0, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    with opencv.takeover("universal") as taken:
        assert cv2.imencode(".jpg", bgr, params)[1].tobytes() == dnnjpeg.encode(
            photo, "universal", 95, progressive=True
        )
    assert taken.refused == 0


def test_what_is_refused_cv2_writes(bgr: np.ndarray, tmp_path: Path) -> None:
    floats = bgr.astype(np.float32)
    expected = IMENCODE(".jpg", floats)[1].tobytes()
    png = IMENCODE(".png", bgr)[1].tobytes()
    with opencv.takeover("universal") as taken:
        assert cv2.imencode(".jpg", floats)[1].tobytes() == expected
        assert cv2.imwrite(str(tmp_path / "none" / "x.jpg"), bgr) is False
        assert (taken.written, taken.refused) == (0, 2)
        assert cv2.imencode(".png", bgr)[1].tobytes() == png
        assert (taken.written, taken.refused) == (0, 2)
        with pytest.raises(cv2.error):
            cv2.imencode(".jpg", None)
        with pytest.raises(cv2.error):
            cv2.imencode()


# By the environment


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("value", "pillows", "opencvs"),
    [
        ("universal:60", "dnnjpeg universal 60", "dnnjpeg universal 60"),
        ("universal", "dnnjpeg universal 75", "dnnjpeg universal 95"),
        ("universal:given", "dnnjpeg universal 75", "dnnjpeg universal 95"),
        ("", "unknown", "unknown"),
    ],
)
def test_by_the_environment(value: str, pillows: str, opencvs: str) -> None:
    code = (
        "import io, dnnjpeg, cv2, numpy; from PIL import Image\n"
        "file = io.BytesIO(); Image.new('RGB', (16, 16)).save(file, 'JPEG')\n"
        "print(dnnjpeg.inspect(file.getvalue()).made_by)\n"
        "data = cv2.imencode('.jpg', numpy.zeros((16, 16, 3), 'uint8'))[1].tobytes()\n"
        "print(dnnjpeg.inspect(data).made_by)"
    )
    done = run(code, DNNJPEG_TAKEOVER=value)
    assert done.stdout.splitlines() == [pillows, opencvs], done.stderr


@pytest.mark.parametrize("value", ["resnet5000:75", "universal:0", "universal:best", ":75"])
def test_a_bad_value_is_told(value: str) -> None:
    done = run("import dnnjpeg", DNNJPEG_TAKEOVER=value)
    assert done.returncode == 1
    assert f"ValueError: DNNJPEG_TAKEOVER is {value!r}, expected TABLE or TABLE:QUALITY" in done.stderr


def test_unset_it_costs_nothing() -> None:
    heavy = ("numpy", "cv2", "logging", "dnnjpeg.plugins.takeover")
    code = f"import sys, dnnjpeg; print([name for name in {heavy} if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if name != "DNNJPEG_TAKEOVER"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    plain = subprocess.run(
        [sys.executable, "-c", code.replace("dnnjpeg;", "PIL.Image;")], capture_output=True, text=True
    )
    assert done.stdout == plain.stdout  # of Pillow alone
