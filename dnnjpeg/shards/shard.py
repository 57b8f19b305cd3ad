"""What tar and Parquet shards share: encode the pictures in them, and count."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from dnnjpeg.jobs.tasks import FileTask, Result
from dnnjpeg.jobs.workers import Encoders

Item = TypeVar("Item")
OnError = Literal["keep", "drop", "fail"]
OnPicture = Callable[[str, Result, bytes], object]  # gets the name of a picture, its result, and its old file
_LISTED = 100  # the most failures of a shard that are listed


class ShardError(ValueError):
    """A shard that cannot be read, or whose pictures fail."""


@dataclass
class Tally:
    """Counts of one shard, or of several.

    bytes_before, bytes_after: bytes of the pictures that were encoded or copied.
    """

    encoded: int = 0
    copied: int = 0  # pictures that would not have become smaller
    failed: int = 0
    dropped: int = 0  # samples or rows that were left out
    duplicates: int = 0  # members of a tar file with the name of an earlier one
    pixels: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)  # the first ones

    def add(self, name: str, result: Result) -> None:
        if result.status in ("encoded", "copied"):
            setattr(self, result.status, getattr(self, result.status) + 1)
            self.pixels += result.pixels
            self.bytes_before += result.bytes_before
            self.bytes_after += result.bytes_after
            return
        self.failed += 1
        if len(self.failures) < _LISTED:
            self.failures.append({"member": name, "reason": result.reason})

    def include(self, other: dict[str, Any]) -> None:
        """Add the counts of another tally, from its record."""
        for name, value in vars(self).items():
            if name != "failures":
                setattr(self, name, value + other[name])


# From items, and a function that lists the pictures of an item by name and content, to each item with its new
# files in the same order, or with None if the item is to be left out.
Convert = Callable[
    [Iterable[Any], Callable[[Any], "list[tuple[str, bytes]]"]], Iterator["tuple[Any, list[bytes] | None]"]
]


def converter(pool: Encoders, on_error: OnError, tally: Tally, on_picture: OnPicture) -> Convert:
    """Make a function that encodes the pictures of a shard, and counts them in `tally`.

    on_error: see `ShardOptions`. on_picture: called for each picture.
    """

    def convert(
        items: Iterable[Item], pictures: Callable[[Item], list[tuple[str, bytes]]]
    ) -> Iterator[tuple[Item, list[bytes] | None]]:
        named = ((item, pictures(item)) for item in items)
        for (item, contents), results in pool.each(named, _tasks):
            files, is_dropped = [], False
            for (name, content), result in zip(contents, results, strict=True):
                tally.add(name, result)
                on_picture(name, result, content)
                if result.data is not None:
                    files.append(result.data)
                    continue
                if on_error == "fail":
                    raise ShardError(f"{name!r}: {result.reason}")
                is_dropped |= on_error == "drop"
                files.append(content)
            tally.dropped += is_dropped
            yield item, None if is_dropped else files

    return convert


def _tasks(named: tuple[Any, list[tuple[str, bytes]]]) -> list[FileTask]:
    return [FileTask(Path("member"), None, content) for _, content in named[1]]
