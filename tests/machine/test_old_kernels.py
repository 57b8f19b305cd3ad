"""Folders of kernels that nobody uses are removed, and nothing else."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dnnjpeg.machine import kernel_cache
from dnnjpeg.tools.cli import main

Run = Callable[..., tuple[str, str]]
IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
DAY = 24 * 60 * 60


def inner(home: Path) -> Path:
    (folder,) = (home / "cache" / "dnnjpeg").glob("kernels-*")
    return folder


def aged(folder: Path, days: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.nbc").write_bytes(b"machine code")
    then = time.time() - days * DAY
    os.utime(folder, (then, then))
    return folder


def test_old_folders_are_removed(home: Path, run: Run) -> None:
    """Those with our names, the user's own, unused for 30 days. Nothing else is touched."""
    run()
    current, root = inner(home), home / "cache" / "dnnjpeg"
    aged(current, 99)
    old = [aged(root / "kernels-0123abcd", 31), aged(home / "tmp" / f"dnnjpeg-{os.getuid()}/kernels-0", 31)]
    old[1] = old[1].rename(old[1].with_name("kernels-89abcdef"))
    old[1].parent.chmod(0o700)
    stays = [
        aged(root / "kernels-fedcba98", 29),
        aged(root / "readings", 99),
        aged(root / "kernels-0123abcd.bak", 99),
        aged(root / "kernels-0123abcde", 99),
        aged(home / "elsewhere", 99),
    ]
    link = root / "kernels-11111111"
    link.symlink_to(home / "elsewhere")
    (root / "kernels-22222222").write_text("a file")
    remove = "from dnnjpeg.machine.kernel_cache import remove_old_kernels; remove_old_kernels()"
    assert run(remove) == ("1", "")
    assert not any(folder.exists() for folder in old)
    assert all((folder / "a.nbc").exists() for folder in [*stays, current, link])
    assert (root / "kernels-22222222").exists()


def test_a_folder_that_is_used_does_not_get_old(home: Path, run: Run) -> None:
    run()
    folder = aged(inner(home), 99)
    assert run() == ("1", "")
    assert time.time() - folder.stat().st_mtime < DAY


@pytest.mark.skipif(not IS_ROOT, reason="a folder has to be another's")
def test_folders_of_others_stay(home: Path, run: Run) -> None:
    run()
    theirs = aged(home / "cache" / "dnnjpeg" / "kernels-0123abcd", 99)
    os.chown(theirs, 54321, -1)
    then = time.time() - 99 * DAY
    os.utime(theirs, (then, then))
    run("from dnnjpeg.machine.kernel_cache import remove_old_kernels; remove_old_kernels()")
    assert (theirs / "a.nbc").exists()


def test_warmup_removes_old_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    old = aged(tmp_path / "kernels-0123abcd", 31)
    monkeypatch.setattr(kernel_cache, "_roots", lambda: iter([tmp_path]))
    assert CliRunner().invoke(main, ["warmup"]).exit_code == 0
    assert not old.exists()
