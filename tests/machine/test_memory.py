"""Working memory: used again, never shared, given up beyond a limit."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dnnjpeg
from dnnjpeg import encode
from dnnjpeg.machine import memory


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", {})


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.float32])
@pytest.mark.parametrize("count", [1, 7, 1000, 100_000])
def test_arrays_are_as_asked_for(dtype: type, count: int) -> None:
    array = memory.empty(count, dtype)
    assert array.shape == (count,) and array.dtype == dtype
    assert array.flags.c_contiguous and array.flags.writeable and array.flags.aligned
    array[:] = 1
    assert (array == 1).all()


def test_memory_is_used_again_when_the_last_array_on_it_is_gone() -> None:
    array = memory.empty(100_000, np.uint8)
    place = array.ctypes.data
    part = array[5:10].view(np.int8)
    del array
    assert memory.empty(100_000, np.uint8).ctypes.data != place  # the part is still held
    del part
    again = [memory.empty(100_000, np.uint8) for _ in range(2)]
    assert place in {array.ctypes.data for array in again}


def test_arrays_in_use_never_overlap() -> None:
    """Many threads take, fill, check and drop."""

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[tuple[np.ndarray, int]] = []
        for _ in range(300):
            array = memory.empty(int(rng.integers(1, 200_000)), np.uint8)
            mark = int(rng.integers(256))
            array[:: max(1, array.size // 50)] = mark
            held.append((array, mark))
            if len(held) > 4:
                array, mark = held.pop(int(rng.integers(len(held))))
                assert (array[:: max(1, array.size // 50)] == mark).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_another_thread_may_exchange_the_block_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the choice of a block and its taking, a smaller one can come to lie under the same identity."""

    class Exchanged(dict[int, memory.Block]):
        def pop(self, key: int, default: memory.Block | None = None) -> memory.Block | None:  # type: ignore[override]
            super().pop(key, None)
            return np.empty(10, np.uint8), {}

    monkeypatch.setattr(memory, "_free", Exchanged({1: (np.empty(200_000, np.uint8), {})}))
    assert memory.empty(150_000, np.uint8).shape == (150_000,)


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RETAINED", 10 << 20)
    arrays = [memory.empty(1 << shift, np.uint8) for shift in (10, 20, 21, 22, 23, 22, 21, 23, 24, 20)]
    while arrays:
        arrays.pop()
        gc.collect()
        assert sum(block.size for block, _ in memory._free.values()) <= 10 << 20
    assert memory._free


def test_release() -> None:
    held = memory.empty(1 << 20, np.uint8)
    del held
    gc.collect()
    assert memory._free
    dnnjpeg.release_memory()
    assert not memory._free


@pytest.mark.parametrize(("text", "kept"), [("0", "0"), ("3", str(3 << 20))])
def test_the_limit_by_the_environment(text: str, kept: str) -> None:
    assert _started(text, "print(memory.RETAINED)").stdout.strip() == kept


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5"])
def test_a_wrong_limit(text: str) -> None:
    found = _started(text, "")
    assert found.returncode == 1
    assert f"DNNJPEG_KEEP_MIB is {text!r}, expected MiB as a whole number" in found.stderr


def _started(text: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from dnnjpeg.machine import memory; {code}"],
        env=os.environ | {"DNNJPEG_KEEP_MIB": text},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_was_left_in_memory_does_not_matter() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    expected = [encode(picture, progressive=progressive, hardness=1) for progressive in (False, True)]
    for filling in (0, 0xFF, 0xA5):
        for shift in range(12, 23):
            memory.empty(1 << shift, np.uint8)[:] = filling
        assert [
            encode(picture, progressive=progressive, hardness=1) for progressive in (False, True)
        ] == expected


COLLECTED = """
import gc
import numpy as np
from dnnjpeg.machine import memory

real = np.empty

def collecting(*arguments):
    gc.collect()
    return real(*arguments)

cycle = [memory.empty(5, np.uint8)]
cycle.append(cycle)
del cycle
np.empty = collecting  # as the interpreter may at any allocation
memory.empty(1 << 20, np.uint8)
"""


def test_garbage_may_be_collected_while_memory_is_handed_out() -> None:
    """An array in a reference cycle, as tracebacks make them, is given back in the middle of another call."""
    subprocess.run([sys.executable, "-c", COLLECTED], check=True, timeout=20)


@pytest.mark.parametrize("use", ["borrow", "give_back"])
def test_a_lease_that_the_collector_ends_while_others_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """Looking through many blocks makes objects, and making objects may start the garbage collector."""
    monkeypatch.setattr(memory, "_free", {i: (np.empty(1, np.uint8), {}) for i in range(6_000)})
    block = memory.borrow(1 << 20)
    before = gc.get_threshold()
    for extra in range(0, 4_000, 500):
        cycle: list[object] = [memory.empty(1 << 16, np.uint8)]
        cycle.append(cycle)
        del cycle
        try:
            gc.set_threshold(gc.get_count()[0] + extra)  # collects in the middle
            memory.give_back(block) if use == "give_back" else memory.borrow(1 << 30)
        finally:
            gc.set_threshold(*before)
