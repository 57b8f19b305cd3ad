"""The cache of machine code heals itself, is private, and is never needed. Each case is a process."""

import os
import pickle
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dnnjpeg.files.cache import Cache
from dnnjpeg.machine import kernel_cache

IS_ROOT = hasattr(os, "getuid") and os.getuid() == 0
Run = Callable[..., tuple[str, str]]


def kept(home: Path) -> list[Path]:
    """The files of machine code in a folder."""
    return sorted(home.rglob("*.nb?"))


def lines(text: str) -> int:
    return len(text.splitlines())


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_early(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def flip_late(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 64]) + data[-99:]


def without_digest(data: bytes) -> bytes:
    return data[32:]


def of_another_version(data: bytes) -> bytes:
    """Whole, and nothing that numba can use."""
    import hashlib

    payload = pickle.dumps(("not", "machine", "code"))
    return hashlib.sha256(payload).digest() + payload


@pytest.mark.parametrize(
    "damage",
    [cut, lambda data: b"", flip_early, flip_late, without_digest, of_another_version],
    ids=["cut", "empty", "flipped early", "flipped late", "no digest", "another version"],
)
def test_a_damaged_file_is_made_anew(damage: Callable[[bytes], bytes], home: Path, run: Run) -> None:
    assert run() == ("0", "") and run() == ("1", "")
    (file,) = kept(home)
    file.write_bytes(damage(file.read_bytes()))
    found, said = run()
    assert found == "0" and lines(said) == 1 and str(file) in said and "compiled again" in said
    assert run() == ("1", "")


def test_what_was_planted_is_not_unpickled(home: Path, run: Run) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return os.mkdir, (str(home / "executed"),)

    run()
    (file,) = kept(home)
    file.write_bytes(pickle.dumps(Planted()))
    assert run()[0] == "0"
    file.write_bytes(bytes(32) + pickle.dumps(Planted()))
    assert run()[0] == "0"
    assert not (home / "executed").exists()


def test_what_was_planted_among_readings_is_not_unpickled(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    cache = Cache(tmp_path)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Planted()))
    np.savez(tmp_path / "object.npz", a=np.array([Planted()], object), allow_pickle=True)
    assert cache.load("raw") == cache.load("object") == {}
    assert not (tmp_path / "executed").exists()


