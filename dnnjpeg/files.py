"""Files are written whole or not at all."""

import errno
import io
import os
import secrets
import selectors
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

TEMPORARY_SUFFIX = ".dnnjpeg-tmp"


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of the file `path`, which is the old file or the new one whatever happens.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the file's place
    in one step. A file that was there keeps its permissions and, where the system allows it, its owner; a
    new one gets the usual ones. A symbolic link stays a link: the file it points to is replaced. A pipe or
    a device is written to directly.

    A killed process can leave a temporary file behind, `.XXXXXXXXXXXXXXXX.dnnjpeg-tmp`: it is safe to delete.

    Raises OSError naming `path` (no such folder, permission denied, no space left, ...) after removing the
    temporary file.
    """
    path = Path(path)
    try:
        _write(path, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _write(path: Path, data: bytes) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        old = None
    if old is not None and not stat.S_ISREG(old.st_mode):
        path.write_bytes(data)  # raises IsADirectoryError for a folder
        return
    if old is not None and not os.access(path, os.W_OK):
        # Replacing needs no right to the file itself; its owner meant the protection all the same.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as file:
            if old is not None:
                with suppress(OSError):  # file systems without owners and modes refuse both
                    os.chown(temporary, old.st_uid, old.st_gid)
                with suppress(OSError):
                    temporary.chmod(stat.S_IMODE(old.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_all(file: IO[bytes] | io.RawIOBase, data: Any) -> None:
    """Write all of `data` to an open file of any kind and flush it, waiting where a pipe is full.

    A raw file takes a part at a time and says how much; one that does not block may take nothing for now.
    Raises OSError.
    """
    is_raw = isinstance(file, io.RawIOBase)
    rest = memoryview(data) if is_raw else data
    while len(rest):
        try:
            taken = file.write(rest)
        except BlockingIOError as error:
            taken = error.characters_written
            _wait(file)
        if taken is None and is_raw:
            _wait(file)
        else:
            rest = rest[taken:] if isinstance(taken, int) else b""  # some files do not count, and take all
    while hasattr(file, "flush"):
        try:
            file.flush()
            break
        except BlockingIOError:
            _wait(file)


def _wait(file: Any) -> None:
    """Until a file that does not block takes more."""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_WRITE)
        selector.select()
