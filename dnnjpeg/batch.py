"""Encoding files: one from reading to writing, and many at a time."""

import io
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dnnjpeg.files import write_atomic
from dnnjpeg.images import open_picture
from dnnjpeg.table import Table


@dataclass(frozen=True)
class Task:
    source: Path
    target: Path | None  # None: the result carries the bytes; equal to `source`: replace it in place
    content: bytes | None = None  # what `source` holds where it is not a file


@dataclass(frozen=True)
class Result:
    source: Path
    status: Literal["encoded", "kept", "skipped", "failed"]  # kept: the original's bytes, which are fewer
    reason: str = ""  # of skipped and failed
    pixels: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    data: bytes | None = None


@dataclass(frozen=True)
class Recipe:
    """What is done to each picture."""

    table: Table
    quality: float
    options: Mapping[str, Any] = field(default_factory=dict)  # further keywords of `dnnjpeg.encode`
    keep: bool = True  # metadata, see `open_picture`
    background: tuple[int, int, int] | None = None
    only_if_smaller: bool = False
    dry_run: bool = False  # everything but the writing


@dataclass
class Totals:
    encoded: int = 0
    kept: int = 0
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def add(self, result: Result) -> None:
        setattr(self, result.status, getattr(self, result.status) + 1)
        if result.status in ("encoded", "kept"):
            self.pixels += result.pixels
            self.bytes_before += result.bytes_before
            self.bytes_after += result.bytes_after

    @property
    def done(self) -> int:
        return self.encoded + self.kept

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.bytes_after / self.pixels if self.pixels else 0.0


def encode_file(task: Task | Result, recipe: Recipe) -> Result:
    """Carry out one task of a plan; what goes wrong is the result's reason."""
    if isinstance(task, Result):
        return task
    try:
        return _encode_file(task, recipe)
    except Exception as error:  # whatever is wrong with this picture, the next one has its turn
        return Result(task.source, "failed", describe(error, task.source))


def _encode_file(task: Task, recipe: Recipe) -> Result:
    from dnnjpeg.codec.encoder import encode

    in_place = task.target == task.source
    bytes_before = _size(task.source) if task.content is None else len(task.content)
    picture = open_picture(
        task.source if task.content is None else io.BytesIO(task.content),
        keep=recipe.keep,
        background=recipe.background,
    )
    if in_place and picture.format != "JPEG":
        raise ValueError(f"is {picture.format}, and only JPEG is replaced in place: name an output folder")
    if in_place and not picture.lone:
        raise ValueError("holds further pictures, which replacing it would lose: name an output folder")
    data = encode(picture.image, recipe.table, recipe.quality, **picture.metadata, **recipe.options)
    status: Literal["encoded", "kept"] = "encoded"
    if recipe.only_if_smaller and len(data) >= bytes_before:
        if picture.format not in ("JPEG", "MPO"):
            return Result(task.source, "skipped", "is smaller than its JPEG")
        status = "kept"
        data = task.source.read_bytes() if task.content is None else task.content
    if task.target is not None and not recipe.dry_run and not (in_place and status == "kept"):
        task.target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(task.target, data)
    width, height = picture.image.size
    return Result(
        task.source,
        status,
        pixels=width * height,
        bytes_before=bytes_before,
        bytes_after=len(data),
        data=data if task.target is None else None,
    )


def _size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    return status.st_size


def run(tasks: Iterable[Task | Result], recipe: Recipe, jobs: int) -> Iterator[Result]:
    """Carry out the tasks in `jobs` threads, taking a few in advance; results in the order of the tasks."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(encode_file, task, recipe))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def describe(error: Exception, source: Path) -> str:
    """An exception as the end of a line that begins with the name of the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        elsewhere = error.filename is not None and os.fspath(error.filename) != os.fspath(source)
        return f"{error.strerror}: {error.filename}" if elsewhere else error.strerror
    if isinstance(error, OSError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
