"""The hot loop: the same file from any number of threads and on any machine."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from decoders import Read

from dnnjpeg import encode
from dnnjpeg.jpeg.inspect import inspect

HARDNESS = [None if k % 5 == 0 else 0.2 * 1.15**k for k in range(64)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of any size are divided."""
    monkeypatch.setattr("dnnjpeg.codec.picture.MIN_BLOCKS", 20)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:1:1"])
@pytest.mark.parametrize("height", [120, 391, 520])
def test_threads_make_no_difference(progressive: bool, subsampling: str, height: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, 73, 3), np.uint8)
    for hardness in (None, 0.6):
        options = {"hardness": hardness, "subsampling": subsampling, "progressive": progressive}
        one = encode(picture, **options)
        for threads in (2, 3, 64):
            assert encode(picture, threads=threads, **options) == one


def test_threads_with_gray_cmyk_restarts_and_standard_tables() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (400, 50), np.uint8)
    cmyk = np.random.default_rng(1).integers(0, 256, (400, 50, 4), np.uint8)
    for picture, options in (
        (gray, {}),
        (gray, {"restart_rows": 2}),
        (gray, {"restart_blocks": 5, "progressive": True}),
        (gray, {"optimize": False}),
        (cmyk, {"mode": "CMYK", "hardness": 3}),
    ):
        assert encode(picture, threads=2, **options) == encode(picture, **options)


def test_threads_join_at_any_bit() -> None:
    """Pieces meet within a byte, and that byte may be 0xFF: many pictures, so that all cases occur."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        picture = rng.integers(0, 256, (128 + rng.integers(0, 80), rng.integers(1, 20)), np.uint8)
        options = {"quality": int(rng.integers(50, 101)), "optimize": bool(rng.random() < 0.5)}
        assert encode(picture, threads=int(rng.integers(2, 5)), **options) == encode(picture, **options)


def test_calls_from_many_threads_at_once() -> None:
    rng = np.random.default_rng(0)
    pictures = [
        rng.integers(0, 256, (rng.integers(1, 200), rng.integers(1, 200), 3), np.uint8) for _ in range(40)
    ]

    def code(i: int) -> bytes:
        return encode(pictures[i % 40], hardness=2, seed=i, progressive=i % 2 == 0)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(code, range(80))) == [code(i) for i in range(80)]


def test_baseline_and_progressive_hold_the_same_indices(read_dct: Read) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (75, 133, 3), np.uint8)
    for options in ({}, {"hardness": 0.5}, {"hardness": HARDNESS, "subsampling": "4:4:0"}):
        files = [encode(picture, progressive=progressive, **options) for progressive in (False, True, "auto")]
        assert files[2] == min(files[:2], key=len)
        planes = [read_dct(data)[0] for data in files]
        for other in planes[1:]:
            for one, two in zip(planes[0], other, strict=True):
                assert np.array_equal(one, two)


def test_restart_markers_do_not_change_the_picture(read_dct: Read) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (75, 133, 3), np.uint8)
    whole, _ = read_dct(encode(picture, "standard", hardness=0.5))
    mcus = 9 * 5
    for options, markers in (
        ({"restart_blocks": 1}, mcus - 1),
        ({"restart_blocks": 7}, (mcus - 1) // 7),
        ({"restart_rows": 1}, 4),
        ({"restart_rows": 2, "restart_blocks": 3}, 2),
        ({"restart_rows": 5}, 0),
        ({"restart_blocks": 65535}, 0),
    ):
        data = encode(picture, "standard", hardness=0.5, **options)
        planes, _ = read_dct(data)
        assert all(np.array_equal(one, two) for one, two in zip(planes, whole, strict=True))
        assert sum(data.count(bytes([0xFF, 0xD0 + i])) for i in range(8)) == markers
        assert inspect(data).segments["DRI"] == 6


# --- other processors ---


def fingerprint(**environment: str) -> str:
    program = Path(__file__).parent / "programs" / "fingerprint.py"
    return subprocess.run(
        [sys.executable, str(program), json.dumps(HARDNESS)],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture(scope="module")
def at_home() -> str:
    return fingerprint()


@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v2"])
def test_other_processors_write_the_same_bytes(processor: str, at_home: str, tmp_path: Path) -> None:
    """The kernels compiled for AVX2, and for SSE4.2 alone, in place of what this machine has."""
    import platform

    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"kernels for {processor} do not run on {platform.machine()}")
    assert (
        fingerprint(NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path)) == at_home
    )
