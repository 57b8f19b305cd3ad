"""Fixtures of the command line's tests."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled(warm: None) -> None:
    """Before anything is timed, interrupted or searched for unexpected output."""


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


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root, and not everywhere, may mount the small file system this needs")
    yield folder
    subprocess.run(["umount", folder], check=True)
