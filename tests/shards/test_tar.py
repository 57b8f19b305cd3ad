"""Tar shards: what is made anew, what stays, and what is refused."""

import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from shard_files import Members, jpeg, make, read_tar, samples, tar_bytes, tree

import dnnjpeg

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def new(data: bytes) -> bytes:
    return dnnjpeg.transcode(data, "universal", 60)


def expected(members: Members) -> Members:
    return [(name, new(data) if name.endswith("jpg") else data) for name, data in members]


def record(folder: Path, name: str = "x.tar") -> dict[str, object]:
    return json.loads((folder / "out" / "_dnnjpeg" / f"{name}.json").read_text())


@pytest.mark.parametrize("form", FORMATS)
def test_pictures_are_made_anew_and_all_else_stays(tmp_path: Path, form: int) -> None:
    members = samples(5)
    members[4] = ("d/" * 60 + "long-ü.jpg", members[4][1])  # needs an extended header
    members.insert(6, ("big.bin", os.urandom(3_000_000)))
    if form == tarfile.USTAR_FORMAT:
        members[4] = ("d/long.jpg", members[4][1])
    (tmp_path / "x.tar").write_bytes(source := tar_bytes(members, form))
    (shard,) = make(tmp_path / "x.tar", tmp_path / "out")
    assert (shard.status, shard.reason) == ("done", "")
    written = (tmp_path / "out" / "x.tar").read_bytes()
    assert read_tar(written) == expected(members)
    # Headers differ in size and checksum only: tarfile itself makes this file from the new contents.
    assert written == tar_bytes(expected(members), form)
    found = record(tmp_path)
    before, after = (sum(len(d) for n, d in m if n.endswith("jpg")) for m in (members, expected(members)))
    assert (found["encoded"], found["copied"], found["failed"]) == (5, 0, 0)
    assert (found["bytes_before"], found["bytes_after"]) == (before, after)
    assert (found["source_bytes"], found["shard_bytes"]) == (len(source), len(written))


