"""`dnnjpeg encode` where something goes wrong: broken files, full disks, odd names, signals."""

import json
import os
import shutil
import signal
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from encoding import COMMAND, encode, files, opened
from PIL import Image

from dnnjpeg.files.atomic import TEMPORARY_SUFFIX

# --- failures: one line each, and the run goes on


def test_broken_files_do_not_stop_the_run(source, out):
    (source / "bad.jpg").write_bytes(b"text")
    (source / "cut.jpg").write_bytes((source / "b.jpg").read_bytes()[:2000])
    (source / "sub" / "empty.png").touch()
    result = encode(source, "-o", out)
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        str(source / name) for name in ("bad.jpg", "cut.jpg", "sub/empty.png")
    ]
    assert result.stdout.startswith("4 encoded, 3 failed")
    assert files(out) == ["a.jpg", "b.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]


def test_summary_for_machines(source, out):
    (source / "bad.jpg").write_bytes(b"text")
    result = encode(source, "-o", out, "--json", "--quality", 60)
    summary = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (summary["encoded"], summary["failed"], summary["copied"], summary["skipped"]) == (4, 1, 0, 0)
    assert summary["pixels"] == 4 * 160 * 120
    assert summary["bytes_after"] == sum((out / name).stat().st_size for name in files(out))
    assert summary["bits_per_pixel"] == pytest.approx(
        8 * summary["bytes_after"] / summary["pixels"], abs=1e-4
    )
    assert (summary["table"], summary["quality"]) == ("universal", 60)
    assert [failure["source"] for failure in summary["failures"]] == [str(source / "bad.jpg")]


def test_progress_is_shown_on_a_terminal_only(source, out):
    terminal, inner = os.openpty()
    termios.tcsetwinsize(inner, (24, 80))
    done = subprocess.run([*COMMAND, source, "-o", out], stdout=subprocess.PIPE, stderr=inner, check=True)
    os.close(inner)
    shown = b""
    with suppress(OSError):  # the end of what a terminal shows
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert b"/4 " in shown
    assert done.stdout.startswith(b"4 encoded")
    assert subprocess.run([*COMMAND, source, "-o", out], capture_output=True, check=True).stderr == b""


def test_malformed_folder(data_dir, tmp_path, out):
    result = encode(data_dir / "malformed", "-o", out)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert all(Path(line.split(": ")[0]).exists() for line in lines)
    assert len(lines) + len(files(out)) == len(list((data_dir / "malformed").iterdir()))
    for name in files(out):
        opened(out / name)
    shutil.copytree(data_dir / "malformed", tmp_path / "copy")
    failed = json.loads(encode(tmp_path / "copy", "--in-place", "--json").stdout)["failures"]
    for failure in failed:
        name = Path(failure["source"]).name
        assert (tmp_path / "copy" / name).read_bytes() == (data_dir / "malformed" / name).read_bytes()
    assert len(files(tmp_path / "copy")) == len(list((data_dir / "malformed").iterdir()))


def test_full_disk(small_disk, photo, tmp_path):
    photo.save(small_disk / "a.jpg", quality=40)
    before = (small_disk / "a.jpg").read_bytes()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 4096))
    result = encode(small_disk / "a.jpg", "--in-place", "--quality", 100, "--pixels", "--always")
    assert result.exit_code == 1
    assert result.stderr == f"{small_disk / 'a.jpg'}: No space left on device\n"
    assert (small_disk / "a.jpg").read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.jpg", "ballast"]
    photo.save(tmp_path / "b.png")
    result = encode(tmp_path / "b.png", "-o", small_disk, "--quality", 100)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert not (small_disk / "b.jpg").exists()


def test_read_only_folder(request, source, tmp_path):
    if os.geteuid() == 0:
        folder = request.getfixturevalue("small_disk")
        shutil.copy(source / "b.jpg", folder / "b.jpg")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    else:
        folder = tmp_path / "locked"
        folder.mkdir()
        shutil.copy(source / "b.jpg", folder / "b.jpg")
        folder.chmod(0o555)
    for arguments in (
        [folder, "--in-place"],
        [source / "a.png", "-o", folder],
        [source, "-o", folder / "new"],
    ):
        result = encode(*arguments)
        assert result.exit_code == 1
        assert result.stdout.startswith("0 encoded")
        for line in result.stderr.splitlines():
            assert "Read-only file system" in line or "Permission denied" in line
    assert (folder / "b.jpg").read_bytes() == (source / "b.jpg").read_bytes()
    assert files(folder) == ["b.jpg"]


