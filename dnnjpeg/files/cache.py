"""Arrays kept on disk under a digest of all that they depend on, so that nothing is measured twice."""

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
    """A folder of such files, made for the user alone where it is missing. Each is written whole, and all may
    be deleted at any time; several processes may share it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        make_private(self.folder.absolute())

    def load(self, key: str) -> Arrays:
        """The arrays kept under a key; none where there is no whole file."""
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
        """Keep arrays. Raises OSError."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        data = file.getvalue()
        # readers of zip files, numpy among them, pass over what follows
        write_atomic(self.folder / f"{key}.npz", data + hashlib.sha256(data).digest())


def key(*parts: object) -> str:
    """A name for what depends on these parts, all of them, by their `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def digest(array: NDArray[Any]) -> str:
    """Of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
