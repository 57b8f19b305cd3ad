"""Storage of shards: this disk, or any URL that fsspec reaches. A file appears when it is complete."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from dnnjpeg.files.atomic import TEMPORARY_SUFFIX, make_folder, remove_leftovers, replacing, write_atomic
from dnnjpeg.shards.names import is_url

STATE = "_dnnjpeg"
_AZURE = dict.fromkeys(("az", "abfs", "abfss"), "adlfs")
_S3, _GOOGLE = dict.fromkeys(("s3", "s3a"), "s3fs"), dict.fromkeys(("gs", "gcs"), "gcsfs")
# Protocols of object stores, with the package for each. An uploaded object appears when it is complete, so
# temporary names are not needed. A move would be a copy.
_OBJECT_STORES = {**_S3, **_GOOGLE, **_AZURE, "oci": "ocifs", "hf": "huggingface_hub"}
# The next block of a source is fetched while the pictures of this one are encoded.
_READING = {"block_size": 1 << 23, "cache_type": "background", "cache_options": {"maxblocks": 4}}

# facts by which a file system tells that a file has changed: digests of its content, or times
_MARKS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "mtime", "created")


class Storage(Protocol):
    """A place where shards are read and written. Paths are absolute paths, or URLs."""

    def find(self, pattern: str) -> list[str]:
        """The files that a glob names, in order."""

    def names(self, folder: str) -> set[str]:
        """The names of all that a folder holds; empty if there is no such folder."""

    def size(self, path: str) -> int | None:
        """The size of a file in bytes. None if there is no such file."""

    def stamp(self, path: str) -> str:
        """A text that changes when the file changes."""

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading. The reader may seek."""

    def read(self, path: str) -> bytes: ...

    def join(self, folder: str, name: str) -> str: ...

    def prepare(self, folder: str) -> None:
        """Make a folder to write to, and remove what killed runs have left in it."""

    def writing(self, path: str) -> Any:
        """A context manager that gives a file. It becomes `path` if the block ends without an error."""

    def write(self, path: str, data: bytes) -> None: ...


def storage_of(path: str) -> tuple[Storage, str]:
    """The storage of a path or URL, and the path in the form that the storage needs.

    Raises ValueError if the URL cannot be reached, or if a package for it is missing.
    """
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if not is_url(path):
        return Disk(), str(Path(path).absolute())
    return Remote(path), path


def is_same(one: str, other: str) -> bool:
    """Whether two paths or URLs name the same file."""
    if is_url(one) or is_url(other):
        return one == other
    return os.path.realpath(one) == os.path.realpath(other)


class Disk:
    """The disks of this machine, as a `Storage`."""

    def find(self, pattern: str) -> list[str]:
        root = Path(pattern).anchor
        return sorted(str(path) for path in Path(root).glob(pattern[len(root) :]) if path.is_file())

    def names(self, folder: str) -> set[str]:
        return {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()

    def size(self, path: str) -> int | None:
        return Path(path).stat().st_size if Path(path).is_file() else None

    def stamp(self, path: str) -> str:
        found = Path(path).stat()
        return f"{found.st_size} {found.st_mtime_ns}"

    def open(self, path: str) -> IO[bytes]:
        return Path(path).open("rb")

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def join(self, folder: str, name: str) -> str:
        return str(Path(folder) / name)

    def prepare(self, folder: str) -> None:
        make_folder(Path(folder) / STATE)
        remove_leftovers(Path(folder) / STATE)

    def writing(self, path: str) -> Any:
        return replacing(Path(path), Path(path).parent / STATE)

    def write(self, path: str, data: bytes) -> None:
        write_atomic(path, data)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn exceptions of a library's own kinds, for example for missing credentials, into OSError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{url} cannot be reached: {type(error).__name__}: {error}") from error


class Remote:
    """The file system of a URL, as a `Storage`.

    A new shard is written to a temporary file on this machine, and uploaded when it is complete.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise ValueError(f"{url} needs fsspec: pip install fsspec") from None
        self._protocol = url.partition("://")[0]
        try:
            self._fs: Any = fsspec.url_to_fs(url)[0]
        except (ImportError, ValueError) as error:
            package = _OBJECT_STORES.get(self._protocol)
            if isinstance(error, ImportError) and package:
                reason = error.__cause__ or error
                raise ValueError(f"{url} needs {package}: pip install {package} ({reason})") from None
            raise ValueError(f"{url} cannot be reached: {error}") from None
        self._fs.invalidate_cache()

    def _url(self, path: str) -> str:
        return path if is_url(path) else f"{self._protocol}://{path.removeprefix('/')}"

    def find(self, pattern: str) -> list[str]:
        with _reaching(pattern):
            return sorted(map(self._url, self._fs.glob(pattern)))

    def names(self, folder: str) -> set[str]:
        try:
            with _reaching(folder):
                return {path.rpartition("/")[2] for path in self._fs.ls(folder, detail=False)}
        except FileNotFoundError:
            return set()

    def size(self, path: str) -> int | None:
        try:
            with _reaching(path):
                found = self._fs.info(path)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type") == "file" else None

    def stamp(self, path: str) -> str:
        found = self._fs.info(path)  # may come from a listing, in which times can have another form
        marks = (found[name] for name in _MARKS if found.get(name))
        return f"{found['size']} {str(next(marks, '')).strip(chr(34))}"

    def open(self, path: str) -> IO[bytes]:
        return self._fs.open(path, "rb", **(_READING if self._protocol in _OBJECT_STORES else {}))

    def read(self, path: str) -> bytes:
        with _reaching(path):
            return self._fs.cat_file(path)

    def join(self, folder: str, name: str) -> str:
        return f"{folder.rstrip('/')}/{name}"

    def prepare(self, folder: str) -> None:
        if self._protocol not in _OBJECT_STORES:
            self._fs.makedirs(self.join(folder, STATE), exist_ok=True)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(prefix="dnnjpeg-", suffix=TEMPORARY_SUFFIX) as file:
            yield file
            file.flush()
            self._put(file.name, path)

    def write(self, path: str, data: bytes) -> None:
        with self.writing(path) as file:
            file.write(data)

    def _put(self, local: str, path: str) -> None:
        folder = path.rpartition("/")[0]
        if self._protocol in _OBJECT_STORES:
            self._fs.put_file(local, path)
        else:
            folder = folder if folder.endswith(f"/{STATE}") else self.join(folder, STATE)
            temporary = self.join(folder, f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
            try:
                self._fs.put_file(local, temporary)
                self._check(local, temporary)
                self._fs.mv(temporary, path)
            except BaseException:
                with suppress(Exception):
                    self._fs.rm(temporary)
                raise
        self._fs.invalidate_cache()
        self._check(local, path)

    def _check(self, local: str, path: str) -> None:
        size, expected = self.size(path), Path(local).stat().st_size
        if size != expected:
            with suppress(Exception):
                self._fs.rm(path)
            raise OSError(f"{path} has {size} bytes after writing, expected {expected}: it was removed")
