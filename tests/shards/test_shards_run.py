"""Many shards: what is done is not done again, whatever ends a run."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from commands import encode_command
from shard_files import jpeg, make, options, samples, tar_bytes, tree

from dnnjpeg.shards.run import Shards


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """{000..002}.tar, of 4 pictures each."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i:03}.tar").write_bytes(tar_bytes(samples(4, 4 * i)))
    return folder


def test_braces_and_globs_mean_the_same(three: Path, tmp_path: Path) -> None:
    for i, pattern in enumerate(("{000..002}.tar", "*.tar", "0?[0-2].tar", "{000,001,002}.tar")):
        assert [shard.status for shard in make(three / pattern, tmp_path / f"out{i}")] == ["done"] * 3
    assert (
        tree(tmp_path / "out0")
        == tree(tmp_path / "out1")
        == tree(tmp_path / "out2")
        == tree(tmp_path / "out3")
    )
    assert list(tree(tmp_path / "out0")) == ["000.tar", "001.tar", "002.tar"]
    summary = json.loads((tmp_path / "out0" / "_dnnjpeg" / "summary.json").read_text())
    assert summary["shards"] == {"done": 3, "before": 0, "failed": 0}
    assert (summary["encoded"], summary["failures"]) == (12, [])


def test_bytes_do_not_depend_on_the_threads(three: Path, tmp_path: Path) -> None:
    for jobs in (1, 3):
        make(three / "*.tar", tmp_path / f"out{jobs}", jobs=jobs)
    assert tree(tmp_path / "out1") == tree(tmp_path / "out3")


