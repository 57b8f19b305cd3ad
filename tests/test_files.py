"""Files on disk are replaced whole or stay as they were."""

import errno
import io
import os
import resource
import stat
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.files import TEMPORARY_SUFFIX, write_all, write_atomic


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(data=st.binary(max_size=10_000))
def test_content_round_trips(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "content"
    write_atomic(path, data)
    assert path.read_bytes() == data


def test_new_file_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", b"x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new") == 0o640
    assert listed(tmp_path) == ["new"]


@pytest.mark.parametrize("permissions", [0o600, 0o644, 0o755])
def test_permissions_of_the_old_file_stay(tmp_path, permissions):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(permissions)
    write_atomic(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", permissions)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_the_old_file_stays(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    write_atomic(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only files")
def test_write_protection_holds(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="old"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("folder/file")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"
    assert listed(tmp_path / "folder") == ["file"]


def test_link_to_nothing_makes_the_file(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_link_to_itself_fails(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match="link") as raised:
        write_atomic(tmp_path / "link", b"new")
    assert raised.value.errno == errno.ELOOP
    assert (tmp_path / "link").is_symlink()


def test_device_and_pipe_are_written_to(tmp_path):
    write_atomic("/dev/null", b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    reader, writer = os.pipe()
    write_atomic(f"/dev/fd/{writer}", b"through")
    os.close(writer)
    assert os.read(reader, 100) == b"through"
    os.close(reader)


@pytest.mark.parametrize(("name", "error"), [("none/file", FileNotFoundError), ("", IsADirectoryError)])
def test_errors_name_the_file_asked_for(tmp_path, name, error):
    path = tmp_path / name
    with pytest.raises(error) as raised:
        write_atomic(path, b"x")
    assert raised.value.filename == os.fspath(path)


def test_longest_name_works(tmp_path):
    write_atomic(tmp_path / ("x" * 255), b"x")
    assert listed(tmp_path) == ["x" * 255]


def test_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))  # the write ends in the middle
    try:
        with pytest.raises(OSError, match="file") as raised:
            write_atomic(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["file"]


def test_interruption_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen = []

    def interrupt(_descriptor: int) -> None:
        seen.extend(name for name in listed(tmp_path) if name != "file")
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["file"]
    assert len(seen) == 1
    assert seen[0].startswith(".")
    assert seen[0].endswith(TEMPORARY_SUFFIX)


class Grudging(io.RawIOBase):
    """Takes seven bytes at a time."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.content += bytes(data[:7])
        return min(len(data), 7)


@given(data=st.binary(max_size=100))
def test_all_is_written_to_a_file_that_takes_parts(data):
    file = Grudging()
    write_all(file, data)
    assert file.content == data


def test_a_file_that_does_not_count_is_given_all_at_once():
    parts = []

    class Kept:
        write = parts.append

    write_all(Kept(), b"all of it")
    assert parts == [b"all of it"]


@pytest.mark.parametrize("buffering", [0, 10, 8192, 1 << 20])
def test_all_is_written_to_a_pipe_that_does_not_block(buffering):
    data = os.urandom(300_000)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = []

    def read() -> None:
        while part := os.read(reader, 10_000):
            found.append(part)
            time.sleep(0.001)

    thread = threading.Thread(target=read)
    thread.start()
    with open(writer, "wb", buffering) as file:  # noqa: PTH123
        write_all(file, data)
    thread.join(timeout=60)
    os.close(reader)
    assert b"".join(found) == data


def test_what_cannot_be_written_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), open(writer, "wb", 0) as file:  # noqa: PTH123
        write_all(file, b"x")
