"""Files are written whole or not at all."""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

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
