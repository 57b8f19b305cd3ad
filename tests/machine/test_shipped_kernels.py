"""Kernels in a folder that another machine carries: used where they fit, refused with a reason where not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[str, str]]
SHIP = "import atexit; from dnnjpeg.machine.kernel_cache import ship_kernels; from pathlib import Path; "


@pytest.fixture
def shipped(home: Path, run: Run) -> Path:
    """A folder with the kernel of `run`; the cache that it was compiled in is gone."""
    folder = home / "shipped"
    assert run(SHIP + f"atexit.register(ship_kernels, Path({str(folder)!r}))")[0] == "0"
    shutil.rmtree(home / "cache")
    return folder


def test_they_are_used_and_nothing_is_compiled(shipped: Path, home: Path, run: Run) -> None:
    for _ in range(2):
        assert run(DNNJPEG_KERNELS=str(shipped)) == ("1", "")
    assert not list((home / "cache").rglob("*.nbc"))
    assert run() == ("0", "")  # without the variable


def test_all_may_read_them_and_only_the_user_may_write(shipped: Path) -> None:
    (inner,) = shipped.iterdir()
    assert inner.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in inner.iterdir()} == {0o644}


def test_those_of_another_processor_are_refused(shipped: Path, run: Run) -> None:
    found, said = run(DNNJPEG_KERNELS=str(shipped), NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="")
    assert found == "0" and len(said.splitlines()) == 1
    assert f"DNNJPEG_KERNELS is {shipped}" in said and "this processor is x86-64-v2" in said
    assert f"dnnjpeg warmup --into {shipped}" in said


def test_one_folder_holds_those_of_several_processors(shipped: Path, home: Path, run: Run) -> None:
    other = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""}
    run(SHIP + f"atexit.register(ship_kernels, Path({str(shipped)!r}))", **other)
    shutil.rmtree(home / "cache")
    for environment in ({}, other):
        assert run(DNNJPEG_KERNELS=str(shipped), **environment) == ("1", "")
    (inner,) = shipped.iterdir()
    assert len(json.loads((inner / "kernels.json").read_text())["processors"]) == 2


def test_those_of_another_version_are_refused(shipped: Path, run: Run) -> None:
    (inner,) = shipped.iterdir()
    inner.rename(shipped / "kernels-00000000")
    found, said = run(DNNJPEG_KERNELS=str(shipped))
    assert found == "0" and len(said.splitlines()) == 1
    assert "no kernels of this version" in said and "cpython" in said


def test_a_folder_that_is_not_there_is_said(home: Path, run: Run) -> None:
    found, said = run(DNNJPEG_KERNELS=str(home / "none"))
    assert found == "0" and "it has none at all" in said
    assert run(DNNJPEG_KERNELS=str(home / "none"))[0] == "1"  # compiled once, into the user's cache


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a system without modes of folders")
def test_a_folder_that_others_can_write_is_refused(shipped: Path, run: Run) -> None:
    (inner,) = shipped.iterdir()
    inner.chmod(0o777)
    found, said = run(DNNJPEG_KERNELS=str(shipped))
    assert found == "0" and "others can write" in said and str(inner) in said


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"processors": 3}'])
def test_a_damaged_manifest_is_said(shipped: Path, run: Run, manifest: str) -> None:
    (inner,) = shipped.iterdir()
    (inner / "kernels.json").write_text(manifest)
    found, said = run(DNNJPEG_KERNELS=str(shipped))
    assert found == "0" and len(said.splitlines()) == 1 and "kernels.json" in said


def test_a_damaged_kernel_is_compiled_again_elsewhere(shipped: Path, home: Path, run: Run) -> None:
    (file,) = shipped.rglob("*.nbc")
    file.write_bytes(file.read_bytes()[:-1])
    found, said = run(DNNJPEG_KERNELS=str(shipped))
    assert found == "0" and str(file) in said and len(said.splitlines()) == 1
    assert file.exists(), "only files in the user's cache are deleted"
    assert list((home / "cache").rglob("*.nbc"))


@pytest.mark.slow
def test_they_fit_an_installation_at_another_place(tmp_path: Path) -> None:
    """As in a container: the package lies elsewhere, its files are newer, the user has another home."""
    package = Path(__file__).parents[2]
    program = "import numpy, dnnjpeg; print(len(dnnjpeg.encode(numpy.zeros((8, 8, 3), numpy.uint8))))"
    shipped = tmp_path / "shipped"

    def at(place: Path, code: str, **own: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        environment |= {"PYTHONPATH": str(place), "XDG_CACHE_HOME": str(place / "cache")} | own
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=True)
        assert not done.stderr
        return done.stdout

    for place in ("build", "run"):
        for room in ("dnnjpeg", "plugins", "tools", "tables"):
            shutil.copytree(package / room, tmp_path / place / room, copy_function=shutil.copyfile)
    first = at(tmp_path / "build", f"{program}\n{SHIP}ship_kernels(Path({str(shipped)!r}))")
    assert at(tmp_path / "run", program, DNNJPEG_KERNELS=str(shipped)) == first
    assert not list((tmp_path / "run" / "cache").rglob("*.nbc"))
