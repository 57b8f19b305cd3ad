"""Paths that cannot be looked at."""

from pathlib import Path

import pytest

from dnnjpeg.files.images import walk
from dnnjpeg.files.paths import exists, is_link


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
