"""Shards by URL: fsspec's own memory, and what goes wrong there."""

import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from shard_files import make, options, samples, tar_bytes, tree

from dnnjpeg.shards.run import Shards
from dnnjpeg.tools.cli import main

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'dnnjpeg[integrations]'")


@pytest.fixture
def memory() -> Iterator[Any]:
    found = fsspec.filesystem("memory")
    found.store.clear()
    for i in range(3):
        found.pipe_file(f"/in/{i:03}.tar", tar_bytes(samples(2, 2 * i)))
    yield found
    found.store.clear()


@pytest.fixture
def expected(tmp_path: Path, memory: Any) -> dict[str, bytes]:
    for i in range(3):
        (tmp_path / f"{i:03}.tar").write_bytes(memory.cat_file(f"/in/{i:03}.tar"))
    make(tmp_path / "*.tar", tmp_path / "expected")
    return tree(tmp_path / "expected")


def shards(memory: Any) -> dict[str, bytes]:
    """All that is under the output, but records."""
    paths = [path for path in memory.find("/out") if not path.endswith(".json")]
    return {path.removeprefix("/out/"): memory.cat_file(path) for path in paths}


@pytest.mark.parametrize("pattern", ["memory://in/*.tar", "memory://in/{000..002}.tar", "memory:///in/*.tar"])
def test_there_and_back(memory: Any, expected: dict[str, bytes], pattern: str) -> None:
    assert [one.status for one in make(pattern, "memory://out")] == ["done"] * 3
    assert shards(memory) == expected
    assert [one.status for one in make(pattern, "memory://out/")] == ["before"] * 3


def test_to_this_disk_and_from_it(memory: Any, expected: dict[str, bytes], tmp_path: Path) -> None:
    make("memory://in/*.tar", tmp_path / "here")
    assert tree(tmp_path / "here") == expected
    make(tmp_path / "*.tar", "memory://out")
    assert shards(memory) == expected
    make(f"file://{tmp_path}/*.tar", f"file://{tmp_path}/again")
    assert tree(tmp_path / "again") == expected


def test_requests_before_the_first_shard(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each shard, several at a time, and one for all records; none for a record that is not there."""
    for i in range(3, 40):
        memory.pipe_file(f"/in/{i:03}.tar", memory.cat_file("/in/000.tar"))
    info, lock = type(memory).info, threading.Lock()
    asked: list[str] = []
    running = most = 0

    def slow(self: Any, path: str, **options: Any) -> Any:
        nonlocal running, most
        with lock:
            asked.append(path)
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return info(self, path, **options)

    for records in (0, 40):
        asked.clear()
        monkeypatch.setattr(type(memory), "info", slow)
        shards = Shards(["memory://in/{000..039}.tar"], "memory://out", options())
        names = [f"{i:03}.tar" for i in range(40)]
        assert [Path(task.path).name for task in shards.tasks] == names
        assert sum(bool(task.before) for task in shards.tasks) == records
        assert sorted(Path(path).name for path in asked if ".tar" in path) == [
            f"{i:03}.tar" for i in range(40)
        ]
        assert len(asked) <= 42
        assert most > 8
        monkeypatch.setattr(type(memory), "info", info)
        list(shards.run())


@pytest.mark.parametrize("fault", ["half and an error", "half and no error", "error", "no move"])
def test_nothing_half_written_gets_a_final_name(
    memory: Any, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    kind = type(memory)

    def put_half(self: Any, local: str, path: str, **_: Any) -> None:
        if local.endswith("tmp") and not path.endswith(".json") and fault != "error":
            data = Path(local).read_bytes()
            self.pipe_file(path, data[: len(data) // 2])
        if fault != "half and no error":
            raise OSError("connection lost")

    def no_move(*_: Any, **__: Any) -> None:
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        if fault == "no move":
            patch.setattr(kind, "mv", no_move)
        else:
            patch.setattr(kind, "put_file", put_half)
        try:
            found = make("memory://in/*.tar", "memory://out")
            assert [one.status for one in found] == ["failed"] * 3
        except OSError:  # the summary cannot be written either
            pass
        assert shards(memory) == {}
    assert [one.status for one in make("memory://in/*.tar", "memory://out")] == ["done"] * 3
    assert shards(memory) == expected


def test_a_source_that_breaks_off(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, path: str, mode: str, **options: Any) -> Any:
        if mode == "rb":
            raise OSError("connection lost")
        return opened(self, path, mode, **options)

    opened = type(memory)._open
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "_open", broken)
        found = make("memory://in/000.tar", "memory://out")
    assert (found[0].status, found[0].reason) == ("failed", "connection lost")


BACKENDS = {
    "hf://datasets/someone/pictures/0.tar": "huggingface_hub",
    "gs://bucket/0.tar": "gcsfs",
    "s3://bucket/0.tar": "s3fs",
    "az://bucket/0.tar": "adlfs",
}


@pytest.mark.parametrize("url", BACKENDS)
def test_a_backend_that_is_not_installed(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = BACKENDS[url]
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    known = import_module("fsspec.registry")._registry
    monkeypatch.delitem(known, url.partition("://")[0], raising=False)
    expected = rf"^{url} needs {package}: pip install {package} \(.+\)$"
    with pytest.raises(ValueError, match=expected):
        make(url, tmp_path / "out")
    with pytest.raises(ValueError, match=expected.replace("/0.tar", "")):
        make(tmp_path / "*.tar", url.removesuffix("/0.tar"))
    called = CliRunner().invoke(main, ["encode", url, "-o", str(tmp_path / "out")])
    assert called.exit_code == 2
    assert f"pip install {package}" in called.stderr
    assert not (tmp_path / "out").exists()


def test_a_scheme_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing://x/0\.tar cannot be reached: Protocol not known"):
        make("nothing://x/0.tar", tmp_path / "out")


@pytest.mark.parametrize("method", ["info", "glob"])
def test_a_storage_that_cannot_be_reached(memory: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Each library has exceptions of its own for missing credentials, and for a network that is down."""

    class NoCredentialsError(Exception):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("unable to locate credentials")

    monkeypatch.setattr(type(memory), method, fail)
    called = CliRunner().invoke(main, ["encode", "memory://in/*.tar", "-o", "memory://out"])
    expected = "memory://in/*.tar cannot be reached: NoCredentialsError: unable to locate credentials"
    assert (called.exit_code, called.stderr) == (1, f"Error: {expected}\n")