def test_sides_that_most_decoders_refuse_are_a_line(tmp_path, out):
    Image.new("L", (65501, 1)).save(tmp_path / "a.png")
    Image.new("L", (65500, 1)).save(tmp_path / "b.png")
    done = subprocess.run([*COMMAND, tmp_path, "-o", out], capture_output=True, text=True, check=True)
    said = "warning: 65,501 x 1 pixels, and most decoders stop at 65,500 a side"
    assert done.stderr == f"{tmp_path / 'a.png'}: {said}\n"
    assert done.stdout.startswith("2 encoded")


# --- names


def test_names_of_any_bytes(photo, tmp_path, out):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"caf\xe9 x.png", b"two\nlines.png", "Füße 日本.png".encode(), b"-o.png"):
        photo.save(folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad\xff\n.jpg")).write_bytes(b"text")
    done = subprocess.run([*COMMAND, folder, "-o", out], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode("ascii").count("\n") == 1
    assert b"/bad\\udcff\\n.jpg: not a picture" in done.stderr
    expected = {b"caf\xe9 x.jpg", b"two\nlines.jpg", "Füße 日本.jpg".encode(), b"-o.jpg"}
    assert set(os.listdir(os.fsencode(out))) == expected  # noqa: PTH208
    summary = json.loads(encode(folder, "-o", out, "--json").stdout)
    assert summary["failures"][0]["source"] == os.fsdecode(os.fsencode(folder) + b"/bad\xff\n.jpg")
    name = os.fsencode(folder) + b"/caf\xe9 x.png"
    assert (
        subprocess.run([*COMMAND, name, "-o", out / "new"], capture_output=True, check=False).returncode == 0
    )
    assert os.listdir(os.fsencode(out / "new")) == [b"caf\xe9 x.jpg"]  # noqa: PTH208


# --- killed and interrupted


@pytest.fixture
def hundred(tmp_path, photo) -> Path:
    folder = tmp_path / "hundred"
    folder.mkdir()
    picture = np.asarray(photo.resize((320, 240)))
    for i in range(100):
        Image.fromarray(np.roll(picture, 3 * i, axis=1)).save(folder / f"{i:02}.jpg", quality=95)
    return folder


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.001)


def test_kill_in_the_middle_of_an_in_place_job(hundred, out):
    assert encode(hundred, "-o", out, "--quality", 30, "--pixels").exit_code == 0
    names = files(hundred)
    old = {name: (hundred / name).read_bytes() for name in names}
    new = {name: (out / name).read_bytes() for name in names}
    for wanted in (1, 30):
        for name in names:
            (hundred / name).write_bytes(old[name])
        process = subprocess.Popen(
            [*COMMAND, hundred, "--in-place", "--quality", "30", "--jobs", "2", "--pixels"]
        )
        size = len(old[names[wanted]])
        wait_for(lambda name=names[wanted], size=size: (hundred / name).stat().st_size != size, process)
        process.kill()
        process.wait()
        now = {name: (hundred / name).read_bytes() for name in names}
        assert all(now[name] in (old[name], new[name]) for name in names)
        assert wanted // 2 < sum(now[name] == new[name] for name in names) < 100
    (hundred / f".0123456789abcdef{TEMPORARY_SUFFIX}").write_bytes(b"left by a killed run")
    for path in hundred.glob(f".*{TEMPORARY_SUFFIX}"):
        os.utime(path, (0, 0))
    left = sum((hundred / name).read_bytes() == new[name] for name in names)
    result = encode(hundred, "--in-place", "--quality", 30, "--pixels")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{100 - left} encoded, {left} left as they were, 0 failed")
    assert all((hundred / name).read_bytes() == new[name] for name in names)
    assert files(hundred) == names


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_ends_with_whole_files_and_a_summary(hundred, out, number):
    process = subprocess.Popen([*COMMAND, hundred, "-o", out, "--jobs", "2"], stdout=subprocess.PIPE)
    wait_for(lambda: (out / "03.jpg").exists(), process)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    done = files(out)
    assert 3 < len(done) < 100
    assert stdout.decode().startswith(f"{len(done)} encoded, 0 failed")
    for name in done:
        opened(out / name)
    assert encode(hundred, "-o", out, "--skip-existing").stdout.startswith(
        f"{100 - len(done)} encoded, {len(done)} skipped"
    )
