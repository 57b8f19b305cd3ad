"""Exit status 0 means that all output is where it should be, whatever standard output is."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dnnjpeg.tools.cli import main

COMMAND = [sys.executable, "-W", "error", "-c", "from dnnjpeg.tools.cli import run; run()"]
LARGE = [  # each writes more than a page
    "encode a.jpg -o - --quality 95",
    "tables show standard",
    "tables show standard --json",
    "inspect --json a.jpg a.jpg a.jpg a.jpg",
    "encode --help",
]

unbuffered = pytest.mark.parametrize("unbuffered", ["", "1"])
arguments = pytest.mark.parametrize("arguments", LARGE)


@pytest.fixture
def folder(photo, tmp_path) -> Path:
    photo.save(tmp_path / "a.jpg", quality=95)
    return tmp_path


def start(arguments: str, folder: Path, unbuffered: str, **streams) -> subprocess.Popen:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "COLUMNS": "80"}
    return subprocess.Popen([*COMMAND, *arguments.split()], cwd=folder, env=environment, **streams)


def whole(arguments: str, folder: Path) -> bytes:
    process = start(arguments, folder, "", stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and len(output) > 4096
    return output


def read_slowly(descriptor: int) -> bytes:
    parts = [b"x"]
    while parts[-1]:
        time.sleep(0.002)
        parts.append(os.read(descriptor, 1000))
    os.close(descriptor)
    return b"".join(parts)[1:]


@unbuffered
@arguments
def test_full_disk_is_one_line_and_no_success(small_disk, folder, arguments, unbuffered):
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 4096))
    with (small_disk / "out").open("wb") as out:
        process = start(arguments, folder, unbuffered, stdout=out, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, b"Error: No space left on device\n")
    assert (small_disk / "out").stat().st_size == 4096


@unbuffered
@arguments
def test_pipe_that_does_not_block_gets_all(folder, arguments, unbuffered):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    process = start(arguments, folder, unbuffered, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    output = read_slowly(reader)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert output == whole(arguments, folder)


@pytest.mark.parametrize("blocking", [True, False])
@arguments
def test_reader_that_goes_away_ends_it_quietly(folder, arguments, blocking):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, blocking)
    process = start(arguments, folder, "1", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert os.read(reader, 100)
    os.close(reader)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, b"")


def test_errors_reach_a_pipe_that_does_not_block(folder):
    for number in range(40):
        (folder / f"{number:0100}.jpg").write_bytes(b"text")
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    process = start(f"encode {folder} -o out", folder, "", stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    assert read_slowly(reader).count(b"not a picture") == 40
    assert process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "--version", "tables --help"])
def test_help_that_cannot_be_written_is_one_line(folder, arguments):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        process = start(arguments, folder, "", stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, b"Error: No space left on device\n")


def test_disk_that_refuses_at_the_end_is_no_success(folder):
    """Over a network, a full disk may show where the file is closed."""
    program = (
        "import errno, os\n"
        "def close(descriptor):\n"
        "    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))\n"
        "from dnnjpeg.tools.cli import main\n"
        "os.close = close\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "tables", "list"], capture_output=True, check=False, cwd=folder
    )
    assert (done.returncode, done.stderr) == (1, b"Error: Disk quota exceeded\n")


def test_streams_are_put_back():
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit):
        main(["--version"])
    assert (sys.stdout, sys.stderr) == before
