"""Private folders: nobody but the user and root can write to them."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


class NotPrivate(Exception):
    """Somebody else can write to a folder, or could do so."""


def user() -> int:
    """The user's id, or 0 on a system without user ids."""
    return os.getuid() if hasattr(os, "getuid") else 0


def make_private(folder: Path) -> None:
    """Make a folder and its parents, if they are missing. Only the user can read new ones. Raises OSError."""
    for each in (*reversed(folder.parents), folder):
        if not os.path.lexists(each):
            with suppress(FileExistsError):  # another process was faster
                each.mkdir(mode=0o700)


def check_private(folder: Path) -> None:
    """Raise NotPrivate if others than the user and root can write to a folder, OSError if it is no folder."""
    found = folder.lstat()
    remedy = "delete it, and it is made again"
    if stat.S_ISLNK(found.st_mode):
        raise NotPrivate(f"{folder} is a symbolic link, expected a folder; {remedy}")
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not hasattr(os, "getuid"):
        return  # a system without such owners and modes
    if found.st_uid not in (user(), 0):  # root can change every program anyway
        raise NotPrivate(f"{folder} belongs to user {found.st_uid}, expected {user()}; {remedy}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise NotPrivate(f"{folder} has the mode {mode:o}, so that others can write to it; {remedy}")
