"""Questions about paths. Where a folder may not be entered or a name is too long, the answer is no.

The methods of `Path` raise OSError then. What is done with the path gets this error again, and reports it.
"""

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