def with_global_header(members: Members) -> bytes:
    """A tar archive as `git archive` writes it: a header that holds for all members."""
    file = io.BytesIO()
    common = {"comment": "c" * 40, "mtime": "1234567890.5", "MINE.key": "ü" * 300}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=common) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def facts(data: bytes) -> tuple[dict[str, str], list[tuple[str, float, dict[str, str]]]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.pax_headers, [(one.name, one.mtime, one.pax_headers) for one in tar]


@pytest.mark.parametrize("bad", [False, True])
def test_global_headers_stay(tmp_path: Path, bad: bool) -> None:
    """Also if the sample behind one is dropped."""
    members = [("0.jpg", b"text" if bad else jpeg(0)), ("1.jpg", jpeg(1)), ("2" * 120 + ".jpg", jpeg(2))]
    (tmp_path / "x.tar").write_bytes(source := with_global_header(members))
    make(tmp_path / "x.tar", tmp_path / "out", on_error="drop")
    written = (tmp_path / "out" / "x.tar").read_bytes()
    assert written == with_global_header(expected(members[bad:]))
    common, told = facts(source)
    assert facts(written) == (common, told[bad:])
    assert common["mtime"] == "1234567890.5" and told[0][1] == 1234567890.5
    if git := shutil.which("git"):
        told = subprocess.run(
            [git, "get-tar-commit-id"], input=written, capture_output=True, check=True
        ).stdout
        assert told == b"c" * 40 + b"\n"


def test_names_in_any_case_and_files_without_a_name_for_it(tmp_path: Path) -> None:
    members = [("a.JPEG", jpeg(0)), ("b.bin", jpeg(1)), ("c.jpg", jpeg(2, "PNG")), ("d.png", jpeg(3, "PNG"))]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    make(tmp_path / "x.tar", tmp_path / "out")
    (_, a), (_, b), (_, c), (_, d) = read_tar((tmp_path / "out" / "x.tar").read_bytes())
    assert (a, b) == (new(jpeg(0)), new(jpeg(1)))
    assert dnnjpeg.inspect(c).made_by == "dnnjpeg universal 60"
    assert d == members[3][1]


def test_what_would_not_shrink_stays(tmp_path: Path) -> None:
    members = [("a.jpg", new(jpeg(0)))]
    (tmp_path / "x.tar").write_bytes(source := tar_bytes(members))
    make(tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / "x.tar").read_bytes() == source
    assert record(tmp_path)["copied"] == 1


def test_links_and_folders_stay(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{int(kind)}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    (tmp_path / "x.tar").write_bytes(file.getvalue())
    make(tmp_path / "x.tar", tmp_path / "out")
    assert (tmp_path / "out" / "x.tar").read_bytes() == file.getvalue()


HOSTILE = [
    "../../escaped.jpg",
    "/tmp/absolute.jpg",
    "a/../../../b.jpg",
    "..",
    "C:\\x.jpg",
    "x\ny.jpg",
    "\x1b[31m.jpg",
]


def test_names_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    members = [(name, jpeg(i)) for i, name in enumerate(HOSTILE)]
    (tmp_path / "in" / "deep" / "x.tar").write_bytes(tar_bytes(members))
    outside = tree(tmp_path)
    (shard,) = make(tmp_path / "in" / "deep" / "x.tar", tmp_path / "out")
    assert shard.status == "done"
    assert [name for name, _ in read_tar((tmp_path / "out" / "x.tar").read_bytes())] == HOSTILE
    assert tree(tmp_path).keys() - outside.keys() == {"out/x.tar"}
    assert not Path("/tmp/absolute.jpg").exists()


def test_duplicates_are_told(tmp_path: Path) -> None:
    members = [("a.jpg", jpeg(0)), ("b.jpg", jpeg(1)), ("a.jpg", jpeg(2))]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    make(tmp_path / "x.tar", tmp_path / "out")
    assert read_tar((tmp_path / "out" / "x.tar").read_bytes()) == expected(members)
    assert record(tmp_path)["duplicates"] == 1


BAD = {"empty": b"", "text": b"no picture", "cut": jpeg(1)[:-400]}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("on_error", ["keep", "drop", "fail"])
def test_bad_pictures(tmp_path: Path, bad: str, on_error: str) -> None:
    members = samples(3)
    members[4] = (members[4][0], BAD[bad])
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    (shard,) = make(tmp_path / "x.tar", tmp_path / "out", on_error=on_error)
    if on_error == "fail":
        assert shard.status == "failed"
        assert "'00001.jpg': " in shard.reason
        assert tree(tmp_path / "out") == {}
        assert [path.name for path in (tmp_path / "out" / "_dnnjpeg").iterdir()] == ["summary.json"]
        return
    wanted = expected([one for one in members if one[1] != BAD[bad]])
    wanted = [*wanted[:4], members[4], *wanted[4:]] if on_error == "keep" else wanted[:3] + wanted[5:]
    assert read_tar((tmp_path / "out" / "x.tar").read_bytes()) == wanted
    found = record(tmp_path)
    assert (found["encoded"], found["failed"], found["dropped"]) == (2, 1, int(on_error == "drop"))
    assert [one["member"] for one in found["failures"]] == ["00001.jpg"]


def failed(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "x.tar").write_bytes(data)
    (shard,) = make(tmp_path / "x.tar", tmp_path / "out")
    assert shard.status == "failed"
    assert tree(tmp_path / "out") == {}
    return shard.reason


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tar_bytes(samples(2))
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # of the members
    for at in [0, 1, 100, 511, 512, 700, 1024, 1536, 3000, end - 512, end]:
        assert failed(tmp_path, whole[:at])


def test_damaged_headers_are_refused(tmp_path: Path) -> None:
    """tarfile takes some of them for the end of the archive."""
    whole = bytearray(tar_bytes(samples(2)))
    for at in (100, 1024 + 100, 1024 + 148):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        assert "damaged" in failed(tmp_path, bytes(damaged)) or "no tar" in failed(tmp_path, bytes(damaged))


@pytest.mark.parametrize("size", [b"37777777777\0", b"\x80" + (1 << 32).to_bytes(11), b"\xff" * 12])
def test_sizes_that_are_not_there(tmp_path: Path, size: bytes) -> None:
    """8 GiB, 4 GiB and -1 byte."""
    whole = bytearray(tar_bytes(samples(2)))
    block = bytearray(whole[1024:1536])
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    whole[1024:1536] = block
    assert "byte" in failed(tmp_path, bytes(whole))


def test_two_archives_in_one_are_refused(tmp_path: Path) -> None:
    assert "two archives" in failed(tmp_path, 2 * tar_bytes(samples(1)))


@pytest.mark.parametrize("data", [b"no tar", bytes(3), b"\x1f\x8b" + bytes(600)])
def test_other_files(tmp_path: Path, data: bytes) -> None:
    assert failed(tmp_path, data)


def test_an_archive_without_members(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_bytes([]))
    make(tmp_path / "x.tar", tmp_path / "out")
    assert read_tar((tmp_path / "out" / "x.tar").read_bytes()) == []


def test_random_damage(tmp_path: Path) -> None:
    """Either the shard fails, or all its members are there."""
    whole, rng = tar_bytes(samples(2)), random.Random(0)
    counts = {"done": 0, "failed": 0}
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 3, 50])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "x.tar").write_bytes(damaged)
        (tmp_path / "out" / "_dnnjpeg" / "x.tar.json").unlink(missing_ok=True)
        (shard,) = make(tmp_path / "x.tar", tmp_path / "out")
        counts[shard.status] += 1
        if shard.status == "done":
            assert len(read_tar((tmp_path / "out" / "x.tar").read_bytes())) == 6
    assert min(counts.values()) >= 5
