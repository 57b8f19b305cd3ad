"""The OpenCV wrapper against cv2's own JPEG writer."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg.plugins import opencv
from dnnjpeg.table.library import standard_table

Q, LUMA, CHROMA = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_JPEG_LUMA_QUALITY, cv2.IMWRITE_JPEG_CHROMA_QUALITY
SAMPLING, RST = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_RST_INTERVAL
PROGRESSIVE, OPTIMIZE = cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_OPTIMIZE
FACTORS = {
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


@pytest.fixture
def bgr(photo: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(photo)[..., ::-1])


def ours(image: np.ndarray, params: Any = None, **options: Any) -> np.ndarray:
    done, data = opencv.imencode(".jpg", image, params, **options)
    assert done is True
    return data


def theirs(image: np.ndarray, params: Any = None) -> np.ndarray:
    done, data = cv2.imencode(".jpg", image, [] if params is None else params)
    assert done is True
    return data


def structure(data: np.ndarray) -> tuple[str, tuple[int, int], bool, list[Any], list[Any]]:
    """Mode, size, progressive or not; sampling factors and quantization steps of each component."""
    image: Any = Image.open(io.BytesIO(data.tobytes()))
    factors = [component[1:3] for component in image.layer] if len(image.layer) > 1 else []
    steps = [list(image.quantization[component[3]]) for component in image.layer]
    return image.mode, image.size, "progressive" in image.info, factors, steps


def closeness(one: np.ndarray, other: np.ndarray) -> float:
    pictures = [cv2.imdecode(data, cv2.IMREAD_UNCHANGED).astype(np.int16) for data in (one, other)]
    return float(np.abs(pictures[0] - pictures[1]).mean())


def test_keys_are_cv2s() -> None:
    known = {name: value for name, value in vars(cv2).items() if name.startswith("IMWRITE_JPEG_")}
    factors = {value for name, value in known.items() if "SAMPLING_FACTOR_" in name}
    assert set(opencv._SUBSAMPLINGS) == factors
    assert {number for name, number in known.items() if number not in factors} == set(opencv._KEYS)


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        [Q, 75],
        (Q, 75),
        np.array([Q, 75]),
        [np.int32(Q), np.uint8(75)],
        *([Q, quality] for quality in (-3, 0, 1, 30, 100, 400)),
        [Q, 30, Q, 60],
        [LUMA, 40],
        [LUMA, -1],
        [LUMA, 0],
        [LUMA, 40, CHROMA, 40],
        [LUMA, 40, CHROMA, 80],
        [LUMA, 80, CHROMA, 0],
        [LUMA, 40, Q, 75],
        [Q, 75, LUMA, 40],
        [CHROMA, -1],
        *([SAMPLING, factor] for factor in FACTORS.values()),
        [PROGRESSIVE, 1],
        [PROGRESSIVE, 0],
        [OPTIMIZE, 1, Q, 50],
        [RST, 5],
    ],
)
def test_params_as_cv2_takes_them(bgr: np.ndarray, params: Any) -> None:
    one, other = ours(bgr, params), theirs(bgr, params)
    assert (one.shape, one.dtype, one.ndim) == ((one.size,), other.dtype, other.ndim)
    assert one.flags.writeable
    assert structure(one) == structure(other)
    assert closeness(one, other) < 1.5


def test_chroma_quality_alone_is_honoured(bgr: np.ndarray) -> None:
    *_, steps = structure(ours(bgr, [Q, 75, CHROMA, 40]))
    *_, expected = structure(theirs(bgr, [LUMA, 75, CHROMA, 40]))
    assert steps == expected


def test_sampling_factor_beside_two_qualities_is_honoured(bgr: np.ndarray) -> None:
    params = [LUMA, 40, CHROMA, 80, SAMPLING, FACTORS["4:2:2"]]
    assert structure(ours(bgr, params))[3] == [(2, 1), (1, 1), (1, 1)]


def test_huffman_tables(bgr: np.ndarray) -> None:
    assert ours(bgr, [OPTIMIZE, 0]).size > ours(bgr, [OPTIMIZE, 1]).size == ours(bgr).size


def test_restart_interval(bgr: np.ndarray) -> None:
    assert b"\xff\xdd\x00\x04\x00\x05" in ours(bgr, [RST, 5]).tobytes()
    assert b"\xff\xdd" not in ours(bgr).tobytes()
    assert closeness(ours(bgr, [RST, 5]), ours(bgr)) == 0


def test_gray(bgr: np.ndarray) -> None:
    gray = bgr[..., 1]
    assert np.array_equal(ours(gray), ours(gray[..., None]))
    assert structure(ours(gray)) == structure(theirs(gray))
    assert closeness(ours(gray), theirs(gray)) < 1.5


def test_alpha_is_dropped(bgr: np.ndarray) -> None:
    bgra = np.dstack([bgr, np.full(bgr.shape[:2], 7, np.uint8)])
    assert np.array_equal(ours(bgra), ours(bgr))
    assert np.array_equal(theirs(bgra), theirs(bgr))


def test_views(bgr: np.ndarray) -> None:
    for view in (bgr[::2, ::-1], bgr.transpose(1, 0, 2), np.asfortranarray(bgr), bgr[..., ::-1]):
        before = view.copy()
        assert np.array_equal(ours(view), ours(before))
        assert np.array_equal(view, before)
    bgr.flags.writeable = False
    assert ours(bgr).size


@pytest.mark.parametrize(
    "dtype", [bool, np.int8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64]
)
def test_other_dtypes(bgr: np.ndarray, dtype: Any) -> None:
    with pytest.raises(TypeError, match="uint8"):
        opencv.imencode(".jpg", bgr.astype(dtype))


@pytest.mark.parametrize(
    "image", [None, [[1, 2]], Image.new("RGB", (4, 4)), cv2.UMat(np.zeros((4, 4), np.uint8))]
)
def test_not_an_array(image: Any) -> None:
    with pytest.raises(TypeError, match="numpy array"):
        opencv.imencode(".jpg", image)


@pytest.mark.parametrize("shape", [(), (5,), (4, 4, 2), (4, 4, 5), (4, 4, 0), (1, 4, 4, 3)])
def test_bad_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        opencv.imencode(".jpg", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0), (0, 0, 1), (1, 65536), (65536, 1, 3)])
def test_empty_and_too_large(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"empty|65,?535"):
        opencv.imencode(".jpg", np.zeros(shape, np.uint8))


@pytest.mark.parametrize("ext", [".jpg", ".JPG", ".jpeg", ".jpe", ".jfif"])
def test_extensions(bgr: np.ndarray, ext: str) -> None:
    _, data = opencv.imencode(ext, bgr)
    assert np.array_equal(data, ours(bgr))


@pytest.mark.parametrize("ext", ["", "jpg", ".png", ".jp2", ".jpg ", "x.jpg"])
def test_bad_extensions(bgr: np.ndarray, ext: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        opencv.imencode(ext, bgr)


@pytest.mark.parametrize("ext", [None, 5])
def test_an_extension_of_another_type(bgr: np.ndarray, ext: Any) -> None:
    with pytest.raises(ValueError, match=f"the extension is {ext}, expected one of .jpg"):
        opencv.imencode(ext, bgr)


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ([Q], ValueError, "1 numbers"),
        ([Q, 75, PROGRESSIVE], ValueError, "3 numbers"),
        ([cv2.IMWRITE_PNG_COMPRESSION, 9], ValueError, "key 16"),
        ([0, 1], ValueError, "key 0"),
        ([8, 1], ValueError, "key 8"),
        ([PROGRESSIVE, 2], ValueError, "0 or 1"),
        ([OPTIMIZE, -1], ValueError, "0 or 1"),
        ([RST, 65536], ValueError, "65535"),
        ([RST, -1], ValueError, "65535"),
        ([LUMA, 101], ValueError, "100"),
        ([CHROMA, -2], ValueError, "100"),
        ([SAMPLING, 0x441111], ValueError, "SAMPLING_FACTOR"),
        ([Q, 75.5], TypeError, "integers"),
        ([Q, "75"], TypeError, "integers"),
        ([[Q, 75]], TypeError, "integers"),
        (75, TypeError, "integers"),
    ],
)
def test_bad_params(bgr: np.ndarray, params: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        opencv.imencode(".jpg", bgr, params)


def test_models_and_tables(bgr: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    luma, chroma = [2 * step for step in range(1, 65)], list(range(64, 0, -1))
    point = replace(standard_table().at(50), luma=luma, chroma=chroma, quality=60)
    table = replace(standard_table(), name="mine", points=(point,))
    table.save(tmp_path / "mine.json")
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path))
    for options in (
        {"params": [Q, 60], "model": "mine"},
        {"params": [Q, 60], "table": tmp_path / "mine.json"},
        {"params": [Q, 60], "table": table},
        {"table": point},
    ):
        assert structure(ours(bgr, **options))[4] == [luma, chroma, chroma]
    for options in ({"model": "mine"}, {"table": str(tmp_path / "mine.json")}, {"table": table}):
        *_, steps = structure(ours(bgr, [LUMA, 30, CHROMA, 80], **options))
        assert steps == [list(table.at(30).luma), *[list(table.at(80).chroma[0])] * 2]
    with pytest.raises(ValueError, match="give one of them"):
        opencv.imencode(".jpg", bgr, model="mine", table=table)
    with pytest.raises(ValueError, match=r"resnet5000.*standard"):
        opencv.imencode(".jpg", bgr, model="resnet5000")
    with pytest.raises(ValueError, match="its quality is 60"):
        opencv.imencode(".jpg", bgr, [Q, 60], table=point)
    with pytest.raises(TypeError, match="modle"):
        opencv.imencode(".jpg", bgr, modle="mine")  # type: ignore[call-arg]


def test_what_is_of_two_qualities_stays_with_its_tables() -> None:
    points = tuple(
        replace(standard_table().at(q), hardness=(q, 2 * q), bin_width=(1, 1 + q / 100), max_index=(q, 3 * q))
        for q in (30, 80)
    )
    table = replace(standard_table(), points=points)
    mixed = opencv._point(table, 30, 80)
    assert (mixed.luma, mixed.chroma, mixed.hardness) == (points[0].luma, points[1].chroma, (30, 160))
    assert mixed.bin_width == (1, 1.8) and mixed.max_index == (30, 240)


def test_hardness_seed_and_threads(bgr: np.ndarray) -> None:
    def sampled(**options: Any) -> bytes:
        return ours(bgr, hardness=3.0, **options).tobytes()

    assert sampled(seed=1) == sampled(seed=1, threads=2)
    assert len({sampled(), sampled(seed=1), ours(bgr).tobytes()}) == 3


def test_imwrite(bgr: np.ndarray, tmp_path: Path) -> None:
    for name in ("a.jpg", tmp_path / "b.JPEG", os.fsencode(tmp_path / "c.jpe"), str(tmp_path / "ä b.jfif")):
        path = tmp_path / os.fsdecode(name)
        target = str(path) if name == "a.jpg" else name
        assert opencv.imwrite(target, bgr, [Q, 60]) is True  # type: ignore[arg-type]
        assert path.read_bytes() == ours(bgr, [Q, 60]).tobytes()
    assert np.array_equal(cv2.imread(str(tmp_path / "a.jpg")).shape, bgr.shape)
    assert opencv.imwrite(filename=tmp_path / "a.jpg", img=bgr, params=[Q, 70], model="standard") is True
    assert (tmp_path / "a.jpg").read_bytes() == ours(bgr, [Q, 70]).tobytes()


def test_imwrite_raises_and_keeps_the_old_file(bgr: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        opencv.imwrite(tmp_path / "no" / "x.jpg", bgr)
    for image, params, error in (
        (bgr.astype(np.float32), None, TypeError),
        (bgr, [999, 1], ValueError),
        (bgr[:0], None, ValueError),
    ):
        with pytest.raises(error):
            opencv.imwrite(path, image, params)
    with pytest.raises(TypeError, match="modle"):
        opencv.imwrite(path, bgr, modle="resnet50")
    for name in ("x.png", "x", ".jpg"):
        with pytest.raises(ValueError, match="extension"):
            opencv.imwrite(tmp_path / name, bgr)
    assert [child.name for child in tmp_path.iterdir()] == ["x.jpg"]
    assert path.read_bytes() == b"old"


def test_cv2_is_not_needed() -> None:
    program = """
