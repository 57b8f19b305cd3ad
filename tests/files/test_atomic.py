"""Files on disk are replaced whole or stay as they were."""

import errno
import os
import resource
import secrets
import stat
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.files.atomic import (
    TEMPORARY_SUFFIX,
    AtomicWrites,
    make_folder,
    remove_leftovers,
    write_atomic,
)


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


def traced(monkeypatch) -> list[str]:
    """What the system is asked for: synchronizing of a file or a folder, and renaming."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        steps[-1] += f" {os.readlink(f'/proc/self/fd/{descriptor}')}"  # noqa: PTH115
        fsync(descriptor)

    def rename(*paths, **options) -> None:
        steps.append("rename")
        replace(*paths, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    return steps


def test_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    steps = traced(monkeypatch)
    write_atomic(tmp_path / "link", b"new")
    file, *rest = steps
    assert file.startswith(f"file {tmp_path}/folder/.") and file.endswith(TEMPORARY_SUFFIX)
    assert rest == ["rename", f"folder {tmp_path}/folder"]


def test_several_files_are_on_the_disk_before_any_gets_its_name(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "folder" / "c"]
    steps = traced(monkeypatch)
    with AtomicWrites() as writes:
        for path in paths:
            writes.begin(path, path.name.encode())
        assert not steps and not any(path.exists() for path in paths)
        assert writes.finish() == {}
    assert [step.split()[0] for step in steps] == ["file"] * 3 + ["rename"] * 3 + ["folder"] * 2
    assert [path.read_bytes() for path in paths] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_one_that_fails_does_not_hold_the_others(tmp_path, monkeypatch, fails):
    real = getattr(os, fails)

    def fail(what, *others, **options):
        name = os.readlink(f"/proc/self/fd/{what}") if fails == "fsync" else os.fspath(what)  # noqa: PTH115
        if Path(name).is_file() and Path(name).read_bytes() == b"b":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(what, *others, **options)

    (tmp_path / "b").write_bytes(b"old")
    monkeypatch.setattr(os, fails, fail)
    with AtomicWrites() as writes:
        for name in "abc":
            writes.begin(tmp_path / name, name.encode())
        errors = writes.finish()
    assert {path: error.filename for path, error in errors.items()} == {tmp_path / "b": f"{tmp_path}/b"}
    assert listed(tmp_path) == ["a", "b", "c"]
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_what_is_not_finished_leaves_nothing(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error) if error else nullcontext(), AtomicWrites() as writes:
        for name in "ab":
            writes.begin(tmp_path / name, b"new")
        assert len(listed(tmp_path)) == 3
        if error:
            raise error
    assert listed(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_without_fsync_the_system_writes_when_it_likes(tmp_path, monkeypatch):
    steps = traced(monkeypatch)
    write_atomic(tmp_path / "file", b"new", fsync=False)
    assert steps == ["rename"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_folders_are_made_and_on_the_disk(tmp_path, monkeypatch):
    steps = traced(monkeypatch)
    make_folder(tmp_path / "a" / "b")
    assert steps == [f"folder {tmp_path}", f"folder {tmp_path}/a"]
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "c" / "d", fsync=False)
    assert len(steps) == 2
    assert (tmp_path / "a" / "b").is_dir() and (tmp_path / "c" / "d").is_dir()


def test_no_folder_is_made_where_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(FileExistsError, match="file"):
        make_folder(tmp_path / "file" / "folder")


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synchronized(tmp_path, monkeypatch, number, fails):
    """Some file systems do not offer it; a failing disk is another thing."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="file") if fails else nullcontext():
        write_atomic(tmp_path / "file", b"new")
    assert listed(tmp_path) == ["file"]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from dnnjpeg.files.atomic import TEMPORARY_SUFFIX, write_atomic

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
drawn = random.Random(seed)
names = [folder / f"{number}" for number in range(4)]
for name in names:
    name.write_bytes(b"a" * 300_000)
torn = changed = 0
for kill in range(40):
    before = [name.read_bytes() for name in names]
    new = bytes([ord("b") + kill]) * 300_000
    writer = os.fork()
    if not writer:
        while True:
            for name in names:
                write_atomic(name, new, fsync=kill % 2 == 1)
    time.sleep(drawn.uniform(0.0005, 0.012))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    for name, old in zip(names, before):
        content = name.read_bytes()
        assert content in (old, new), (kill, name)
        changed += content == new != old
left = [name for name in os.listdir(folder) if name.endswith(TEMPORARY_SUFFIX)]
print(len(left), changed)
"""


def test_killed_writers_leave_old_files_or_new_ones(tmp_path):
    seed = secrets.randbelow(1 << 30)
    print("seed", seed)
    done = subprocess.run(
        [sys.executable, "-c", KILLS, tmp_path, str(seed)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    left, changed = map(int, done.stdout.split())
    assert left >= 5 and changed >= 5  # the kills did come in the middle
    assert len(listed(tmp_path)) == 4 + left


def test_other_hard_links_keep_the_old_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"old"


def left_over(path: Path, seconds: float = 61) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"part")
    before = time.time() - seconds
    os.utime(path, (before, before))
    return path


def test_what_killed_writers_left_is_removed(tmp_path):
    left_over(tmp_path / f".0123456789abcdef{TEMPORARY_SUFFIX}")
    kept = [
        left_over(tmp_path / f".1123456789abcdef{TEMPORARY_SUFFIX}", seconds=50),  # may be at work
        left_over(tmp_path / f".0123456789abcde{TEMPORARY_SUFFIX}"),  # shorter
        left_over(tmp_path / f".0123456789ABCDEF{TEMPORARY_SUFFIX}"),
        left_over(tmp_path / f"0123456789abcdef{TEMPORARY_SUFFIX}"),
        left_over(tmp_path / f".0123456789abcdef{TEMPORARY_SUFFIX}.jpg"),
        left_over(tmp_path / "a.jpg"),
        left_over(tmp_path / "sub" / f".0123456789abcdef{TEMPORARY_SUFFIX}"),  # of another folder
    ]
    link = tmp_path / f".2123456789abcdef{TEMPORARY_SUFFIX}"
    link.symlink_to(left_over(tmp_path / "target"))
    before = time.time() - 100
    os.utime(link, (before, before), follow_symlinks=False)
    folder = tmp_path / f".3123456789abcdef{TEMPORARY_SUFFIX}"
    folder.mkdir()
    os.utime(folder, (before, before))
    os.mkfifo(tmp_path / f".4123456789abcdef{TEMPORARY_SUFFIX}")
    os.utime(tmp_path / f".4123456789abcdef{TEMPORARY_SUFFIX}", (before, before))
    count = len(listed(tmp_path))
    remove_leftovers(tmp_path)
    assert len(listed(tmp_path)) == count - 1
    assert not (tmp_path / f".0123456789abcdef{TEMPORARY_SUFFIX}").exists()
    assert all(path.read_bytes() == b"part" for path in kept)
    remove_leftovers(tmp_path / "none")  # is none's business


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_others_left_stays(tmp_path):
    path = left_over(tmp_path / f".0123456789abcdef{TEMPORARY_SUFFIX}")
    os.chown(path, 12345, 23456)
    remove_leftovers(tmp_path)
    assert path.exists()
