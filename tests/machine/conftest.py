"""A user's home, and a process that runs a kernel there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[str, str]]
DOUBLED = """
from dnnjpeg.machine.jit import kernel
@kernel
def doubled(x):
    return 2 * x
assert doubled(21) == 42
print(sum(doubled.stats.cache_hits.values()))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of the user: its cache folder is in it."""
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture
def run(home: Path) -> Run:
    """Runs a kernel: "1" where its machine code was loaded, else "0"; and what was said.

    before: code to run first. prefix: of the command. Others are of the environment.
    """
    (home / "doubled.py").write_text(DOUBLED)

    def call(before: str = "", prefix: tuple[str, ...] = (), **own: str) -> tuple[str, str]:
        environment = {
            key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "HOME")
        }
        environment |= {"XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home / "tmp")} | own
        program = f"{before}\nimport sys; sys.path.append({str(home)!r})\nimport doubled"
        done = subprocess.run(
            [*prefix, sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr

    return call