def test_processes_that_start_together(home: Path, run: Run) -> None:
    """With several signatures of one kernel, all in one empty cache: each gets its own code."""
    from concurrent.futures import ThreadPoolExecutor

    run()
    shutil.rmtree(home / "cache")
    kinds = ["int8", "int16", "int32", "int64", "float32", "float64"]
    program = home / "halves.py"
    program.write_text(
        "import sys, numpy as np\n"
        "from dnnjpeg.machine.jit import kernel\n"
        "@kernel\n"
        "def halves(values):\n"
        "    return values.sum() / 2\n"
        "assert halves(np.full(8, 3, sys.argv[1])) == 12\n"
        "print(sum(halves.stats.cache_hits.values()))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(home / "cache")}

    def start(kind: str) -> str:
        done = subprocess.run(
            [sys.executable, str(program), kind], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout.strip()

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(start, kinds))) == 6
        assert list(pool.map(start, kinds)) == ["1"] * 6
    assert not [path for path in (home / "cache").rglob("*") if path.is_file() and path.suffix != ".nbc"]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_folders_and_files_are_the_users_own(umask: int, home: Path, run: Run) -> None:
    before = f"import os; os.umask({umask})"
    assert run(before) == ("0", "") and run(before) == ("1", "")
    (file,) = kept(home)
    for path in (home / "cache", *(home / "cache").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert file.is_relative_to(home / "cache" / "dnnjpeg")


def inner(home: Path) -> Path:
    (folder,) = (home / "cache" / "dnnjpeg").iterdir()
    return folder


@pytest.mark.parametrize("which", ["root", "inner"])
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(which: str, mode: int, home: Path, run: Run) -> None:
    run()
    folder = home / "cache" / "dnnjpeg" if which == "root" else inner(home)
    folder.chmod(mode)
    found, said = run()
    assert found == "0" and lines(said) == 1
    assert f"{folder} " in said and "others can write" in said and f"{mode:o}" in said
    assert run()[0] == "1"  # what takes its place is kept too
    private = home / "tmp" / f"dnnjpeg-{os.getuid()}"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.parametrize("which", ["root", "inner"])
def test_a_link_is_refused(which: str, home: Path, run: Run) -> None:
    run()
    folder = home / "cache" / "dnnjpeg" if which == "root" else inner(home)
    folder.rename(home / "elsewhere")
    folder.symlink_to(home / "elsewhere")
    found, said = run()
    assert found == "0" and lines(said) == 1 and f"{folder} is a symbolic link" in said


@pytest.mark.skipif(not IS_ROOT, reason="only root can give folders away")
@pytest.mark.parametrize("which", ["root", "inner"])
def test_a_folder_of_another_user_is_refused(which: str, home: Path, run: Run) -> None:
    run()
    folder = home / "cache" / "dnnjpeg" if which == "root" else inner(home)
    os.chown(folder, 54321, 54321)
    found, said = run()
    assert found == "0" and lines(said) == 1 and f"{folder} belongs to user 54321" in said


@pytest.mark.parametrize("planted", ["link", "open"])
def test_a_folder_planted_in_the_temporary_one_is_not_used(planted: str, home: Path, run: Run) -> None:
    """One that nobody can know before takes its place, and goes with the process."""
    (home / "cache").write_text("a file where the folder should be")
    wanted = home / "tmp" / f"dnnjpeg-{os.getuid()}"
    (home / "theirs").mkdir()
    if planted == "link":
        wanted.symlink_to(home / "theirs")
    else:
        wanted.mkdir()
        wanted.chmod(0o777)
    for _ in range(2):
        found, said = run(
            "import atexit, os; atexit.register(lambda: print(len(os.listdir(os.environ['TMPDIR']))))"
        )
        assert found.split() == ["0", "1"] and lines(said) == 1 and str(wanted) in said
    assert not kept(home)


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_changed_source_is_compiled_anew(variable: str, tmp_path: Path, run: Run) -> None:
    """Wherever the cache lies; here a part that the kernel calls has changed."""
    copy = tmp_path / "copy" / "dnnjpeg"
    shutil.copytree(Path(__file__).parents[2] / "dnnjpeg", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "__init__.py").write_text("")
    part = copy / "codec" / "part.py"
    program = tmp_path / "program.py"
    program.write_text(
        "from dnnjpeg.codec.whole import whole\nprint(whole(1), sum(whole.stats.cache_hits.values()))\n"
    )
    (copy / "codec" / "whole.py").write_text(
        "from dnnjpeg.machine.jit import kernel\nfrom dnnjpeg.codec.part import part\n"
        "@kernel\ndef whole(x):\n    return part(x)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(copy.parent), variable: str(tmp_path / "cache")}

    def call() -> list[str]:
        done = subprocess.run(
            [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    source = "from dnnjpeg.machine.jit import inlined\n@inlined\ndef part(x):\n    return x + {}\n"
    part.write_text(source.format(10))
    assert call() == ["11", "0"] and call() == ["11", "1"]
    part.write_text(source.format(200))
    assert call() == ["201", "0"]


NO_HOME = "import pwd\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\nimport os\n"


def test_a_user_without_a_home(home: Path, run: Run) -> None:
    """Neither HOME nor an entry in passwd, as in containers."""
    before = NO_HOME + "del os.environ['XDG_CACHE_HOME']"
    assert run(before) == ("0", "")
    assert run(before) == ("1", "")  # beside other temporary files
    (file,) = kept(home)
    assert file.is_relative_to(home / "tmp" / f"dnnjpeg-{os.getuid()}")


def test_a_changed_source_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba itself would look at the file of the outermost function alone."""
    copy = tmp_path / "dnnjpeg"
    shutil.copytree(Path(kernel_cache.__file__).parents[1], copy)
    monkeypatch.setattr(kernel_cache, "__file__", str(copy / "machine" / "kernel_cache.py"))
    monkeypatch.setattr(kernel_cache.numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    fresh = kernel_cache.kernel_folder.__wrapped__
    seen = {fresh()}
    assert seen == {fresh()}
    for name in (
        "codec/quantize.py",
        "codec/dct.py",
        "sparse/kernel.py",
        "machine/simd.py",
        "machine/vector.py",
    ):
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert fresh() not in seen
        seen.add(fresh())


def test_no_folder_at_all(home: Path, run: Run) -> None:
    """Where nothing can be written, kernels work from memory."""
    (home / "cache").write_text("a file where the folder should be")
    before = (
        "import tempfile\n"
        "def none(*a, **k): raise FileNotFoundError(2, 'no usable temporary directory')\n"
        "tempfile.gettempdir = tempfile.mkdtemp = none"
    )
    found, said = run(before)
    assert found == "0" and lines(said) == 1 and "compiled again in each process" in said


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "dnnjpeg-test", str(folder)]
    if (
        not IS_ROOT
        or not shutil.which("mount")
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_pictures_are_encoded_where_the_disk_of_the_cache_is_full(mounted: Path) -> None:
    (mounted / "filler").write_bytes(bytes(48 << 10))
    program = (
        "import dnnjpeg, numpy as np\n"
        "for _ in range(2):\n"
        "    assert dnnjpeg.encode(np.zeros((16, 16, 3), np.uint8))[:2] == bytes([0xff, 0xd8])\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(mounted)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert lines(done.stderr) == 1 and "No space left" in done.stderr
    assert not [path for path in mounted.rglob("*") if path.is_file() and path.suffix not in (".nbc", "")]


def test_a_file_system_that_is_full_from_the_start(mounted: Path, run: Run, home: Path) -> None:
    (mounted / "filler").write_bytes(bytes(64 << 10))
    found, said = run(NUMBA_CACHE_DIR=str(mounted))
    assert found == "0" and lines(said) == 1 and "No space left" in said


def test_a_file_that_may_not_grow(home: Path, run: Run) -> None:
    """For those who cannot mount: a limit of the process has the same effect."""
    before = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))"
    )
    found, said = run(before)
    assert found == "0" and lines(said) == 1 and "File too large" in said
    assert not [path for path in (home / "cache").rglob("*") if path.is_file()]


def test_a_warm_cache_that_cannot_be_written_is_used(home: Path, run: Run) -> None:
    run()
    if IS_ROOT:
        if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
            pytest.skip("no mounts of its own")
        script = (
            f'mount --bind {home}/cache {home}/cache && mount -o remount,bind,ro {home}/cache && exec "$@"'
        )
        prefix = ("unshare", "-m", "sh", "-c", script, "sh")
        assert run(prefix=prefix) == ("1", "")
        return
    folder = inner(home)
    folder.chmod(0o500)
    try:
        assert run() == ("1", "")
    finally:
        folder.chmod(0o700)


@pytest.mark.skipif(not IS_ROOT, reason="the folders have to be root's")
def test_a_warm_cache_of_root_is_used_by_others(home: Path, run: Run) -> None:
    """As in the image of a container. Root can change all that is run anyway."""
    before = "from dnnjpeg.machine import folders; folders.os.getuid = lambda: 54321"
    assert run() == ("0", "") and run(before) == ("1", "")


def test_readings_kept_first_leave_the_folder_private(home: Path, run: Run) -> None:
    """Both caches lie in one folder, whichever is the first to make it."""
    before = "import os; os.umask(0o002)\nfrom dnnjpeg.files.cache import Cache\n"
    before += f"Cache({str(home / 'cache' / 'dnnjpeg' / 'readings')!r})"
    assert run(before) == ("0", "") and run(before) == ("1", "")
