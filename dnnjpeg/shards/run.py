"""Many shards, one after another: what is finished is never done again, what is not leaves no trace."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dnnjpeg import __version__
from dnnjpeg.files.cache import key
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.shards.names import PARQUET, TAR, expand, has_glob, kind_of, name_of
from dnnjpeg.shards.parquet import rewrite_parquet
from dnnjpeg.shards.shard import OnError, OnPicture, ShardError, Tally, converter
from dnnjpeg.shards.storage import STATE, Storage, is_same, storage_of
from dnnjpeg.shards.tar import rewrite_tar

SUMMARY = "summary.json"
_AHEAD = 4  # samples in advance, a thread


@dataclass(frozen=True)
class ShardOptions:
    """recipe: what is done to each picture; its destination, target and dry_run do not count.

    on_error: what becomes of a picture that cannot be encoded. "keep" copies it, "drop" leaves its sample or
        row out, "fail" fails the shard.
    column: of the pictures in Parquet files, see `rewrite_parquet`.
    """

    recipe: FileOptions
    jobs: int = 1
    on_error: OnError = "keep"
    column: str | None = None

    @property
    def identity(self) -> str:
        """Of all that the bytes depend on."""
        recipe = replace(self.recipe, threads=1, fsync=True)
        return key(__version__, recipe, self.on_error, self.column)


@dataclass(frozen=True)
class Shard:
    """A shard and what has become of it. record: as its JSON file has it, empty where it failed."""

    source: str
    status: Literal["done", "before", "failed"]  # before: by an earlier run
    record: dict[str, Any]
    reason: str = ""


class Shards:
    """The shards that patterns name, and the folder that they go to.

    patterns: paths or URLs that end in .tar or .parquet, with globs and braces, see `expand`.
    output: path or URL of a folder. It gets a file of the same name for each shard, and a folder `STATE` with
        a JSON file for each: that file is written last, so it says that the shard is whole.

    Raises ValueError for what cannot be meant: a pattern without shards, two shards of one name, an output
    that holds the sources or shards that were made with other options.
    """

    def __init__(self, patterns: Sequence[str], output: str, options: ShardOptions) -> None:
        self._options = options
        self._storage, self._output = storage_of(output)
        self.summary: dict[str, Any] = {}  # at the end
        self.sources: list[tuple[Storage, str]] = []
        for pattern in patterns:
            self.sources += _named(pattern)
        names: dict[str, str] = {}
        for _, path in self.sources:
            name = name_of(path)
            if name in names:
                raise ValueError(f"{names[name]} and {path} have one name: give them folders of their own")
            names[name] = path
            if is_same(self._target(path), path):
                raise ValueError(f"{path} would replace itself: choose another folder")
        self.before = {path: record for _, path in self.sources if (record := self._record(path))}
        for path, record in self.before.items():
            if record["options"] != options.identity:
                raise ValueError(
                    f"{self._target(path)} was made with other options or by another version: choose another "
                    f"folder, or delete {self._storage.join(self._output, STATE)} to make all of it anew"
                )

    def __len__(self) -> int:
        return len(self.sources)

    def run(self, on_picture: OnPicture = lambda *_: None) -> Iterator[Shard]:
        """Make each shard in turn. What is wrong with one is its reason, and the next has its turn. The
        summary is written at the end. on_picture: called for each picture.
        """
        total, started = Tally(), time.perf_counter()
        counts = {"done": 0, "before": 0, "failed": 0}
        failures = []
        self._storage.prepare(self._output)
        with ThreadPoolExecutor(self._options.jobs) as pool:
            for storage, path in self.sources:
                found = self._one(storage, path, pool, on_picture)
                counts[found.status] += 1
                if found.record:
                    total.include(found.record)
                else:
                    failures.append({"shard": path, "reason": found.reason})
                yield found
        self.summary = {
            "shards": counts,
            **{name: value for name, value in asdict(total).items() if name != "failures"},
            "seconds": round(time.perf_counter() - started, 3),
            "failures": failures,
        }
        self._write_json(SUMMARY, self.summary)

    def _one(self, storage: Storage, path: str, pool: ThreadPoolExecutor, on_picture: OnPicture) -> Shard:
        try:
            stamp = storage.stamp(path)
            before = self.before.get(path, {})
            if before.get("source_stamp") == stamp and before["shard_bytes"] == self._storage.size(
                self._target(path)
            ):
                return Shard(path, "before", before)
            record = self._make(storage, path, stamp, pool, on_picture)
        except (OSError, ValueError) as error:
            return Shard(path, "failed", {}, str(error) or type(error).__name__)
        except Exception as error:  # of a storage's own kind
            return Shard(path, "failed", {}, f"{type(error).__name__}: {error}")
        return Shard(path, "done", record)

    def _make(
        self,
        storage: Storage,
        path: str,
        stamp: str,
        pool: ThreadPoolExecutor,
        on_picture: OnPicture,
    ) -> dict[str, Any]:
        options, tally, started = self._options, Tally(), time.perf_counter()
        ahead = _AHEAD * options.jobs
        convert = converter(options.recipe, options.on_error, tally, pool, ahead, on_picture)
        target = self._target(path)
        with storage.open(path) as source, self._storage.writing(target) as file:
            if kind_of(path) == TAR:
                rewrite_tar(source, file, convert, tally)
            else:
                rewrite_parquet(source, file, convert, tally, options.column)
            written = file.tell()
        record = {
            "source": path,
            "source_stamp": stamp,
            "source_bytes": storage.size(path),
            "shard_bytes": written,
            **asdict(tally),
            "seconds": round(time.perf_counter() - started, 3),
            "options": options.identity,
        }
        self._write_json(f"{name_of(path)}.json", record)
        return record

    def _target(self, path: str) -> str:
        return self._storage.join(self._output, name_of(path))

    def _state(self, name: str) -> str:
        return self._storage.join(self._storage.join(self._output, STATE), name)

    def _record(self, path: str) -> dict[str, Any] | None:
        """That an earlier run has left; None where there is none."""
        state = self._state(f"{name_of(path)}.json")
        if self._storage.size(state) is None:
            return None
        try:
            record = json.loads(self._storage.read(state))
            return record if {"options", "source_stamp", "shard_bytes", *vars(Tally())} <= {*record} else None
        except (ValueError, TypeError):
            return None

    def _write_json(self, name: str, document: dict[str, Any]) -> None:
        self._storage.write(self._state(name), (json.dumps(document, indent=1) + "\n").encode())


def _named(pattern: str) -> list[tuple[Storage, str]]:
    if kind_of(pattern) is None:
        raise ValueError(f"{pattern} is no shard, expected a name that ends in {TAR} or {PARQUET}")
    found: list[tuple[Storage, str]] = []
    for name in expand(pattern):
        storage, path = storage_of(name)
        if storage.size(path) is not None:
            found.append((storage, path))
            continue
        paths = storage.find(path) if has_glob(path) else []
        if not paths:
            raise ValueError(f"{path} is not there")
        found += [(storage, path) for path in paths]
    return found


__all__ = ["Shard", "ShardError", "ShardOptions", "Shards"]