import sys
sys.modules["cv2"] = None
from dnnjpeg.plugins import opencv
assert "numpy" not in sys.modules
import numpy as np
done, data = opencv.imencode(".jpg", np.zeros((8, 8, 3), np.uint8), [1, 75])
assert done and data[0] == 0xFF
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


VALID = {
    Q: st.integers(-10, 110),
    LUMA: st.integers(-1, 100),
    SAMPLING: st.sampled_from(list(FACTORS.values())),
    PROGRESSIVE: st.integers(0, 1),
    OPTIMIZE: st.integers(0, 1),
    RST: st.integers(0, 65535),
}


@given(
    st.fixed_dictionaries({}, optional=VALID),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])),
)
@settings(max_examples=80, deadline=None)
def test_any_valid_params_give_cv2s_structure(values: dict[int, int], shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    params = [number for pair in values.items() for number in pair]
    assert structure(ours(image, params)) == structure(theirs(image, params))


@given(st.lists(st.integers(-2, 10) | st.integers(-(2**70), 2**70), max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_integers_are_taken_or_refused(params: list[int]) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    try:
        data = ours(image, params)
    except ValueError as error:
        assert "params" in str(error)
    else:
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == image.shape


def test_sides_that_most_decoders_refuse_are_warned_of():
    with pytest.warns(UserWarning, match="65,501 x 8 pixels"):
        assert opencv.imencode(".jpg", np.zeros((8, 65501), np.uint8))[0]
