"""Where compiled kernels are kept, and what they are compiled for."""

import gc
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dnnjpeg.machine import jit
from dnnjpeg.machine.jit import host_has, kernel, kernel_folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's cache folder, and the one under the temporary folder."""
    monkeypatch.setattr(jit.platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "cache" / "dnnjpeg", tmp_path / "tmp" / f"dnnjpeg-{os.getuid()}"


def fresh() -> Path:
    return kernel_folder.__wrapped__()


def test_kernels_are_kept_in_the_users_cache(places: tuple[Path, Path]) -> None:
    folder = fresh()
    assert folder.parent == places[0] and folder.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert fresh() == folder


def test_a_changed_source_has_a_folder_of_its_own(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba itself would look at the file of the outermost function alone."""
    copy = tmp_path / "dnnjpeg"
    shutil.copytree(Path(jit.__file__).parents[1], copy)
    monkeypatch.setattr(jit, "__file__", str(copy / "machine" / "jit.py"))
    seen = {fresh()}
    for name in ("codec/quantize.py", "codec/dct.py", "sparse/kernel.py", "machine/simd.py"):
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert fresh() not in seen
        seen.add(fresh())


def test_every_kernel_lives_in_a_folder_that_names_its_machine_code() -> None:
    """Machine code of an older source would be loaded without a word where it did not."""
    home = Path(jit.__file__).parents[1]
    compiled = re.compile(r"^\s*@(kernel|inlined|callback|intrinsic|numba\.\w+)\b", re.MULTILINE)
    kernels = {path.relative_to(home) for path in home.rglob("*.py") if compiled.search(path.read_text())}
    assert {path.parts[0] for path in kernels} == set(jit.KERNEL_ROOMS)


def test_a_cache_that_cannot_be_written_is_replaced(places: tuple[Path, Path]) -> None:
    places[0].parent.mkdir()
    places[0].write_text("a file where the folder should be")
    assert fresh().parent == places[1]


def test_a_folder_of_somebody_else_is_not_trusted(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh()
    mine = os.getuid()
    monkeypatch.setattr(jit.os, "getuid", lambda: mine + 1)
    with pytest.raises(OSError, match="set NUMBA_CACHE_DIR to one that can"):
        fresh()


def test_numba_cache_dir_is_honoured(tmp_path: Path) -> None:
    program = "from dnnjpeg.codec.bits import pack; print(pack.stats.cache_path)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.startswith(str(tmp_path))


def test_kernels_let_other_threads_run() -> None:
    def spin(n):
        total = 0
        for i in range(n):
            total ^= i * total + 1
        return total

    spinning = kernel(spin)
    assert spinning.targetoptions["nogil"] and spinning.targetoptions["boundscheck"] is False
    spinning(1)
    start = time.perf_counter()
    spinning(10_000_000)
    count = max(1, int(10_000_000 * 0.5 / (time.perf_counter() - start)))
    thread = threading.Thread(target=spinning, args=(count,))
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(0.01)
        ticks += 1
    assert ticks > 5


def test_features_of_this_machine_and_of_others() -> None:
    assert host_has("no such feature") is False
    names = ("avx2", "avx512bw", "avx512vbmi2")
    program = f"from dnnjpeg.machine.jit import host_has; print(*(int(host_has(name)) for name in {names}))"
    for name, features, expected in (
        ("x86-64-v2", "", "0 0 0"),
        ("x86-64-v3", "", "1 0 0"),
        ("x86-64-v4", "", "1 1 0"),
        ("x86-64-v4", "+avx512vbmi2,+avx512vbmi", "1 1 1"),
        ("generic", "", "0 0 0"),
    ):
        environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
        )
        assert run.stdout.split() == expected.split(), name


def test_the_cache_is_loaded_by_another_process(tmp_path: Path) -> None:
    """The second one compiles nothing."""
    (tmp_path / "doubled.py").write_text(
        "from dnnjpeg.machine.jit import kernel\n"
        "@kernel\n"
        "def doubled(x):\n"
        "    return 2 * x\n"
        "assert doubled(21) == 42\n"
        "print(sum(doubled.stats.cache_hits.values()), sum(doubled.stats.cache_misses.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    seen = [
        subprocess.run(
            [sys.executable, str(tmp_path / "doubled.py")],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["0", "1"], ["1", "0"]]


def test_machine_code_of_callbacks_is_kept(tmp_path: Path) -> None:
    """The second process compiles nothing."""
    (tmp_path / "counted.py").write_text(
        "import ctypes, numba, numpy as np\n"
        "from dnnjpeg.machine.jit import callback\n"
        "job = np.dtype([('count', np.int64)])\n"
        "def count(jobs):\n"
        "    record = numba.carray(jobs, 1)[0]\n"
        "    record.count += 1\n"
        "code = callback(count, job)\n"
        "given = np.array([(41,)], job)\n"
        "code.ctypes(given.ctypes.data)\n"
        "assert given['count'] == 42\n"
        "print(code.cache_hits)\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "counted.py")]
    seen = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["0"], ["1"]]


def test_garbage_is_collected_again_after_compiling(places: tuple[Path, Path]) -> None:
    @kernel
    def two() -> int:
        return 2

    @kernel
    def wrong() -> int:
        return nothing_of_this_name  # type: ignore[name-defined]  # noqa: F821

    assert two() == 2
    with pytest.raises(Exception, match="nothing_of_this_name"):
        wrong()
    assert gc.isenabled()
    gc.disable()
    try:

        @kernel
        def three() -> int:
            return 3

        assert three() == 3 and not gc.isenabled()
    finally:
        gc.enable()
