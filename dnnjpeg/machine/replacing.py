"""Replace a file in one step, for all that dnnjpeg writes: JPEG files, results, machine code."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".dnnjpeg-tmp"
_NO_SYNC = (errno.EINVAL, errno.EACCES, errno.ENOTSUP)  # not all systems and users can sync a folder


@contextmanager
def replacing(path: Path, scratch: Path, *, fsync: bool = True) -> Iterator[BinaryIO]:
    """Give a new file to write to. It becomes `path` if the block ends well, and is removed if not.

    scratch: the folder of the temporary file, on the same disk as `path`.
    fsync: wait until file and folder are on the disk, so that the new file survives a power loss.

    Raises OSError.
    """
    temporary = scratch / f".{os.urandom(8).hex()}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if fsync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until a folder is on the disk, if the system can do so. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
