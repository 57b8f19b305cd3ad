"""Where files go, and that none goes where it should not."""

import os
from pathlib import Path

import pytest

from dnnjpeg.jobs.destinations import jpeg_name, plan
from dnnjpeg.jobs.tasks import FileTask, Result


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def planned(*paths: str, output: str | None, **options) -> list[str]:
    """'source > target', or 'source ! status'."""
    return [
        f"{step.source} > {step.destination}"
        if isinstance(step, FileTask)
        else f"{step.source} ! {step.status}"
        for step in plan([Path(path) for path in paths], Path(output) if output else None, **options)
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.jpg"), ("a.jpg", "a.jpg"), ("a.JPEG", "a.JPEG"), ("x/a.b.tiff", "x/a.b.jpg"),
        ("a", "a.jpg"), ("v1.2", "v1.2.jpg"), ("a b.WebP", "a b.jpg"),
    ],
)  # fmt: skip
def test_names(name, expected):
    assert jpeg_name(Path(name)) == Path(expected)


def test_the_tree_below_a_folder_is_kept(here):
    here("in/a.png", "in/sub/b.jpg", "in/sub/deep/c.tif", "in/note.txt", "else/d.gif")
    assert planned("in", "else/d.gif", output="out") == [
        "in/a.png > out/a.jpg",
        "in/sub/b.jpg > out/sub/b.jpg",
        "in/sub/deep/c.tif > out/sub/deep/c.jpg",
        "else/d.gif > out/d.jpg",
    ]
    assert planned("in", output="out", recursive=False) == ["in/a.png > out/a.jpg"]


def test_equal_names_are_kept_apart_by_their_folders(here):
    here("big/0/a.png", "big/1/a.png", "big/1/sub/b.jpg", "c.png")
    paths = ("big/0", "big/1", "c.png")
    assert planned(*paths, output="out")[:2] == ["big/0/a.png > out/a.jpg", "big/1/a.png ! failed"]
    assert planned(*paths, output="out", keep_tree=True) == [
        "big/0/a.png > out/big/0/a.jpg",
        "big/1/a.png > out/big/1/a.jpg",
        "big/1/sub/b.jpg > out/big/1/sub/b.jpg",
        "c.png > out/c.jpg",
    ]
    assert planned(".", output="out", keep_tree=True) == planned(".", output="out")


def test_elsewhere_the_tree_below_the_common_folder_is_kept(here, monkeypatch):
    here("big/0/a.png", "big/1/a.png", "work/x")
    monkeypatch.chdir("work")
    assert planned("../big/0", "../big/1/a.png", output="out", keep_tree=True) == [
        "../big/0/a.png > out/0/a.jpg",
        "../big/1/a.png > out/1/a.jpg",
    ]
    assert planned("../big/0", output="out", keep_tree=True) == ["../big/0/a.png > out/a.jpg"]


def test_named_files_need_no_picture_extension(here):
    here("in/upload")
    assert planned("in/upload", output="out") == ["in/upload > out/upload.jpg"]


def test_folders_that_link_to_each_other_are_taken_once(here):
    here("in/a/1.png", "in/b/2.png")
    Path("in/a/b").symlink_to("../b")
    Path("in/b/a").symlink_to("../a")
    Path("in/0").symlink_to("b")
    assert planned("in", output="out") == ["in/a/1.png > out/a/1.jpg", "in/b/2.png > out/b/2.jpg"]


def test_two_pictures_do_not_become_one(here):
    here("in/a.jpg", "in/a.png", "other/a.bmp", "in/sub/a.png")
    assert planned("in", "other/a.bmp", output="out") == [
        "in/a.jpg > out/a.jpg",
        "in/a.png ! failed",
        "in/sub/a.png > out/sub/a.jpg",
        "other/a.bmp ! failed",
    ]


def test_a_picture_named_twice_is_taken_once(here):
    here("in/a.png", "in/b.png")
    Path("alias").symlink_to("in")
    assert planned("in", "in/a.png", "alias/b.png", output="out") == [
        "in/a.png > out/a.jpg",
        "in/b.png > out/b.jpg",
    ]


def test_existing_outputs_are_replaced_or_skipped(here):
    here("in/a.png", "in/b.png", "out/a.jpg")
    assert planned("in", output="out") == ["in/a.png > out/a.jpg", "in/b.png > out/b.jpg"]
    asked = []

    def is_done(source: Path, output: Path) -> bool:
        asked.append((source, output))
        return True

    assert planned("in", output="out", is_done=is_done) == [
        "in/a.png ! skipped",
        "in/b.png > out/b.jpg",
    ]


def test_no_source_is_a_target(here):
    here("in/a.jpg", "in/a.png", "in/b.png", "in/in/a.png", "in/in/c.png")
    assert planned("in", output="in")[:3] == ["in/a.jpg ! failed", "in/a.png ! failed", "in/b.png > in/b.jpg"]
    # in/in/a.png would land on in/a.jpg
    assert planned("in", output=".")[3:] == ["in/in/a.png ! failed", "in/in/c.png > in/c.jpg"]
    assert planned("in/a.jpg", output="in") == ["in/a.jpg ! failed"]
    assert planned("in/a.png", output="in") == ["in/a.png ! failed"]
    Path("alias").symlink_to("in")
    assert planned("in/a.jpg", output="alias") == ["in/a.jpg ! failed"]


def test_output_inside_the_source_is_not_walked(here):
    here("in/a.png", "in/out/a.jpg", "in/out/old.png")
    assert planned("in", output="in/out") == ["in/a.png > in/out/a.jpg"]
    assert planned("in", "in/out", output="in/out") == [
        "in/a.png ! failed",
        "in/out/a.jpg ! failed",
        "in/out/old.png > in/out/old.jpg",
    ]


def test_in_place_takes_each_jpeg_once_and_follows_no_link(here):
    here("in/a.jpg", "in/b.png", "in/c.JPEG", "else/d.jpg", "in/sub/e.jpg")
    Path("in/f.jpg").symlink_to("a.jpg")
    Path("in/link").symlink_to("../else")
    expected = ["in/a.jpg > in/a.jpg", "in/c.JPEG > in/c.JPEG", "in/sub/e.jpg > in/sub/e.jpg"]
    assert planned("in", output=None) == expected
    assert planned("in", "in/a.jpg", "in/f.jpg", "in/sub", output=None) == expected
    assert planned("in/f.jpg", output=None) == ["in/f.jpg > in/f.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder_is_reported(here):
    here("in/a.jpg", "in/secret/b.jpg")
    Path("in/secret").chmod(0)
    try:
        assert planned("in", output="out") == ["in/a.jpg > out/a.jpg", "in/secret ! failed"]
    finally:
        Path("in/secret").chmod(0o700)


def test_a_folder_that_goes_away_is_reported(here, monkeypatch):
    here("in/a.jpg", "in/sub/b.jpg")
    steps = plan([Path("in")], Path("out"))
    assert isinstance(next(steps), FileTask)
    Path("in/sub/b.jpg").unlink()
    Path("in/sub").rmdir()
    assert list(steps) == [Result(Path("in/sub"), "failed", "No such file or directory")]


def test_a_name_that_is_too_long_is_the_tasks_error(here):
    """Of one picture, and not of the run."""
    here("in/a.png", "in/" + "y" * 251 + ".png")
    long = "y" * 251 + ".png"
    assert planned("in", output="x" * 300) == [
        f"in/a.png > {'x' * 300}/a.jpg",
        f"in/{long} > {'x' * 300}/{'y' * 251}.jpg",
    ]
