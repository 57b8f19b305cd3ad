"""Processes that torchrun started, as seen from one of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

_WORKER = """
import os
import torch
from torch import distributed
from dnnjpeg.learn.processes import by_first, processes
def threads():
    return [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
with processes():
    assert distributed.is_initialized() and by_first(lambda: 7) == 7
    torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    during = threads()
print([name for name in during if "gloo" in name] != [], [name for name in threads() if "gloo" in name])
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
    assert done.stdout.split(maxsplit=1) == ["True", "[]\n"]
