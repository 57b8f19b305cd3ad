"""Processes that torchrun started, as seen from one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

_WORKER = """
import time
from contextlib import suppress
from pathlib import Path
import torch
from torch import distributed
from dnnjpeg.learn.processes import by_first, processes
def threads():  # of gloo; some may end meanwhile
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            names.append((task / "comm").read_text().strip())
    return [name for name in names if "gloo" in name]
with processes():
    assert distributed.is_initialized() and by_first(lambda: 7) == 7
    torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    assert threads()
end = time.monotonic() + 5  # the system lists them for a moment more
while threads() and time.monotonic() < end:
    time.sleep(0.01)
print(threads())
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch is built without torch.distributed")
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc")
def test_no_thread_outlives_the_group() -> None:
    """Threads of gloo that are still there when the interpreter ends may abort it."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _WORKER],
        env={**os.environ, **place, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