def test_done_is_not_done_again(three: Path, tmp_path: Path) -> None:
    make(three / "*.tar", tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    found = make(three / "*.tar", tmp_path / "out")
    assert [shard.status for shard in found] == ["before"] * 3
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    summary = json.loads((tmp_path / "out" / "_dnnjpeg" / "summary.json").read_text())
    assert (summary["shards"]["before"], summary["encoded"]) == (3, 12)


@pytest.mark.parametrize("change", ["record", "half a record", "shard", "shorter shard", "source"])
def test_what_is_not_whole_is_done_again(three: Path, tmp_path: Path, change: str) -> None:
    make(three / "*.tar", tmp_path / "out")
    expected = tree(tmp_path / "out")
    shard, record = tmp_path / "out" / "001.tar", tmp_path / "out" / "_dnnjpeg" / "001.tar.json"
    if change == "record":
        record.unlink()
    elif change == "half a record":
        record.write_text(record.read_text()[:100])
    elif change == "shard":
        shard.unlink()
    elif change == "shorter shard":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        (three / "001.tar").write_bytes(tar_bytes(samples(5, 20)))
    found = make(three / "*.tar", tmp_path / "out")
    assert [one.status for one in found] == ["before", "done", "before"]
    assert (tree(tmp_path / "out") == expected) is (change != "source")


@pytest.mark.parametrize(
    "damage", [lambda d: {**d, "encoded": "x"}, list, lambda d: 3, lambda d: {**d, "failures": 1}]
)
def test_a_record_that_is_none_is_done_again(damage: Any, three: Path, tmp_path: Path) -> None:
    make(three / "*.tar", tmp_path / "out")
    expected, record = tree(tmp_path / "out"), tmp_path / "out" / "_dnnjpeg" / "001.tar.json"
    record.write_text(json.dumps(damage(json.loads(record.read_text()))))
    found = make(three / "*.tar", tmp_path / "out")
    assert [one.status for one in found] == ["before", "done", "before"]
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("changes", [{"on_error": "drop"}, {"column": "x"}])
def test_other_options_do_not_mix(three: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    make(three / "000.tar", tmp_path / "out")
    with pytest.raises(ValueError, match="other options"):
        make(three / "*.tar", tmp_path / "out", **changes)


def test_a_bad_shard_does_not_stop_the_others(three: Path, tmp_path: Path) -> None:
    (three / "001.tar").write_bytes(b"damaged")
    assert [one.status for one in make(three / "*.tar", tmp_path / "out")] == ["done", "failed", "done"]
    (three / "001.tar").write_bytes(tar_bytes(samples(4, 4)))
    assert [one.status for one in make(three / "*.tar", tmp_path / "out")] == ["before", "done", "before"]


def test_what_cannot_be_meant(three: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "000.tar").write_bytes(b"")
    (tmp_path / "link").symlink_to(three)
    for sources, output, match in (
        ([three / "003.tar"], "out", "does not exist"),
        ([three / "{000..003}.tar"], "out", "003.tar does not exist"),
        ([three / "x*.tar"], "out", "does not exist"),
        ([three / "000.zip"], "out", "not a shard"),
        ([three / "000.tar", tmp_path / "b" / "000.tar"], "out", "one name"),
        ([three / "000.tar"], "in", "replace itself"),
        ([three / "000.tar"], "link", "replace itself"),
        ([three / "{0..b}.tar"], "out", "not a range"),
    ):
        with pytest.raises(ValueError, match=match):
            Shards([str(path) for path in sources], str(tmp_path / output), options())
    assert not (tmp_path / "out").exists()


def test_an_error_in_the_middle_leaves_nothing(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dnnjpeg.shards.tar._copy", full)
    (shard, *_) = make(three / "000.tar", tmp_path / "out")
    assert "No space left" in shard.reason
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["summary.json"]


# The command


def run(*arguments: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(encode_command(60, *arguments), capture_output=True, text=True)


def test_command(three: Path, tmp_path: Path, warm: None) -> None:
    make(three / "*.tar", tmp_path / "expected")
    done = run(three / "{000..002}.tar", "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shards: 3 done, 0 failed in ")
    assert "12 pictures encoded, 0 copied as they were, 0 failed" in done.stdout
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")
    again = run(three / "*.tar", "-o", tmp_path / "out", "--json")
    assert json.loads(again.stdout)["shards"] == {"done": 0, "before": 3, "failed": 0}


def test_command_with_failures(three: Path, tmp_path: Path) -> None:
    (three / "001.tar").write_bytes(b"damaged")
    (three / "002.tar").write_bytes(tar_bytes([("a\x1b[1m.jpg", b"text"), ("b.jpg", jpeg(0))]))
    done = run(three / "*.tar", "-o", tmp_path / "out", "--on-error", "drop")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{three / '001.tar'}: is no tar archive")
    assert second.startswith(f"{three / '002.tar'}: a\\x1b[1m.jpg: ")
    assert "1 failed, 1 samples dropped" in done.stdout


def test_command_refuses(three: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    for arguments, match in (
        ((three / "000.tar",), "where to?"),
        ((three / "000.tar", "-o", "-"), "where to?"),
        ((three / "000.tar", *out, "--in-place"), "--in-place: not for shards"),
        ((three / "000.tar", *out, "--dry-run"), "--dry-run: not for shards"),
        ((three / "000.tar", three, *out), "by separate commands"),
        (("s3://bucket/photos", *out), "is not a shard"),
        ((three, *out, "--column", "x"), "are for shards, whose names end in"),
        ((three / "9.tar", *out), "does not exist"),
        (("nothing://x/a.tar", *out), "cannot be reached"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert match in done.stderr, arguments
    assert not (tmp_path / "out").exists()


def test_a_folder_is_no_shard(tmp_path: Path, warm: None) -> None:
    (tmp_path / "pics.tar").mkdir()
    (tmp_path / "pics.tar" / "a.jpg").write_bytes(jpeg(0))
    done = run(tmp_path / "pics.tar", "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tree(tmp_path / "out")) == ["a.jpg"]
    many = f"{{{','.join(f'{i:03}' for i in range(2000))}}}.tar"  # longer than any path
    assert "000.tar does not exist" in run(tmp_path / many, "-o", tmp_path / "out").stderr


def test_kill_at_random_moments(tmp_path: Path) -> None:
    """The output of a run that was killed ten times is that of an undisturbed run."""
    pictures = [jpeg(i) for i in range(20)]
    for i in range(10):
        members = [(f"{j:04}.jpg", pictures[j % 20]) for j in range(400)]
        (tmp_path / f"{i}.tar").write_bytes(tar_bytes(members))
    make(tmp_path / "*.tar", tmp_path / "expected", jobs=1)
    arguments = encode_command(60, tmp_path / "*.tar", "-o", tmp_path / "out", "--jobs", "1")
    rng, halves = random.Random(0), 0
    state = tmp_path / "out" / "_dnnjpeg"

    def done() -> int:
        return len(list(state.glob("*.tar.json"))) if state.exists() else 0

    for _ in range(10):
        before = done()
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not any(state.glob(".*")) and done() == before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in (tmp_path / "out").glob("*.tar"):  # under a final name everything is whole
            assert path.read_bytes() == (tmp_path / "expected" / path.name).read_bytes()
        for path in state.glob(".*"):
            halves += 1
            path.unlink()  # as the next run does after a minute
    assert halves >= 3  # times that a shard was half written
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")
