"""The cache of machine code on disk.

Machine code is unpickled and run. So it is loaded only from folders that nobody but the user and root can
write to, and only if its digest is right. If there is no such folder, kernels are compiled in each process.

A container image or a shared disk can carry kernels: `ship_kernels` makes such a folder, and the environment
variable DNNJPEG_KERNELS names it.
"""

import atexit
import hashlib
import inspect
import json
import logging
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
import platformdirs
from numba.core.caching import Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from dnnjpeg.machine.folders import NotPrivate, check_private, make_private, user
from dnnjpeg.machine.replacing import replacing

KERNEL_ROOMS = ("machine", "codec", "sparse")  # every kernel lives in one of these folders
SUFFIX = ".nbc"  # numba's, of files with machine code
_OLD = 30 * 24 * 60 * 60  # seconds
_DIGEST = hashlib.sha256().digest_size
_VERSIONS = {
    "python": sys.implementation.cache_tag,
    "numba": numba.__version__,
    "llvmlite": llvmlite.__version__,
}
_MANIFEST = "kernels.json"  # of a shipped folder: versions, and the processors that it has kernels for


@cache
def _warn(text: str) -> None:
    """Log a line, but only once in a process."""
    logging.getLogger("dnnjpeg").warning(text)


def _folder_name() -> str:
    """It changes with the sources of kernels and with what compiles them.

    Numba checks only the outermost function's file.
    """
    home = Path(__file__).parents[1]
    digest = hashlib.sha256(repr(_VERSIONS).encode())
    for path in sorted(path for room in KERNEL_ROOMS for path in home.glob(f"{room}/*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return f"kernels-{digest.hexdigest()[:8]}"


@cache
def kernel_folder() -> Path | None:
    """The folder for machine code, or None if no folder can be written.

    It is a subfolder of the first of these that only the user and root can write to: the folder named by
    NUMBA_CACHE_DIR, the user's cache folder, the temporary folder. If all of them fail, it is a new temporary
    folder for this process alone.
    """
    name, reason = _folder_name(), ""
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


def is_lasting() -> bool:
    """Whether other processes find the machine code that this process compiles."""
    folder = kernel_folder()
    return folder is not None and folder.parent in _roots()


@cache
def _shipped() -> tuple[Path, list[str]] | None:
    """The folder with kernels of this version in the folder that DNNJPEG_KERNELS names, and the processors
    that they are for; or None.
    """
    root = os.environ.get("DNNJPEG_KERNELS")
    if not root:
        return None
    folder = Path(root).absolute() / _folder_name()
    try:
        check_private(folder)
        return folder, _processors(folder)
    except FileNotFoundError:
        found = ", ".join(path.read_text() for path in Path(root).glob(f"*/{_MANIFEST}"))
        reason = (
            f"it has no kernels of this version, {json.dumps(_VERSIONS)}; it has {found or 'none at all'}"
        )
    except (NotPrivate, OSError, ValueError) as error:
        reason = str(error)
    _refuse_shipped(reason)
    return None


def _processors(folder: Path) -> list[str]:
    """Those that a shipped folder has kernels for. Raises OSError and ValueError."""
    path = folder / _MANIFEST
    with suppress(ValueError, TypeError, KeyError):
        found = json.loads(path.read_text())["processors"]
        if isinstance(found, list):
            return found
    raise ValueError(f"{path} is damaged")


def _refuse_shipped(reason: str) -> None:
    root = os.environ["DNNJPEG_KERNELS"]
    _warn(
        f"DNNJPEG_KERNELS is {root}, and its kernels are not used: {reason}. They are compiled again; "
        f"`dnnjpeg warmup --into {root}` adds those of this machine"
    )


def ship_kernels(root: Path) -> Path:
    """Copy the machine code that this process has loaded or compiled into a folder for other machines.

    All users may read the copy; only the user can write to it. One folder can hold the kernels of several
    versions and processors. Returns the subfolder for this version. Raises OSError if it cannot be written,
    ValueError if its list of processors is damaged.
    """
    folder = root.absolute() / _folder_name()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for path in KernelCache.used:
        _write(folder / path.name, path.read_bytes(), 0o644)
    known = _processors(folder) if (folder / _MANIFEST).exists() else []
    facts = _VERSIONS | {"processors": sorted({*known, *KernelCache.processors})}
    _write(folder / _MANIFEST, json.dumps(facts).encode(), 0o644)
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

    used: ClassVar[set[Path]] = set()  # files that this process has loaded or written
    processors: ClassVar[set[str]] = set()  # those that they are for

    def __init__(self, function: Callable[..., Any], counts_references: bool = False) -> None:
        """counts_references: whether the machine code needs numba's counting of references."""
        self._py_func, self._counts_references = function, counts_references
        self._folder = kernel_folder()
        source = Path(inspect.getfile(function)).absolute()
        self._source = (source.name, hashlib.sha256(source.read_bytes()).hexdigest())
        qualified = function.__qualname__.replace("<", "").replace(">", "")
        self._name = f"{source.stem}.{qualified}-{function.__code__.co_firstlineno}"
        self.enable()

    @property
    def cache_path(self) -> str:
        """The folder, for numba's statistics."""
        return str(self._folder)

    def holds_any(self) -> bool:
        """Whether there is machine code of the function on the disk, for any signature."""
        shipped = _shipped()
        folders = (shipped and shipped[0], self._folder)
        return any(folder and any(folder.glob(f"{self._name}.*{SUFFIX}")) for folder in folders)

    def _file(self, signature: Any, codegen: Any) -> str:
        """The name of a signature's file."""
        parts = repr((_VERSIONS, self._source, self._index_key(signature, codegen)))
        return f"{self._name}.{hashlib.sha256(parts.encode()).hexdigest()[:32]}{SUFFIX}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Numba would load all that it knows first, in a quarter of a second. Only compiling needs it, and
        machine code that counts references.
        """
        if self._counts_references:
            return super().load_overload(sig, target_context)
        return self._load_overload(sig, target_context)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        codegen = target_context.codegen()
        name = self._file(sig, codegen)
        _, processor, features = codegen.magic_tuple()
        processor = f"{processor}/{hashlib.sha256(features.encode()).hexdigest()[:6]}"
        self.processors.add(processor)
        if shipped := _shipped():
            folder, processors = shipped
            if processor not in processors:
                _refuse_shipped(f"they are for {', '.join(processors)}, and this processor is {processor}")
            elif found := self._rebuild(folder / name, target_context):
                return found
        return self._rebuild(self._folder / name, target_context) if self._folder else None

    def _rebuild(self, path: Path, target_context: Any) -> Any:
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
                raise ValueError("its digest is wrong")
            made = CompileResult._rebuild(target_context, *pickle.loads(data[_DIGEST:]))
        except FileNotFoundError:
            return None
        except Exception as error:  # numba and pickle raise many kinds
            own = path.parent == self._folder
            _warn(
                f"{path} cannot be used ({error}): {'it is deleted, and ' if own else ''}"
                "its kernel is compiled again"
            )
            if own:
                with suppress(OSError):
                    path.unlink()
            return None
        self.used.add(path)
        return made

    def _save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or self._folder is None or data.library.has_dynamic_globals:
            return
        payload = dumps(data._reduce())
        path = self._folder / self._file(sig, data.codegen)
        try:
            _write(path, hashlib.sha256(payload).digest() + payload)
            self.used.add(path)
        except OSError as error:
            _warn(
                f"compiled kernels cannot be kept in {self._folder} ({error.strerror}): "
                "they are compiled again in each process"
            )


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    with replacing(path, path.parent, fsync=False) as file:  # the digest tells what is damaged
        Path(file.name).chmod(mode)
        file.write(data)
