"""Writing files whole or not at all."""

import errno
import io
import os
import re
import selectors
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from dnnjpeg.machine.replacing import TEMPORARY_SUFFIX, replacing, sync_folder

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX))
_MINUTE = 60  # no write takes so long


def write_atomic(path: str | os.PathLike[str], data: bytes, *, fsync: bool = True) -> None:
    """Write a file in one step: `path` always holds the whole old file or the whole new one.

    data: the content.
    fsync: wait until file and folder are on the disk, so that the new file survives a power loss. Without
        fsync, a power loss may leave an empty or incomplete file.

    The data go to a temporary file in the same folder, which then replaces `path`. An existing file keeps its
    permissions and, if the system allows it, its owner. Other hard links keep the old file. If `path` is a
    symbolic link, the file that it points to is replaced. Pipes and devices are written to directly.

    A killed process can leave its temporary file `.XXXXXXXXXXXXXXXX.dnnjpeg-tmp`. It is safe to delete;
    `remove_leftovers` does so.

    Raises OSError that names `path`, after the temporary file is removed.
    """
    path = Path(path)
    with AtomicWrites(fsync=fsync) as writes:
        writes.begin(path, data)
        for error in writes.finish().values():
            raise error


@dataclass
class _Begun:
    """A file that is written, but not in its place yet. Closing `place` puts it there."""

    path: Path
    target: Path
    file: IO[bytes]
    place: ExitStack
    error: OSError | None = None


class AtomicWrites:
    """Write some files as `write_atomic` does, but first write all of them, and then wait for the disk. That
    halves the wait.

    Use it in a `with` block. At the end of the block, the temporary files of unfinished files are removed.
    """

    def __init__(self, *, fsync: bool = True) -> None:
        self._fsync = fsync
        self._begun: list[_Begun] = []

    def begin(self, path: Path, data: bytes) -> None:
        """Write the data beside `path`. Raises OSError that names `path`."""
        try:
            self._begin(path, data)
        except OSError as error:
            raise _named(error, path) from error

    def _begin(self, path: Path, data: bytes) -> None:
        old, is_link = _found(path)
        if old is not None and not stat.S_ISREG(old.st_mode):
            path.write_bytes(data)  # raises IsADirectoryError for a folder
            return
        if old is not None and not os.access(path, os.W_OK):
            # Replacing needs no permission for the file itself. Its owner wants it protected all the same.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        target = Path(os.path.realpath(path)) if is_link else path
        with ExitStack() as place:
            file = place.enter_context(replacing(target, target.parent, fsync=False))
            if old is not None:
                with suppress(OSError):  # file systems without owners and modes refuse both
                    os.chown(file.name, old.st_uid, old.st_gid)
                with suppress(OSError):
                    Path(file.name).chmod(stat.S_IMODE(old.st_mode))
            file.write(data)
            file.flush()
            if self._fsync:
                _start_writing(file)
            self._begun.append(_Begun(path, target, file, place.pop_all()))

    def finish(self) -> dict[Path, OSError]:
        """Put all files in their places. Returns the errors by path; each error names its path."""
        if self._fsync:
            for one in self._begun:
                with _noting(one):
                    os.fsync(one.file.fileno())
        for one in self._begun:
            if one.error is None:
                with _noting(one):
                    one.place.close()
        if self._fsync:
            self._sync_folders()
        return {one.path: _named(one.error, one.path) for one in self._begun if one.error is not None}

    def _sync_folders(self) -> None:
        by_folder: dict[Path, list[_Begun]] = {}
        for one in self._begun:
            if one.error is None:
                by_folder.setdefault(one.target.parent, []).append(one)
        for folder, some in by_folder.items():
            with _noting(*some):
                sync_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        for one in self._begun:  # if its place is closed, nothing is left to remove
            one.place.__exit__(kind or GeneratorExit, error or GeneratorExit(), None)


def _found(path: Path) -> tuple[os.stat_result | None, bool]:
    """What the system says of a file, None if there is none; and whether the path is a symbolic link."""
    is_link = False
    try:
        found = path.lstat()
        is_link = stat.S_ISLNK(found.st_mode)
        return path.stat() if is_link else found, is_link
    except FileNotFoundError:
        return None, is_link


@contextmanager
def _noting(*some: _Begun) -> Iterator[None]:
    """Note an error as that of some files."""
    try:
        yield
    except OSError as error:
        for one in some:
            one.error = error


def _named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, os.fspath(path))


def _start_writing(file: IO[bytes]) -> None:
    """Let the system begin to write a file to the disk. Linux begins if it hears that nobody will read the
    data soon.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_folder(folder: Path, *, fsync: bool = True) -> None:
    """Make a folder and its parents, if they are missing. `fsync` is as in `write_atomic`. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent, fsync=fsync)
    folder.mkdir(exist_ok=True)
    if fsync:
        sync_folder(folder.parent)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files of killed processes of this user from a folder, if they are older than a minute.

    Files that cannot be removed stay.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else 0  # Windows gives 0 for every file
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name):
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    is_own = stat.S_ISREG(found.st_mode) and found.st_uid == user
                    if is_own and time.time() - found.st_mtime > _MINUTE:
                        Path(entry).unlink()


def write_all(file: IO[bytes] | io.RawIOBase, data: Any) -> None:
    """Write all of `data` to an open file of any kind, and flush it. Waits if a pipe is full.

    A raw file may write only a part, and a non-blocking file nothing: then the rest is written again. Other
    files write all, whatever they return. Raises OSError.
    """
    is_raw = isinstance(file, io.RawIOBase)
    rest = memoryview(data) if is_raw else data
    while len(rest):
        try:
            taken = file.write(rest)
            if not is_raw:
                break
        except BlockingIOError as error:
            taken = error.characters_written
            _wait(file)
        if taken is None:
            _wait(file)
        else:
            rest = rest[taken:]
    while hasattr(file, "flush"):
        try:
            file.flush()
            break
        except BlockingIOError:
            _wait(file)


def _wait(file: Any) -> None:
    """Wait until a non-blocking file can be written again."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_WRITE)
        selector.select()
