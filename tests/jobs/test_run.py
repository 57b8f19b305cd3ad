"""One file from reading to writing, and many at a time."""

import io
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dnnjpeg.files.atomic import TEMPORARY_SUFFIX
from dnnjpeg.jobs import workers
from dnnjpeg.jobs.file import describe, encode_files
from dnnjpeg.jobs.run import run
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result, Totals
from dnnjpeg.table.library import load_table

OPTIONS = FileOptions(load_table("standard"), 75)


def encode_file(task: FileTask | Result, recipe: FileOptions) -> Result:
    (result,) = encode_files([task], recipe)
    return result


def test_file_is_encoded_as_the_library_does(photo, tmp_path):
    from dnnjpeg.encoder import encode

    photo.save(tmp_path / "a.png")
    result = encode_file(FileTask(tmp_path / "a.png", tmp_path / "new" / "a.jpg"), OPTIONS)
    data = (tmp_path / "new" / "a.jpg").read_bytes()
    assert data == encode(photo, "standard", 75)
    before = (tmp_path / "a.png").stat().st_size
    assert result == Result(tmp_path / "a.png", "encoded", "", 160 * 120, before, len(data))


def test_bytes_come_back_where_there_is_no_target(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    result = encode_file(FileTask(Path("-"), None, buffer.getvalue()), OPTIONS)
    assert result.data is not None
    assert Image.open(io.BytesIO(result.data)).size == photo.size
    assert result.bytes_after == len(result.data)


def test_results_pass_through():
    result = Result(Path("a"), "skipped", "why")
    assert encode_file(result, OPTIONS) is result


def test_failure_is_a_result(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"text")
    result = encode_file(FileTask(tmp_path / "a.jpg", tmp_path / "b.jpg"), OPTIONS)
    assert result.status == "failed"
    assert "not a picture" in result.reason
    assert not (tmp_path / "b.jpg").exists()


def test_jobs_run_side_by_side(monkeypatch):
    together = threading.Barrier(3, timeout=20)

    def meet(tasks: list[FileTask], recipe: FileOptions) -> list[Result]:
        together.wait()
        return [Result(task.source, "encoded") for task in tasks]

    monkeypatch.setattr(workers, "encode_files", meet)
    tasks = [FileTask(Path(str(i)), None) for i in range(6)]
    assert len(list(run(tasks, OPTIONS, 3))) == 6


def test_the_number_of_jobs_does_not_change_a_byte(photo, tmp_path):
    for i in range(6):
        Image.fromarray(np.roll(np.asarray(photo), i, axis=0)).save(tmp_path / f"{i}.png")
    for jobs in (1, 3):
        tasks = [FileTask(tmp_path / f"{i}.png", tmp_path / str(jobs) / f"{i}.jpg") for i in range(6)]
        assert all(result.status == "encoded" for result in run(tasks, OPTIONS, jobs))
    for i in range(6):
        assert (tmp_path / "1" / f"{i}.jpg").read_bytes() == (tmp_path / "3" / f"{i}.jpg").read_bytes()


@pytest.mark.parametrize("fsync", [True, False])
def test_files_and_new_folders_are_on_the_disk_or_not(photo, tmp_path, monkeypatch, fsync):
    photo.save(tmp_path / "a.png")
    synchronized = []

    def sync(descriptor: int) -> None:
        synchronized.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115

    monkeypatch.setattr(os, "fsync", sync)
    recipe = FileOptions(load_table("standard"), 75, fsync=fsync)
    assert encode_file(FileTask(tmp_path / "a.png", tmp_path / "new" / "a.jpg"), recipe).status == "encoded"
    if fsync:
        assert synchronized[0] == str(tmp_path)
        assert synchronized[1].startswith(f"{tmp_path}/new/.")
        assert synchronized[2:] == [f"{tmp_path}/new"]
    else:
        assert synchronized == []


def test_a_copy_in_place_brings_nothing_to_the_disk(photo, tmp_path, monkeypatch):
    source = tmp_path / "a.jpg"
    photo.save(source, quality=95)
    assert encode_file(FileTask(source, source), OPTIONS).status == "encoded"
    monkeypatch.setattr(os, "fsync", pytest.fail)
    assert encode_file(FileTask(source, source), OPTIONS).status == "copied"


def test_each_folder_is_brought_to_the_disk_once(photo, tmp_path, monkeypatch):
    real, synchronized = os.fsync, []

    def sync(descriptor: int) -> None:
        synchronized.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        if synchronized[-1] == tmp_path / "bad":
            raise OSError(5, "Input/output error")
        real(descriptor)

    photo.save(tmp_path / "a.png")
    folders = [tmp_path / name for name in ("good", "bad", "linked")]
    for folder in folders:
        folder.mkdir()
    (tmp_path / "good" / "5.jpg").symlink_to("../linked/5.jpg")
    (tmp_path / "linked" / "5.jpg").touch()
    tasks = [FileTask(tmp_path / "a.png", tmp_path / "good" / f"{i}.jpg") for i in (4, 5)]
    tasks += [FileTask(tmp_path / "a.png", tmp_path / "bad" / f"{i}.jpg") for i in range(3)]
    tasks += [FileTask(tmp_path / "nothing", tmp_path / "none" / "a.jpg")]
    monkeypatch.setattr(os, "fsync", sync)
    results = encode_files(tasks, OPTIONS)
    assert sorted(path for path in synchronized if path.is_dir()) == sorted(folders)
    assert [result.status for result in results] == ["encoded"] * 2 + ["failed"] * 4
    assert [result.reason for result in results[2:5]] == [
        f"Input/output error: {tmp_path}/bad/{i}.jpg" for i in range(3)
    ]


def test_a_run_removes_what_killed_ones_left_where_it_writes(photo, tmp_path):
    name = f".0123456789abcdef{TEMPORARY_SUFFIX}"
    folders = [tmp_path / name for name in ("in", "out", "linked", "dry")]
    for folder in folders:
        folder.mkdir()
        photo.save(folder / "a.jpg")
        (folder / name).write_bytes(b"part")
        os.utime(folder / name, (0, 0))
    source, out, linked, dry = folders
    (tmp_path / "link.jpg").symlink_to(linked / "a.jpg")
    tasks = [FileTask(source / "a.jpg", out / "a.jpg"), FileTask(source / "a.jpg", tmp_path / "link.jpg")]
    assert [result.status for result in run(tasks, OPTIONS, 2)] == ["encoded", "encoded"]
    tasks = [
        FileTask(source / "a.jpg", dry / "a.jpg"),
        FileTask(source / "a.jpg", None),
        Result(dry, "failed"),
    ]
    assert len(list(run(tasks, replace(OPTIONS, dry_run=True), 2))) == 3
    assert [(folder / name).exists() for folder in folders] == [True, False, False, True]


def test_totals_count_what_was_done():
    totals = Totals()
    totals.add(Result(Path("a"), "encoded", "", 100, 1000, 50))
    totals.add(Result(Path("b"), "copied", "", 300, 150, 150))
    totals.add(Result(Path("c"), "skipped", "why", 7, 7, 7))
    totals.add(Result(Path("d"), "failed", "why"))
    assert totals == Totals(1, 1, 1, 1, 400, 1150, 200)
    assert (totals.done, totals.bits_per_pixel) == (2, 4.0)
    assert Totals().bits_per_pixel == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), "No such file or directory"),
        (PermissionError(13, "Permission denied", "out/a.jpg"), "Permission denied: out/a.jpg"),
        (OSError("image file is truncated"), "image file is truncated"),
        (ValueError("is too wide"), "is too wide"),
        (MemoryError(), "MemoryError"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_reasons(error, text):
    assert describe(error, Path("a.jpg")) == text
