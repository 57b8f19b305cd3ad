"""Paths that cannot be looked at."""

import os
from pathlib import Path

import pytest

from dnnjpeg.files.images import walk
from dnnjpeg.files.paths import RealPaths, exists, is_link


def test_no_answer_is_no(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    assert exists(tmp_path / "a") and exists(tmp_path / "b") and is_link(tmp_path / "b")
    assert not is_link(tmp_path / "a") and not exists(tmp_path / "c")
    for path in (tmp_path / ("y" * 300), tmp_path / ("y" * 300) / "z"):
        assert not exists(path) and not is_link(path)


def test_a_folder_that_may_not_be_entered_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).touch()

    def barred(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_symlink", barred)
    found = [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path, follow_links=False)]
    assert found == ["a.png", "b.png", "sub/c.png"]


def test_real_paths_are_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "folder").symlink_to("a")
    (tmp_path / "a" / "link").symlink_to("../folder/file")
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "nothing").symlink_to("nowhere/file")
    real_path = RealPaths()
    folders = (".", "a", "folder", "a/b/..", "folder/b/..", "missing", "a/file", "a/loop")
    names = ("file", "link", "loop", "nothing", "missing", "b", "..", ".", "b/../file", "x" * 300)
    for folder in (*folders, *(tmp_path / one for one in folders)):
        for name in names:
            path = Path(folder) / name
            assert real_path(path) == os.path.realpath(path), path
