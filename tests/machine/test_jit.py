"""How kernels are compiled, and what for."""

import gc
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dnnjpeg.machine import kernel_cache
from dnnjpeg.machine.jit import host_has, kernel


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


def test_every_kernel_lives_in_a_folder_that_names_its_machine_code() -> None:
    """Machine code of an older source would be loaded without a word where it did not."""
    home = Path(kernel_cache.__file__).parents[1]
    compiled = re.compile(r"^\s*@(kernel|inlined|callback|intrinsic|numba\.\w+)\b", re.MULTILINE)
    kernels = {path.relative_to(home) for path in home.rglob("*.py") if compiled.search(path.read_text())}
    assert {path.parts[0] for path in kernels} == set(kernel_cache.KERNEL_ROOMS)


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
    """The second process does not compile it, and can still compile what numba's own functions need."""
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
        "assert numba.njit(lambda count: np.ones(count).sum())(5) == 5\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "counted.py")]
    seen = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["0"], ["1"]]


def test_garbage_is_collected_again_after_compiling() -> None:
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


PARTS = """
import numba
if {unknown}:
    numba.__version__ = "0.99.1"
import numpy as np
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load, store

@inlined
def moved(values, step, sign):
    return values + step if sign else values - step

@kernel
def steps(array, weights):
    values = load(address(array), "i32x8")
    for step in range(array.size):
        values = moved(values, step, True)
    values = moved(moved(moved(values, 1, False), 2, False), 3, True)
    if weights is not None and weights[0] > 0:
        values = values * weights[0]
    store(address(array), values)
    return array[0] ** 2

array = np.arange(8, dtype=np.int32)
found = steps(array, None), array.tolist(), steps(array, np.array([3])), array.tolist()
print(found, len(moved._dispatcher.overloads), sum(steps.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("unknown", [False, True])
def test_a_numba_of_an_unknown_version_compiles_the_same_in_its_own_way(
    unknown: bool, tmp_path: Path
) -> None:
    program = tmp_path / "steps.py"
    program.write_text(PARTS.replace("{unknown}", str(unknown)))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    array = np.arange(8, dtype=np.int32) + 28
    first, second = array.tolist(), (3 * (array + 28)).tolist()
    for hits in (0, 2):
        done = subprocess.run(
            [sys.executable, str(program)], env=environment, check=True, capture_output=True, text=True
        )
        found, parts, loaded = done.stdout.rsplit(maxsplit=2)
        assert found == str((first[0] ** 2, first, second[0] ** 2, second))
        assert loaded == str(hits)
        if not (unknown or hits):
            assert parts == "1", "one part for all numbers that are written into its calls"
