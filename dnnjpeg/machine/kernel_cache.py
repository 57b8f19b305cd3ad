"""The cache of machine code on disk: where it lies, who may write there, and what is loaded from it.

Machine code is unpickled and run. So it is loaded only from folders that nobody else can write, and only
where a digest shows that it is what was written. Without a cache all works, from memory.
"""

import atexit
import hashlib
import inspect
import logging
import os
import pickle
import shutil
import sys
import tempfile
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
_DIGEST = hashlib.sha256().digest_size


@cache
def _warn(text: str) -> None:
    """One line, once."""
    logging.getLogger("dnnjpeg").warning(text)


def _fingerprint() -> str:
    """Changes with any source that kernels may be made of: numba itself looks only at the file of the
    outermost function.
    """
    home = Path(__file__).parents[1]
    stats = [(path, path.stat()) for room in KERNEL_ROOMS for path in sorted(home.glob(f"{room}/*.py"))]
    facts = [(str(path.relative_to(home)), stat.st_mtime_ns, stat.st_size) for path, stat in stats]
    return f"{zlib.crc32(repr(facts).encode()):08x}"


@cache
def kernel_folder() -> Path | None:
    """Where machine code is kept: in the folder that NUMBA_CACHE_DIR names, else in the user's cache folder,
    or in the temporary one; in one for this process alone where others could write to all of these. None
    where nothing can be written.
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
                return folder
        except NotPrivate as error:
            _warn(f"compiled kernels are kept elsewhere: {error}")
        except OSError as error:
            reason = str(error)
    try:
        folder = Path(tempfile.mkdtemp(prefix="dnnjpeg-"))
    except OSError as error:
        _warn(f"kernels are compiled anew in each process, as no folder can keep them: {reason or error}")
        return None
    atexit.register(_remove, folder, os.getpid())
    return folder


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
    """Of one function, in the place of numba's: a file for each signature, the digest of the rest first.

    With the digest in the file itself, and all that the code depends on in its name, processes that write at
    the same time cannot mix up theirs.
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
        """The folder, as in numba's statistics."""
        return str(self._folder)

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
                raise ValueError("its digest is another")
            return CompileResult._rebuild(target_context, *pickle.loads(data[_DIGEST:]))
        except FileNotFoundError:
            return None
        except Exception as error:  # of whatever numba and pickle raise
            _warn(f"{path} cannot be used ({error}): it is deleted, and its kernel compiled anew")
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
                "they are compiled anew in each process"
            )


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and for the user alone."""
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
