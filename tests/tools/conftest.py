"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Compiled before anything is timed, interrupted or searched for unexpected output."""
    from dnnjpeg.codec import encoder
    from dnnjpeg.transcoder import warmup

    encoder.warmup()
    warmup()


@pytest.fixture
def source(photo, tmp_path) -> Path:
    """photos/a.png, b.jpg, sub/c d.webp, sub/deep/e.tif."""
    folder = tmp_path / "photos"
    (folder / "sub" / "deep").mkdir(parents=True)
    photo.save(folder / "a.png")
    photo.save(folder / "b.jpg", quality=95)
    photo.save(folder / "sub" / "c d.webp")
    photo.save(folder / "sub" / "deep" / "e.tif")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
