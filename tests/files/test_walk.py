"""Picture files are found in folders: by name, through links, without loops."""

import itertools
import os

import pytest

from dnnjpeg.files.images import walk


def names(found, top) -> list[str]:
    return [path.relative_to(top).as_posix() for path in found]


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "c.txt",
        ".hidden.jpg",
        ".0123.dnnjpeg-tmp",
        "sub/z.tif",
        "sub/deep/y.webp",
        ".dot/x.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_walk_is_sorted_and_takes_pictures_only(tree):
    assert names(walk(tree), tree) == ["a.PNG", "b.jpg", "sub/z.tif", "sub/deep/y.webp"]
    assert names(walk(tree, recursive=False), tree) == ["a.PNG", "b.jpg"]
    assert names(walk(str(tree), extensions={".jpg"}), tree) == ["b.jpg"]
    assert names(walk(tree, skip=tree / "sub" / "deep"), tree) == ["a.PNG", "b.jpg", "sub/z.tif"]


def test_walk_of_a_relative_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert [str(path) for path in walk(".")] == ["a.PNG", "b.jpg", "sub/z.tif", "sub/deep/y.webp"]
    (tree / "sub" / "up").symlink_to("..")
    assert len(list(walk("."))) == len(list(walk("sub/.."))) == 4


def test_walk_follows_links_but_no_loops(tree):
    (tree / "sub" / "up").symlink_to("..")
    (tree / "l.jpg").symlink_to("b.jpg")
    (tree / "other").symlink_to("sub")  # a folder below keeps its own name
    assert names(walk(tree), tree) == ["a.PNG", "b.jpg", "l.jpg", "sub/z.tif", "sub/deep/y.webp"]
    (tree / "seen").symlink_to(".dot")  # but for one that has no other way
    (tree / "again").symlink_to(".dot")
    assert names(walk(tree), tree)[5:] == ["again/x.jpg"]
    assert names(walk(tree, follow_links=False), tree) == ["a.PNG", "b.jpg", "sub/z.tif", "sub/deep/y.webp"]


def test_walk_ends_with_folders_that_link_to_each_other(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).mkdir()
        (tmp_path / one / f"{one}.jpg").touch()
        (tmp_path / one / "link").symlink_to(tmp_path / other)
    assert names(walk(tmp_path / "a"), tmp_path) == ["a/a.jpg", "a/link/b.jpg"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("count", [9, 40])
def test_walk_takes_each_folder_once(tmp_path, count):
    """Through nine folders that link to each other there are 986,409 ways."""
    folders = [tmp_path / "top" / f"{number:03}" for number in range(count)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.jpg").touch()
    for folder in folders:
        for other in folders:
            if other != folder:
                (folder / other.name).symlink_to(other)
    top = tmp_path / "top"
    assert names(walk(top), top) == [f"{number:03}/a.jpg" for number in range(count)]
    inside = sorted(names(walk(folders[1]), folders[1]))
    first = [f"{number:03}/a.jpg" for number in range(count) if number != 1]
    assert inside == [*first, "a.jpg"]
    assert names(walk(top, follow_links=False), top) == names(walk(top), top)


def test_walk_takes_links_after_folders_and_in_order(tmp_path):
    for name in ("top/b/1.jpg", "top/d/2.jpg", "else/e/3.jpg", "more/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    top = tmp_path / "top"
    (top / "c").symlink_to("../else")
    (top / "a").symlink_to("../more")
    (tmp_path / "else" / "to").symlink_to("../top/d")
    (tmp_path / "more" / "up").symlink_to("..")
    expected = ["b/1.jpg", "d/2.jpg", "a/4.jpg", "c/e/3.jpg"]
    assert names(walk(top), top) == expected
    (top / "alias").symlink_to("../more/up")  # holds all, and what is not found yet
    assert names(walk(top), top) == ["b/1.jpg", "d/2.jpg", "a/4.jpg", "alias/else/e/3.jpg"]


def test_walk_reads_folders_as_it_goes(tree, monkeypatch):
    read = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(path) or scandir(path))
    assert len(list(itertools.islice(walk(tree), 2))) == 2
    assert len(read) == 1


def test_walk_reports_a_folder_it_cannot_read(tree):
    errors = []
    assert list(walk(tree / "none", on_error=errors.append)) == []
    assert errors[0].filename == str(tree / "none")
    with pytest.raises(FileNotFoundError):
        list(walk(tree / "none"))
