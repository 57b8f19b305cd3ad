"""Worker processes: the same results as threads, bounded work in advance, and an end with their parent."""

import io
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnjpeg.jobs import run as runs
from dnnjpeg.jobs import workers
from dnnjpeg.jobs.run import run
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.jobs.workers import MANY, SOME, encoders
from dnnjpeg.machine.processors import processors
from dnnjpeg.table.library import load_table

OPTIONS = FileOptions(load_table("universal"), 75)


def jpeg(photo: Image.Image, i: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.roll(np.asarray(photo), i, axis=0)).save(file, "JPEG", quality=95)
    return file.getvalue()


def children(process: int) -> list[int]:
    """Processes whose parent this is."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if is_alive(int(path.parent.name)) and int(path.read_text().rsplit(")", 1)[1].split()[1]) == process
    ]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_same_files_and_results_as_in_threads(photo, tmp_path, monkeypatch):
    for i in range(30):
        (tmp_path / f"{i:02}.jpg").write_bytes(jpeg(photo, i))
    photo.save(tmp_path / "03.png")
    (tmp_path / "04.png").write_bytes(b"text")
    sources = sorted(tmp_path.iterdir())
    found = {}
    for name, many in (("threads", 1000), ("processes", 32)):
        monkeypatch.setattr(runs, "MANY", many)
        monkeypatch.setattr(workers, "MANY", many)
        tasks: list[FileTask | Result] = [FileTask(p, tmp_path / name / f"{p.name}.jpg") for p in sources]
        tasks.insert(5, Result(Path("a"), "skipped", "why"))
        found[name] = list(run(tasks, OPTIONS, 2))
    assert found["threads"] == found["processes"]
    assert [result.source for result in found["processes"] if result.status == "failed"] == [
        tmp_path / "04.png"
    ]
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in found]
    assert files[0] == files[1]
    assert len(files[0]) == 31


def test_bytes_come_back_from_processes(photo):
    contents = [jpeg(photo, i) for i in range(20)]
    items = [contents[:3], [], *([c] for c in contents[3:])]
    with encoders(OPTIONS, 2, MANY) as pool:
        found = list(pool.each(items, lambda item: [FileTask(Path("-"), None, content) for content in item]))
    assert [item for item, _ in found] == items
    with encoders(OPTIONS, 1, 1) as pool:
        expected = list(
            pool.each(items, lambda item: [FileTask(Path("-"), None, content) for content in item])
        )
    assert found == expected


@pytest.mark.parametrize(("pictures", "ahead"), [(1, 2 * 3 + 1), (MANY, (2 * 3 + 1) * 8)])
def test_work_in_advance_is_bounded(pictures, ahead):
    pulled = 0

    def items():
        nonlocal pulled
        for i in range(300):
            pulled += 1
            yield i

    with encoders(OPTIONS, 3, pictures) as pool:
        for done, (item, (result,)) in enumerate(
            pool.each(items(), lambda i: [Result(Path(str(i)), "skipped")])
        ):
            assert item == done
            assert result.source == Path(str(done))
            assert pulled - done <= ahead
    assert done == 299


@pytest.mark.parametrize("are_files", [False, True])
def test_large_pictures_go_in_small_parts(are_files, tmp_path, monkeypatch):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(3 << 20)
    sent = []
    monkeypatch.setattr(workers, "_hand_over", lambda _, work: sent.append(len(work)) or list(work))
    with encoders(OPTIONS, 2, MANY) as pool:
        content = None if are_files else bytes(3 << 20)
        one = [FileTask(tmp_path / "large", None, content)]
        assert len(list(pool.each([one] * 5, lambda work: work))) == 5
    assert sent == [2, 2, 1]


def test_one_job_needs_no_process(monkeypatch):
    monkeypatch.setattr(workers, "Started", None)
    with encoders(OPTIONS, 1, MANY) as pool:
        assert list(pool.each([], lambda item: item)) == []


def test_kernels_for_one_process_alone_need_threads(monkeypatch):
    monkeypatch.setattr(workers, "_kernels_last", lambda: False)
    monkeypatch.setattr(workers, "Started", None)
    with encoders(OPTIONS, 2, MANY) as pool:
        assert list(pool.each([], lambda item: item)) == []


def test_a_process_with_threads_is_not_forked(monkeypatch):
    monkeypatch.setattr(workers, "Forked", None)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(int)
        assert not workers.can_fork()
        with encoders(OPTIONS, 2, MANY - 1) as pool:
            assert list(pool.each([], lambda item: item)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_without_room_for_a_fork_threads_encode(photo, monkeypatch):
    def fork() -> int:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise BlockingIOError(11, "Resource temporarily unavailable")

    blocked: list[set[int]] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(workers, "processors", lambda: 2)
    monkeypatch.setattr(workers, "can_fork", lambda: True)
    monkeypatch.setattr(os, "fork", fork)
    before = len([*Path("/proc/self/fd").iterdir()])
    with encoders(OPTIONS, 2, SOME) as pool:
        task = FileTask(Path("-"), None, jpeg(photo, 0))
        assert [found.status for _, (found,) in pool.each([task], lambda one: [one])] == ["encoded"]
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert blocked[0] >= {signal.SIGINT, signal.SIGTERM}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_more_jobs_than_processors_are_threads(monkeypatch):
    monkeypatch.setattr(workers, "Forked", None)
    monkeypatch.setattr(workers, "processors", lambda: 2)
    monkeypatch.setattr(workers, "can_fork", lambda: True)
    with encoders(OPTIONS, 3, SOME) as pool:
        assert list(pool.each([], lambda item: item)) == []


def test_a_killed_worker_is_one_clear_error(photo):
    def items():
        for i in range(100):
            if i == 50:
                for process in children(os.getpid()):
                    os.kill(process, signal.SIGKILL)
            yield i

    content = jpeg(photo, 0)
    with (
        pytest.raises(ChildProcessError, match=r"a worker process ended with status -9.*fewer --jobs"),
        encoders(OPTIONS, 2, MANY) as pool,
    ):
        list(pool.each(items(), lambda _: [FileTask(Path("-"), None, content)]))


@pytest.mark.parametrize("whole", [True, False], ids=["between pictures", "in the middle of one"])
def test_a_worker_whose_parent_is_gone_ends_silently(photo, whole):
    work = pickle.dumps([FileTask(Path("-"), None, jpeg(photo, 0))])
    given = pickle.dumps(OPTIONS) + (work if whole else work[: len(work) // 2])
    command = [sys.executable, "-c", "from dnnjpeg.jobs.processes import serve; serve()"]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == whole


# --- the command, which is forked


@pytest.fixture
def many(photo, tmp_path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    (tmp_path / "one.jpg").write_bytes(jpeg(photo, 0))
    for i in range(MANY + 400):
        (folder / f"{i:04}.jpg").hardlink_to(tmp_path / "one.jpg")
    return folder


def command(folder: Path, out: Path, jobs: int = 2) -> list[str]:
    options = ("-o", out, "--jobs", jobs, "--no-fsync")
    return [sys.executable, "-m", "dnnjpeg", "encode", *map(str, (folder, *options))]


def started(many: Path, out: Path) -> "subprocess.Popen[str]":
    """A run in the middle of its work."""
    process = subprocess.Popen(
        command(many, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (out / "0020.jpg").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    return process


forks = pytest.mark.skipif(
    sys.platform != "linux" or processors() < 2, reason="only Linux forks, for two processors or more"
)


@forks
def test_a_fork_writes_the_same_files(photo, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(SOME):
        (folder / f"{i:02}.jpg").write_bytes(jpeg(photo, i))
    photo.save(folder / "a.png")
    (folder / "b.png").write_bytes(b"text")
    subprocess.run(command(folder, tmp_path / "first", 1), capture_output=True, check=False)  # may compile
    found = []
    for jobs in (1, 2, 3):
        out = tmp_path / str(jobs)
        done = subprocess.run(command(folder, out, jobs), capture_output=True, text=True, check=False)
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        found.append((done.returncode, done.stderr, done.stdout.splitlines()[1:], files))
    assert found[0][0] == 1
    assert len(found[0][3]) == SOME + 1
    assert found[0] == found[1] == found[2]


@forks
def test_workers_are_forks(many, tmp_path):
    process = started(many, tmp_path / "out")
    programs = {Path(f"/proc/{one}/cmdline").read_bytes() for one in (process.pid, *children(process.pid))}
    process.kill()
    process.communicate()
    assert len(programs) == 1


@forks
def test_shards_are_encoded_by_forks(photo, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for i in range(200):
            (tmp_path / "one.jpg").write_bytes(jpeg(photo, i))
            shard.add(tmp_path / "one.jpg", f"{i:03}.jpg")
    assert (tmp_path / "a.tar").stat().st_size > 24 << 15
    code = (
        "from dnnjpeg.jobs import workers\n"
        "class Forked(workers.Forked):\n"
        "    def __init__(self, *args):\n"
        "        super().__init__(*args)\n"
        "        print('fork', flush=True)\n"
        "workers.Forked = Forked\n"
        "from dnnjpeg.tools.cli import run\n"
        "run('dnnjpeg')\n"
    )
    for jobs in (1, 2):
        arguments = ("encode", tmp_path / "a.tar", "-o", tmp_path / f"{jobs}", f"--jobs={jobs}")
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.count("fork\n") == (2 if jobs == 2 else 0)
    assert (tmp_path / "1" / "a.tar").read_bytes() == (tmp_path / "2" / "a.tar").read_bytes()


@forks
def test_a_caller_may_ignore_the_end_of_children(many, tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    done = subprocess.run(
        command(many, tmp_path / "out"), preexec_fn=ignore, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{MANY + 400:,} encoded, 0 failed")


def test_an_interruption_ends_after_the_pictures_at_hand(many, tmp_path):
    process = started(many, tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    done = len(list((tmp_path / "out").iterdir()))
    assert process.returncode == 130
    assert err == f"interrupted: {done} done; the same command with --skip-existing goes on from here\n"
    assert out.startswith(f"{done} encoded, 0 failed")
    assert 20 < done < MANY + 400


def test_a_killed_fork_is_one_line(many, tmp_path):
    process = started(many, tmp_path / "out")
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == (
        "Error: a worker process ended with status -9. If the memory was full, give fewer --jobs\n"
    )


def test_workers_end_with_a_killed_parent(many, tmp_path):
    process = started(many, tmp_path / "out")
    at_work = children(process.pid)
    assert len(at_work) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(is_alive(one) for one in at_work):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = sorted((tmp_path / "out").iterdir())
    assert len(done) < MANY + 400
    assert {path.read_bytes() for path in done if path.suffix == ".jpg"} == {done[-1].read_bytes()}
