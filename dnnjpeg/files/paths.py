"""Questions about paths. Where a folder may not be entered or a name is too long, the answer is no.

The methods of `Path` raise OSError then. What is done with the path gets this error again, and reports it.
"""

import os
from contextlib import suppress
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether there is a file or folder."""
    with suppress(OSError):
        return path.exists()
    return False


def is_link(path: Path) -> bool:
    """Whether it is a symbolic link."""
    with suppress(OSError):
        return path.is_symlink()
    return False


def folder_of(path: Path) -> Path:
    """The folder of a file; of a symbolic link, that of the file to which it leads."""
    return Path(os.path.realpath(path) if is_link(path) else path).parent


class RealPaths:
    """`os.path.realpath` for many files of few folders. Each folder is followed once, which saves time."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or is_link(path):
            return os.path.realpath(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)  # noqa: PTH118, as realpath returns a string
