"""Encode many shards. A finished shard is not encoded again. An unfinished one leaves no output file."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from dnnjpeg import __version__
from dnnjpeg.files.cache import key
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.jobs.workers import MANY, Encoders, encoders
from dnnjpeg.shards.names import PARQUET, TAR, expand, has_glob, kind_of, name_of
from dnnjpeg.shards.parquet import rewrite_parquet
from dnnjpeg.shards.shard import OnError, OnPicture, Tally, converter
from dnnjpeg.shards.storage import STATE, Storage, is_same, storage_of
from dnnjpeg.shards.tar import rewrite_tar

SUMMARY = "summary.json"
_PICTURE = 1 << 15  # bytes of a picture in a shard, about
_REQUESTS = 32  # to a storage at once
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class ShardOptions:
    """How shards are encoded.

    recipe: the options for each picture. Its target and dry_run are ignored.
    jobs: the number of pictures that are encoded at the same time.
    on_error: what is done with a picture that cannot be encoded. "keep" copies it, "drop" leaves its sample
        or row out, "fail" fails the shard.
    column: the column of the pictures in Parquet files, see `rewrite_parquet`.
    """

    recipe: FileOptions
    jobs: int = 1
    on_error: OnError = "keep"
    column: str | None = None

    @property
    def identity(self) -> str:
        """A digest of all options that the bytes depend on."""
        recipe = replace(self.recipe, threads=1, fsync=True)
        return key(__version__, recipe, self.on_error, self.column)


@dataclass(frozen=True)
class Shard:
    """The result of a shard.

    status: "done", "failed", or "before" if an earlier run has made the shard.
    record: the content of its JSON file. Empty if the shard failed.
    """

    source: str
    status: Literal["done", "before", "failed"]
    record: dict[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class ShardTask:
    """One shard to make. It can be pickled. before: the record of an earlier run, or an empty one."""

    path: str
    output: str
    options: ShardOptions
    before: dict[str, Any]

    def do(self, pool: Encoders, on_picture: OnPicture = lambda *_: None) -> Shard:
        """Make the shard, unless it exists already. An error becomes the reason of a failed shard."""
        try:
            (source, path), (target, folder) = storage_of(self.path), storage_of(self.output)
            place = target.join(folder, name_of(path))
            stamp = source.stamp(path)
            if self.before.get("source_stamp") == stamp and self.before["shard_bytes"] == target.size(place):
                return Shard(self.path, "before", self.before)
            started, tally = time.perf_counter(), Tally()
            written = self._write(source, target, place, tally, pool, on_picture)
            record = {
                "source": self.path,
                "source_stamp": stamp,
                "source_bytes": source.size(path),
                "shard_bytes": written,
                **asdict(tally),
                "seconds": round(time.perf_counter() - started, 3),
                "options": self.options.identity,
            }
            _write_json(target, folder, f"{name_of(path)}.json", record)
        except (OSError, ValueError) as error:
            return Shard(self.path, "failed", {}, str(error) or type(error).__name__)
        except Exception as error:  # of a storage's own kind
            return Shard(self.path, "failed", {}, f"{type(error).__name__}: {error}")
        return Shard(self.path, "done", record)

    def _write(
        self,
        source: Storage,
        target: Storage,
        place: str,
        tally: Tally,
        pool: Encoders,
        on_picture: OnPicture,
    ) -> int:
        options = self.options
        convert = converter(pool, options.on_error, tally, on_picture)
        with source.open(self.path) as file, target.writing(place) as new:
            if kind_of(self.path) == TAR:
                rewrite_tar(file, new, convert, tally)
            else:
                rewrite_parquet(file, new, convert, tally, options.column)
            return new.tell()


Engine = Callable[[Sequence[ShardTask]], Iterator[Shard]]


def here(tasks: Sequence[ShardTask], on_picture: OnPicture = lambda *_: None) -> Iterator[Shard]:
    """Make shards on this machine, one after another. If there are enough pictures, worker processes encode
    them.

    on_picture: called for each picture.
    """
    if not tasks:
        return
    options = tasks[0].options
    with encoders(options.recipe, options.jobs, _pictures(tasks)) as pool:
        for task in tasks:
            yield task.do(pool, on_picture)


def _pictures(tasks: Sequence[ShardTask]) -> int:
    """About how many pictures are in the shards that are not made yet. It stops counting at `MANY`."""
    size = 0
    for task in (task for task in tasks if not task.before):
        storage, path = storage_of(task.path)
        size += storage.size(path) or 0
        if size >= MANY * _PICTURE:
            break
    return size // _PICTURE


class Shards:
    """The shards that patterns name, and the folder that they go to.

    patterns: paths or URLs that end in .tar or .parquet, with globs and braces, see `expand`.
    output: path or URL of a folder. It gets a file of the same name for each shard, and a folder `STATE` with
        a JSON file for each: that file is written last, so it says that the shard is whole.

    Raises ValueError if a pattern names no shard, if two shards have the same name, if a shard would replace
    itself, or if the output holds shards that were made with other options.
    """

    def __init__(self, patterns: Sequence[str], output: str, options: ShardOptions) -> None:
        self._storage, self._output = storage_of(output)
        self.summary: dict[str, Any] = {}  # filled at the end of `run`
        self.tasks: list[ShardTask] = []
        names: dict[str, str] = {}
        identity = options.identity
        paths = [path for pattern in patterns for path in _named(pattern)]
        records = self._records({name_of(path) for path in paths})
        for path in paths:
            name = name_of(path)
            if name in names:
                raise ValueError(f"{names[name]} and {path} have one name: give them folders of their own")
            names[name] = path
            target = self._storage.join(self._output, name)
            if is_same(target, path):
                raise ValueError(f"{path} would replace itself: choose another folder")
            before = records.get(name, {})
            if before.get("options", identity) != identity:
                raise ValueError(
                    f"{target} was made with other options or by another version: choose another folder, or "
                    f"delete {self._storage.join(self._output, STATE)} to make all of it anew"
                )
            self.tasks.append(ShardTask(path, self._output, options, before))

    def __len__(self) -> int:
        return len(self.tasks)

    def run(self, engine: Engine = here) -> Iterator[Shard]:
        """Make the shards, and write a summary at the end. Yields each shard.

        If a shard fails, its reason says why, and the others go on.
        """
        total, started = Tally(), time.perf_counter()
        counts = {"done": 0, "before": 0, "failed": 0}
        failures = []
        self._storage.prepare(self._output)
        for found in engine(self.tasks):
            counts[found.status] += 1
            if found.record:
                total.include(found.record)
            else:
                failures.append({"shard": found.source, "reason": found.reason})
            yield found
        self.summary = {
            "shards": counts,
            **{name: value for name, value in asdict(total).items() if name != "failures"},
            "seconds": round(time.perf_counter() - started, 3),
            "failures": failures,
        }
        _write_json(self._storage, self._output, SUMMARY, self.summary)

    def _records(self, names: set[str]) -> dict[str, dict[str, Any]]:
        """The records of earlier runs, by the name of the shard."""
        folder = self._storage.join(self._output, STATE)
        there = self._storage.names(folder)
        known = sorted(name for name in names if f"{name}.json" in there)
        return dict(zip(known, _at_once(self._record, known), strict=True))

    def _record(self, name: str) -> dict[str, Any]:
        """The record of a shard; empty if the file is not a record."""
        try:
            record = json.loads(self._storage.read(_state(self._storage, self._output, f"{name}.json")))
        except (OSError, ValueError, RecursionError):
            return {}
        tally = vars(Tally())
        needed = {"options", "source_stamp", "shard_bytes", *tally}
        if not isinstance(record, dict) or not needed <= record.keys():
            return {}
        return record if all(type(record[key]) is type(value) for key, value in tally.items()) else {}


def _state(storage: Storage, output: str, name: str) -> str:
    return storage.join(storage.join(output, STATE), name)


def _write_json(storage: Storage, output: str, name: str, document: dict[str, Any]) -> None:
    storage.write(_state(storage, output, name), (json.dumps(document, indent=1) + "\n").encode())


def _named(pattern: str) -> list[str]:
    if kind_of(pattern) is None:
        raise ValueError(f"{pattern} is not a shard, expected a name that ends in {TAR} or {PARQUET}")
    return [path for found in _at_once(_found, expand(pattern)) for path in found]


def _found(name: str) -> list[str]:
    """The shard of that name, or the shards that a glob matches. The name goes first: it may hold * or [."""
    storage, path = storage_of(name)
    if storage.size(path) is not None:
        return [path]
    paths = storage.find(path) if has_glob(path) else []
    if not paths:
        raise ValueError(f"{path} does not exist")
    return paths


def _at_once(function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    """The result for each item, several at a time. One after another, a million would take hours."""
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(function, items))
