"""`encode` as a whole: against Pillow on photographs, against several decoders, and its options."""

import io
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import Decode, Read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg import OperatingPoint, Table, encode, read_coefficients, transcode, write_coefficients
from dnnjpeg.codec import planes
from dnnjpeg.codec.pixels import MODES
from dnnjpeg.jpeg.inspect import inspect
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.fields import spread
from dnnjpeg.table.library import standard_table


def pillow(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def psnr(data: bytes, original: Image.Image) -> float:
    with Image.open(io.BytesIO(data)) as image:
        error = np.asarray(image).astype(float) - np.asarray(original)
    return float(10 * np.log10(255**2 / (error**2).mean()))


@pytest.fixture(scope="module")
def photographs(data_dir: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((data_dir / "photos").glob("kodim*.png"))]


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4", "gray"])
def test_nearest_rounding_is_as_good_and_as_small_as_pillows(
    quality: int, subsampling: str, photographs: list[Image.Image]
) -> None:
    gains, sizes = [], []
    for photograph in photographs:
        image = photograph.convert("L") if subsampling == "gray" else photograph
        options = {} if subsampling == "gray" else {"subsampling": subsampling}
        ours = encode(image, "standard", quality, **options)
        theirs = pillow(image, quality=quality, optimize=True, **options)
        gains.append(psnr(ours, image) - psnr(theirs, image))
        sizes.append(len(ours) / len(theirs))
    assert -0.02 < np.mean(gains) < 0.05
    assert max(sizes) < 1.003


@pytest.mark.parametrize("quality", [20, 50, 75, 92])
def test_progressive_is_smaller_than_pillows(photographs: list[Image.Image], quality: int) -> None:
    for photograph in photographs:
        ours = encode(photograph, "standard", quality, progressive=True)
        assert len(ours) < len(pillow(photograph, quality=quality, progressive=True))
        best = min(len(ours), len(encode(photograph, "standard", quality)))
        assert len(encode(photograph, "standard", quality, progressive="auto")) == best


@pytest.mark.parametrize("quality", [20, 75, 95])
def test_other_numbers_of_scans_make_no_smaller_files(
    photographs: list[Image.Image], quality: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size() -> int:
        return sum(len(encode(one, "standard", quality, progressive=True)) for one in photographs)

    chosen, others = size(), []
    for refined in range(4):
        monkeypatch.setattr(planes, "_refined_bits", lambda frame, planes, c, bits=refined: 0 if c else bits)
        others.append(size())
    assert chosen < 1.003 * min(others)
    assert chosen < 0.99 * max(others)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_decoder_shows_the_same_picture(data: st.DataObject, decode: Decode) -> None:
    mode = data.draw(st.sampled_from(tuple(MODES)))
    width, height = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    options = {
        "mode": mode,
        "quality": data.draw(st.integers(1, 100) | st.floats(1, 100)),
        "hardness": data.draw(st.sampled_from((None, 0.1, 1, 20, [None] * 32 + [3.0] * 32))),
        "seed": data.draw(st.integers(0, 2**63 - 1)),
        "subsampling": data.draw(st.sampled_from((None, *SUBSAMPLINGS))),
        "progressive": data.draw(st.sampled_from((False, True, "auto"))),
        "optimize": data.draw(st.sampled_from((None, True, False))),
        "restart_blocks": data.draw(st.sampled_from((0, 0, 1, 5))),
        "restart_rows": data.draw(st.sampled_from((0, 0, 1, 2))),
        "threads": data.draw(st.integers(1, 3)),
    }
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = (height, width, MODES[mode])
    smooth = (
        128 + 100 * np.sin(np.add.outer(np.arange(height), np.arange(width)) / rng.uniform(3, 20))[:, :, None]
    )
    picture = np.clip(smooth + rng.normal(0, rng.choice([0, 5, 80]), shape), 0, 255).astype(np.uint8)
    file = encode(picture, **options)
    shown = decode(file)
    assert shown.shape[:2] == (height, width)
    if options["quality"] >= 90 and options["hardness"] is None and mode in ("L", "CMYK"):
        assert np.abs(shown.reshape(shape).astype(int) - picture).mean() < 12
    assert encode(picture, **options) == file


@pytest.mark.parametrize("hardness", [0.5, 5, 50])
def test_sampling_keeps_the_picture_on_average(hardness: float, photo: Image.Image) -> None:
    """Many files of one picture, each with its own seed, average to better than any of them."""
    gray = photo.convert("L")
    shown = [
        np.asarray(Image.open(io.BytesIO(encode(gray, hardness=hardness, seed=seed)))).astype(float)
        for seed in range(30)
    ]
    single = np.mean([((one - gray) ** 2).mean() for one in shown])
    mean = ((np.mean(shown, axis=0) - gray) ** 2).mean()
    nearest = ((np.asarray(Image.open(io.BytesIO(encode(gray)))).astype(float) - gray) ** 2).mean()
    assert mean < single
    assert single > nearest


# --- options ---


def test_forms_of_a_table(photo: Image.Image, tmp_path: Path) -> None:
    table = standard_table()
    expected = encode(photo, "standard", signature=False)
    table.save(tmp_path / "copy.json")
    for same in (table, table.at(75), tmp_path / "copy.json", str(tmp_path / "copy.json")):
        assert encode(photo, same, signature=False) == expected
    assert encode(photo, model="standard", quality=75.0, signature=False) == expected
    assert encode(photo) == encode(photo, "universal", 75) != encode(photo, "standard")


@pytest.mark.parametrize("quality", [10, 75, 60.5])
def test_a_point_has_its_quality(quality: float, photo: Image.Image) -> None:
    point = standard_table().at(60.5)
    with pytest.raises(
        ValueError, match=r"^table is an OperatingPoint, its quality is 60\.5: leave out quality$"
    ):
        encode(photo, point, quality)
    assert encode(photo, point, None) == encode(photo, point)
    assert encode(photo, "standard", None) == encode(photo, "standard", 75)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_cells_are_what_coefficients_are_divided_by_and_steps_what_they_decode_to(
    data: st.DataObject, seed: int, read_dct: Read
) -> None:
    """Against round(c / (step · cell)), c by a float64 DCT; where c is no tie by more than its own error."""
    random = np.random.default_rng(seed)
    steps = tuple(random.integers(1, 60, 64).tolist())
    bin_width = data.draw(st.floats(0.5, 2) | st.just([float(cell) for cell in random.uniform(0.5, 2, 64)]))
    point = OperatingPoint.from_tables([steps], quality=50, subsampling="4:4:4")
    pixels = random.integers(0, 256, (16, 24), np.uint8)
    (plane,), (found,) = read_dct(encode(pixels, replace(point, bin_width=bin_width)))
    assert np.array_equal(found.ravel(), steps)
    k = np.arange(8)
    basis = np.sqrt(np.where(k == 0, 1, 2) / 8)[:, None] * np.cos((2 * k + 1) * k[:, None] * np.pi / 16)
    blocks = pixels.astype(float).reshape(2, 8, 3, 8).swapaxes(1, 2) - 128
    exact = (basis @ blocks @ basis.T).reshape(2, 3, 64) / (np.array(steps) * np.array(bin_width))
    assert np.abs(plane.reshape(2, 3, 64) - exact).max() <= 0.5 + 1e-3


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    subsampling=st.sampled_from(["4:4:4", "4:2:0", "4:1:1"]),
    progressive=st.booleans(),
)
def test_limits_hold_indices(
    data: st.DataObject, seed, height, width, mode, subsampling, progressive, read_dct: Read
) -> None:
    """Those of the same file without max_index, clipped."""
    random = np.random.default_rng(seed)
    limit = st.none() | st.integers(1, 40) | st.just((None, *random.integers(1, 1024, 63).tolist()))
    max_index = data.draw(st.lists(limit, min_size=2, max_size=2))
    point = standard_table().at(70)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = random.integers(0, 256, shape, np.uint8)
    options = {"mode": mode, "subsampling": subsampling, "progressive": progressive}
    free, _ = read_dct(encode(pixels, point, **options))
    held, _ = read_dct(encode(pixels, replace(point, max_index=max_index), threads=2, **options))
    for c, (a, b) in enumerate(zip(free, held, strict=True)):
        entry = max_index[min(c, 1) if mode == "RGB" else 0]
        largest = np.array([2000 if limit is None else limit for limit in spread(entry)]).reshape(8, 8)
        assert np.array_equal(b, a.clip(-largest, largest))


def test_forms_of_a_subsampling(photo: Image.Image) -> None:
    for name, number in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
        assert (
            encode(photo, subsampling=name)
            == encode(photo, subsampling=number)
            == encode(photo, subsampling=np.int8(number))
        )
    assert encode(photo, "standard") == encode(photo, "standard", subsampling="4:2:0")
    for name in SUBSAMPLINGS:
        assert inspect(encode(photo, subsampling=name)).subsampling == name
        assert encode(photo.convert("L"), subsampling=name) == encode(photo.convert("L"))
        assert encode(photo.convert("CMYK"), subsampling=name) == encode(photo.convert("CMYK"))


def test_the_point_decides_what_is_not_given(photo: Image.Image) -> None:
    steps = standard_table().at(60).tables
    rounded = OperatingPoint(60, "4:2:2", steps[0], steps[1])
    sampled = OperatingPoint(60, "4:2:2", steps[0], steps[1], 3.0)
    assert inspect(encode(photo, rounded)).subsampling == "4:2:2"
    assert (
        encode(photo, sampled)
        == encode(photo, rounded, hardness=3)
        == encode(photo, rounded, hardness=(3, 3))
    )
    assert encode(photo, sampled, hardness=math.inf) == encode(photo, rounded)
    assert encode(photo, sampled, hardness=[math.inf, [3.0] * 64]) != encode(photo, rounded)
    assert encode(photo, sampled, hardness=(None, None)) == encode(photo, rounded)
    assert encode(photo, sampled, hardness=[3.0] * 64) == encode(photo, sampled)
    assert encode(photo, sampled, hardness=7) != encode(photo, sampled)


def test_numbers_of_numpy_are_numbers(photo: Image.Image) -> None:
    for name, value in (
        ("quality", np.float32(50)),
        ("seed", np.int32(7)),
        ("restart_blocks", np.uint8(3)),
        ("restart_rows", np.uint8(200)),
        ("threads", np.int64(2)),
        ("dpi", np.array([72, 72])),
        ("hardness", np.float32(4)),
        ("hardness", np.full(64, 4.0)),
    ):
        plain = value.tolist()
        assert encode(photo, **{"hardness": 1, name: value}) == encode(
            photo, **{"hardness": 1, name: plain}
        ), name


@pytest.mark.parametrize("name", ["progressive", "optimize"])
def test_truth_values_of_any_kind(name: str, photo: Image.Image) -> None:
    """1 and numpy's True are True: never a third thing."""
    for value in (True, False):
        for same in (int(value), np.bool_(value)):
            assert encode(photo, **{name: same}) == encode(photo, **{name: value})
    assert encode(photo, optimize=None) == encode(photo, optimize=True) != encode(photo, optimize=False)


@pytest.mark.parametrize("restart", [0, 1, 7])
@pytest.mark.parametrize("kind", ["flat", "photograph", "noise"])
def test_standard_huffman_tables_hold_the_same_coefficients(photo, kind, restart):
    """Noise has more bits than there is room for behind its tokens, so it is coded in another way."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    picture = {"flat": np.full((120, 160, 3), 90, np.uint8), "photograph": photo, "noise": noise}[kind]
    for quality in (20, 100):
        one, other = (
            encode(picture, "standard", quality, optimize=way, restart_blocks=restart, subsampling="4:4:4")
            for way in (True, False)
        )
        assert len(one) < len(other)
        assert all(map(np.array_equal, read_coefficients(one).planes, read_coefficients(other).planes))
        again = transcode(
            one, "standard", quality, optimize=False, only_if_smaller=False, subsampling="4:4:4"
        )
        assert all(map(np.array_equal, read_coefficients(one).planes, read_coefficients(again).planes))


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "quality is 0, expected a number 1..100", {"quality": 0}),
        (ValueError, "quality is 100.5", {"quality": 100.5}),
        (ValueError, "quality is nan", {"quality": float("nan")}),
        (ValueError, "quality is '75'", {"quality": "75"}),
        (ValueError, "quality is True", {"quality": True}),
        (TypeError, "table is 5, expected a name, a path", {"table": 5}),
        (TypeError, "table is 3, expected a name, a path", {"table": 3}),
        (ValueError, r"no table is named 'nothing'\. Installed tables: standard, ", {"table": "nothing"}),
        (OSError, "nothing.json", {"table": "nothing.json"}),
        (ValueError, "hardness is 0", {"hardness": 0}),
        (ValueError, "hardness is -1", {"hardness": -1}),
        (ValueError, "hardness is nan", {"hardness": float("nan")}),
        (ValueError, "hardness is -inf", {"hardness": -math.inf}),
        (ValueError, r"hardness holds \[1\], expected numbers", {"hardness": [[[1]]]}),
        (ValueError, "hardness is 'x'", {"hardness": "x"}),
        (ValueError, "hardness is 0.001, expected a finite number of at least 0.01", {"hardness": 0.001}),
        (ValueError, "hardness has 3 entries", {"hardness": (1, 2, 3)}),
        (ValueError, r"hardness\[1\] has 63 entries", {"hardness": (1, [1] * 63)}),
        (ValueError, r"hardness\[0\]\[5\] is -2", {"hardness": ([1] * 5 + [-2] + [1] * 58, 1)}),
        (ValueError, "seed is -1, expected an integer 0..9223372036854775807", {"seed": -1}),
        (ValueError, "seed is 9223372036854775808", {"seed": 2**63}),
        (ValueError, "seed is 1.0", {"seed": 1.0}),
        (ValueError, "seed is None", {"seed": None}),
        (ValueError, "subsampling is 3, expected one of 4:4:4, 4:2:2", {"subsampling": 3}),
        (ValueError, "subsampling is '4:2:1'", {"subsampling": "4:2:1"}),
        (ValueError, "subsampling is True", {"subsampling": True}),
        (ValueError, "subsampling is 1.0", {"subsampling": 1.0}),
        (ValueError, r"subsampling is \[1\]", {"subsampling": [1]}),
        (ValueError, "progressive is 'yes', expected True, False or 'auto'", {"progressive": "yes"}),
        (ValueError, "progressive is 2", {"progressive": 2}),
        (ValueError, "progressive is None", {"progressive": None}),
        (ValueError, "optimize is 'auto', expected True, False or None", {"optimize": "auto"}),
        (ValueError, "restart_blocks is -1, expected an integer 0..65535", {"restart_blocks": -1}),
        (ValueError, "restart_blocks is 65536", {"restart_blocks": 65536}),
        (ValueError, "restart_rows is 65536", {"restart_rows": 65536}),
        (ValueError, "restart_rows is 1.5", {"restart_rows": 1.5}),
        (ValueError, "signature is 'no', expected True or False", {"signature": "no"}),
        (ValueError, "abbreviated is 2, expected True or False", {"abbreviated": 2}),
        (ValueError, "threads is 0, expected an integer 1..1024", {"threads": 0}),
        (ValueError, "threads is '2'", {"threads": "2"}),
    ],
)
def test_wrong_options(
    error: type[Exception], message: str, options: dict[str, Any], photo: Image.Image
) -> None:
    with pytest.raises(error, match=message):
        encode(photo, **options)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("subsampling is None", {"subsampling": None}),
        ("subsampling is '4:2:1'", {"subsampling": "4:2:1"}),
        ("progressive is 'x'", {"progressive": "x"}),
        ("restart_rows is -1", {"restart_rows": -1}),
        ("abbreviated is 9", {"abbreviated": 9}),
        ("an abbreviated picture cannot be progressive", {"abbreviated": True, "progressive": True}),
        ("an abbreviated picture cannot have Huffman tables", {"abbreviated": True, "optimize": True}),
        ("dpi is", {"dpi": 5}),
        ("comment is too long", {"comment": bytes(70_000)}),
    ],
)
def test_wrong_options_of_coefficients(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        write_coefficients([np.zeros((1, 1, 64), int)], [np.ones(64, int)], 8, 8, **options)


def test_options_are_given_by_name(photo: Image.Image) -> None:
    with pytest.raises(TypeError):
        encode(photo, "standard", 75, "RGB")  # type: ignore[misc]
    with pytest.raises(TypeError, match="qualty"):
        encode(photo, qualty=75)  # type: ignore[call-arg]


def test_a_table_with_one_point_serves_every_quality(photo: Image.Image) -> None:
    table = Table("one", (OperatingPoint(75, "4:2:0", (16,) * 64, (17,) * 64),))
    coarse, fine = (inspect(encode(photo, table, quality)).quantization for quality in (25, 95))
    assert coarse[0][0] > 16 > fine[0][0]


def test_warmup_compiles_every_kernel_once() -> None:
    """Nothing that a caller can ask for makes one be compiled later, when somebody waits for it."""
    program = Path(__file__).parent / "codec" / "programs" / "signatures.py"
    subprocess.run([sys.executable, str(program)], check=True)


def test_nothing_is_warm_with_an_empty_cache(tmp_path: Path) -> None:
    program = "from dnnjpeg import encoder, transcoder; print(encoder.is_warm(), transcoder.is_warm())"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
    assert done.stdout == b"False False\n"
