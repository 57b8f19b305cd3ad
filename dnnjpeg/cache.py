"""Arrays kept on disk under a digest of all that they depend on, so that nothing is measured twice."""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.files import write_atomic
from dnnjpeg.machine.folders import make_private

Arrays = dict[str, NDArray[Any]]


class Cache:
    """A folder of such files, made for the user alone where it is missing. Each is written whole, and all may
    be deleted at any time; several processes may share it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        make_private(self.folder.absolute())

    def load(self, key: str) -> Arrays:
        """The arrays kept under a key; none where there is no whole file."""
        try:
            with np.load(io.BytesIO((self.folder / f"{key}.npz").read_bytes())) as file:
                return dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return {}

    def save(self, key: str, arrays: Arrays) -> None:
        """Keep arrays. Raises OSError."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        write_atomic(self.folder / f"{key}.npz", file.getvalue())


def key(*parts: object) -> str:
    """A name for what depends on these parts, all of them, by their `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def digest(array: NDArray[Any]) -> str:
    """Of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
