"""The cache of machine code on disk.

Machine code is unpickled and run. So it is loaded only from folders that nobody but the user and root can
write to, and only if its digest is right. If there is no such folder, kernels are compiled in each process.
"""

import atexit
import hashlib
import inspect
import logging
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba.core.caching import Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from dnnjpeg.machine.folders import NotPrivate, check_private, make_private, user

KERNEL_ROOMS = ("machine", "codec", "sparse")  # every kernel lives in one of these folders
SUFFIX = ".nbc"  # numba's, of files with machine code
_OLD = 30 * 24 * 60 * 60  # seconds
_DIGEST = hashlib.sha256().digest_size


@cache
def _warn(text: str) -> None:
    """Log a line, but only once in a process."""
    logging.getLogger("dnnjpeg").warning(text)


def _fingerprint() -> str:
    """A text that changes with the sources of kernels. Numba checks only the outermost function's file."""
    home = Path(__file__).parents[1]
    stats = [(path, path.stat()) for room in KERNEL_ROOMS for path in sorted(home.glob(f"{room}/*.py"))]
    facts = [(str(path.relative_to(home)), found.st_mtime_ns, found.st_size) for path, found in stats]
    return f"{zlib.crc32(repr(facts).encode()):08x}"


@cache
def kernel_folder() -> Path | None:
    """The folder for machine code, or None if no folder can be written.

    It is a subfolder of the first of these that only the user and root can write to: the folder named by
    NUMBA_CACHE_DIR, the user's cache folder, the temporary folder. If all of them fail, it is a new temporary
    folder for this process alone.
    """
    name = f"kernels-{_fingerprint()}"
    reason = ""
    for root in _roots():
        try:
            folder = root / name
            make_private(folder)
            check_private(root)
            check_private(folder)
            if os.access(folder, os.R_OK | os.X_OK) and (os.access(folder, os.W_OK) or any(folder.iterdir())):
                with suppress(OSError):  # a folder that may only be read
                    os.utime(folder)  # for `remove_old_kernels`
                return folder
        except NotPrivate as error:
            _warn(f"compiled kernels are kept in another folder: {error}")
        except OSError as error:
            reason = str(error)
    try:
        folder = Path(tempfile.mkdtemp(prefix="dnnjpeg-"))
    except OSError as error:
        _warn(
            f"kernels are compiled again in each process, because no folder can be written: {reason or error}"
        )
        return None
    atexit.register(_remove, folder, os.getpid())
    return folder


def remove_old_kernels() -> None:
    """Delete the folders of kernels that no process has used for 30 days. Errors are ignored.

    Only folders named kernels-XXXXXXXX that belong to the user are deleted, and only in the private folders
    where `kernel_folder` looks for a place.
    """
    oldest, current = time.time() - _OLD, kernel_folder()
    for root in _roots():
        with suppress(NotPrivate, OSError):
            check_private(root)
            for folder in root.iterdir():
                found = folder.lstat()
                is_ours = re.fullmatch("kernels-[0-9a-f]{8}", folder.name) and found.st_uid == user()
                if is_ours and stat.S_ISDIR(found.st_mode) and found.st_mtime < oldest and folder != current:
                    shutil.rmtree(folder, ignore_errors=True)


def _roots() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR).absolute()
    with suppress(RuntimeError):  # a user without a home
        yield platformdirs.user_cache_path("dnnjpeg").absolute()
    with suppress(OSError):  # no temporary folder
        yield Path(tempfile.gettempdir()) / f"dnnjpeg-{user()}"


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


class KernelCache(Cache):  # type: ignore[misc]  # numba has no types
    """The cache of one function, in place of numba's. Each signature has a file, which begins with a digest.

    The digest is in the file itself, and all that the code depends on is in the file's name. So processes may
    write at the same time.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._py_func = function
        self._folder = kernel_folder()
        source = Path(inspect.getfile(function)).absolute()
        self._source = (str(source), hashlib.sha256(source.read_bytes()).hexdigest())
        qualified = function.__qualname__.replace("<", "").replace(">", "")
        self._name = f"{source.stem}.{qualified}-{function.__code__.co_firstlineno}"
        self.enable()

    @property
    def cache_path(self) -> str:
        """The folder, for numba's statistics."""
        return str(self._folder)

    def holds_any(self) -> bool:
        """Whether there is machine code of the function, for any signature."""
        return self._folder is not None and any(self._folder.glob(f"{self._name}.*{SUFFIX}"))

    def _path(self, signature: Any, codegen: Any) -> Path:
        assert self._folder is not None
        versions = (numba.__version__, sys.implementation.cache_tag)
        parts = repr((versions, self._source, self._index_key(signature, codegen)))
        return self._folder / f"{self._name}.{hashlib.sha256(parts.encode()).hexdigest()[:32]}{SUFFIX}"

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled or self._folder is None:
            return None
        path = self._path(sig, target_context.codegen())
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
                raise ValueError("its digest is wrong")
            return CompileResult._rebuild(target_context, *pickle.loads(data[_DIGEST:]))
        except FileNotFoundError:
            return None
        except Exception as error:  # numba and pickle raise many kinds
            _warn(f"{path} cannot be used ({error}): it is deleted, and its kernel is compiled again")
            with suppress(OSError):
                path.unlink()
            return None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or self._folder is None or data.library.has_dynamic_globals:
            return
        payload = dumps(data._reduce())
        try:
            _write(self._path(sig, data.codegen), hashlib.sha256(payload).digest() + payload)
        except OSError as error:
            _warn(
                f"compiled kernels cannot be kept in {self._folder} ({error.strerror}): "
                "they are compiled again in each process"
            )


def _write(path: Path, data: bytes) -> None:
    """Write a file that only the user can read, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
