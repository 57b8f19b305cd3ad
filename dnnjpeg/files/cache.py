"""A cache of arrays on disk. The key is a digest of all that the arrays depend on."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.machine.folders import make_private

Arrays = dict[str, NDArray[Any]]

_CHECK_BYTES = 32  # the digest of a file, at its end


class Cache:
    """A cache in a folder. A missing folder is made, and only the user can read it.

    Files are written whole, and may be deleted at any time. Several processes may share the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        make_private(self.folder.absolute())

    def load(self, key: str) -> Arrays:
        """The arrays of a key, or an empty dict if there is no whole file."""
        try:
            content = (self.folder / f"{key}.npz").read_bytes()
        except OSError:
            return {}
        data, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
        if hashlib.sha256(data).digest() != check:
            return {}
        with np.load(io.BytesIO(data)) as file:
            return dict(file)

    def save(self, key: str, arrays: Arrays) -> None:
        """Store arrays under a key. Raises OSError."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        data = file.getvalue()
        # numpy ignores bytes after the end of a zip file
        write_atomic(self.folder / f"{key}.npz", data + hashlib.sha256(data).digest())


def key(*parts: object) -> str:
    """A key that depends on the `repr` of all parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def digest(array: NDArray[Any]) -> str:
    """A digest of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
