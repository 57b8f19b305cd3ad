"""Encoding files: one from reading to writing, and many at a time."""

import io
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dnnjpeg.files.atomic import make_folder, remove_leftovers, write_atomic
from dnnjpeg.files.images import Picture, open_picture
from dnnjpeg.jobs.made import Made, made_before
from dnnjpeg.jobs.tasks import FileOptions, Result, Task
from dnnjpeg.jpeg.segments import is_jpeg
from dnnjpeg.options import Metadata

if TYPE_CHECKING:
    from dnnjpeg.target.target import Encoded
    from dnnjpeg.transcoder import Decoded

GROUP, GROUP_PIXELS = 50, 1 << 25  # of pictures that are encoded to a target together
Value = TypeVar("Value")
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Open:
    """A picture between reading and writing."""

    task: Task
    picture: "Picture | Decoded | Made"
    bytes_before: int
    data: bytes = b""
    found: "Encoded | None" = None

    @property
    def source(self) -> Path:
        return self.task.source

    @property
    def in_place(self) -> bool:
        return self.task.destination == self.task.source

    @property
    def is_jpeg(self) -> bool:
        return not isinstance(self.picture, Picture) or self.picture.format in ("JPEG", "MPO")

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.image.size if isinstance(self.picture, Picture) else self.picture.size


def _step(do: Callable[[Any, FileOptions], Value]) -> Callable[[Any, FileOptions], Value | Result]:
    """A step that ends with a result where the one before did, and where something goes wrong: whatever that
    is, the next picture has its turn.
    """

    @wraps(do)
    def step(item: Any, recipe: FileOptions) -> Value | Result:
        if isinstance(item, Result):
            return item
        try:
            return do(item, recipe)
        except Exception as error:
            return Result(item.source, "failed", describe(error, item.source))

    return step


def encode_file(task: Task | Result, recipe: FileOptions) -> Result:
    """Carry out one task of a plan; what goes wrong is the result's reason."""
    return _write(_encode(_read(task, recipe), recipe), recipe)


@_step
def _read(task: Task, recipe: FileOptions) -> _Open:
    bytes_before = task.source.stat().st_size if task.content is None else len(task.content)
    if (decoded := _from_jpeg(task, recipe)) is not None:
        return _Open(task, decoded, bytes_before)
    source = task.source if task.content is None else io.BytesIO(task.content)
    picture = open_picture(source, metadata=recipe.metadata, background=recipe.background)
    if "comment" in picture.metadata:
        from dnnjpeg.jpeg.signature import bare_comment

        picture.metadata["comment"] = bare_comment(picture.metadata["comment"])
    opened = _Open(task, picture, bytes_before)
    if opened.in_place and picture.format != "JPEG":
        raise ValueError(f"is {picture.format}, and only JPEG is replaced in place: name an output folder")
    if opened.in_place and not picture.lone:
        raise ValueError("holds further pictures, which replacing it would lose: name an output folder")
    return opened


def _from_jpeg(task: Task, recipe: FileOptions) -> "Decoded | Made | None":
    """A JPEG source that an earlier run made, or its coefficients. None: it must be decoded to pixels."""
    from dnnjpeg.transcoder import Decoded, Unsupported

    if task.content is None and not task.source.is_file():
        return None
    if task.content is None:
        with task.source.open("rb") as file:
            start = file.peek(3)[:3]
            data = file.read() if is_jpeg(start) else start
    else:
        data = task.content
    if not is_jpeg(data):
        return None
    if (made := made_before(data, recipe)) is not None:
        return made
    if recipe.pixels or recipe.target.get("prune"):
        return None
    try:
        decoded = Decoded.read(data, salvage=recipe.salvage)
    except Unsupported:
        return None
    return decoded if recipe.metadata == "keep" or decoded.orientation == 1 else None


@_step
def _encode(opened: _Open, recipe: FileOptions) -> _Open:
    from dnnjpeg.codec.pixels import as_pixels
    from dnnjpeg.encoder import encode_pixels

    picture = opened.picture
    if isinstance(picture, Made):
        return replace(opened, data=picture.data)
    if not isinstance(picture, Picture):
        strip = recipe.metadata == "strip"
        data = picture.transcode(
            recipe.table,
            recipe.quality,
            recipe.options,
            strip=strip,
            only_if_smaller=recipe.only_if_smaller is not False,
        )
        return replace(opened, data=data)
    metadata = Metadata(**picture.metadata)
    pixels = as_pixels(picture.image, None)
    data = encode_pixels(pixels, recipe.table, recipe.quality, recipe.options, metadata, recipe.threads)
    return replace(opened, data=data)


@_step
def _write(opened: _Open, recipe: FileOptions) -> Result:
    from dnnjpeg.codec.frame import beyond_decoders

    task, data = opened.task, opened.data
    status: Literal["encoded", "copied"] = "encoded"
    if _must_shrink(opened, recipe) and len(data) >= opened.bytes_before:
        if not opened.is_jpeg:
            return Result(task.source, "skipped", "is smaller than its JPEG")
        status = "copied"
        data = task.source.read_bytes() if task.content is None else task.content
    elif not isinstance(opened.picture, Picture) and data == opened.picture.data:
        status = "copied"
    if task.destination is not None and not recipe.dry_run and not (opened.in_place and status == "copied"):
        make_folder(task.destination.parent, fsync=recipe.fsync)
        write_atomic(task.destination, data, fsync=recipe.fsync)
    width, height = opened.size
    return Result(
        task.source,
        status,
        pixels=width * height,
        bytes_before=opened.bytes_before,
        bytes_after=len(data),
        data=data if task.destination is None else None,
        found=opened.found if status == "encoded" else None,
        warning=beyond_decoders(width, height) if status == "encoded" else "",
        transcoded=status == "encoded" and not isinstance(opened.picture, Picture),
    )


def _must_shrink(opened: _Open, recipe: FileOptions) -> bool:
    """Whether the new file must be smaller than its source.

    By default it must, if the source can be copied in its place: an undamaged JPEG, with its metadata.
    """
    if recipe.only_if_smaller is not None:
        return recipe.only_if_smaller
    is_damaged = not isinstance(opened.picture, Picture | Made) and not opened.picture.whole
    return opened.is_jpeg and recipe.metadata == "keep" and not is_damaged


def run(
    tasks: Iterable[Task | Result],
    recipe: FileOptions,
    jobs: int,
    *,
    on_done: Callable[[], object] = lambda: None,
    interruptible: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Result]:
    """Carry out the tasks in `jobs` threads, taking a few in advance; results in the order of the tasks.

    Temporary files that killed runs have left in the folders written to are removed, see `remove_leftovers`.

    on_done: called for each picture that is encoded, maybe long before its result has its turn.
    interruptible: entered while pictures are encoded to a target. There a KeyboardInterrupt may be raised:
        what is encoded is still written, and its results come before the exception does.
    """
    if not recipe.dry_run:
        tasks = _tidied(tasks)
    with ThreadPoolExecutor(jobs) as pool:
        if not recipe.target:
            for result in in_advance(lambda task: encode_file(task, recipe), tasks, pool, 2 * jobs):
                on_done()
                yield result
            return
        for group in _groups(
            _group_size(recipe), in_advance(lambda task: _read(task, recipe), tasks, pool, 2 * jobs)
        ):
            written: dict[int, Future[Result]] = {}  # by number in the group

            def write(i: int, one: _Open | Result, written: dict[int, Future[Result]] = written) -> None:
                written[i] = pool.submit(_write, one, recipe)
                on_done()

            try:
                with interruptible():
                    _encode_to_target(dict(enumerate(group)), recipe, jobs, write)
            finally:
                yield from (written[i].result() for i in sorted(written))


def _tidied(tasks: Iterable[Task | Result]) -> Iterator[Task | Result]:
    """The tasks; each folder is tidied before the first that writes into it."""
    tidy = set()
    for task in tasks:
        if isinstance(task, Task) and task.destination is not None:
            folder = Path(os.path.realpath(task.destination)).parent
            if folder not in tidy:
                tidy.add(folder)
                remove_leftovers(folder)
        yield task


def in_advance(
    do: Callable[[Item], Value], items: Iterable[Item], pool: Executor, count: int
) -> Iterator[Value]:
    """`do(item)` of each, in order, up to `count` of them done before they are asked for."""
    waiting: deque[Future[Value]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _group_size(recipe: FileOptions) -> int:
    """Number of pictures of a group. With accuracy=X%, one picture of a group may break the criterion."""
    if recipe.target.get("keep") is None:
        return GROUP
    from dnnjpeg.networks.criterion import Criterion

    share = Criterion.parse(recipe.target["keep"]).share
    return max(GROUP, math.ceil(1 / (1 - share) - 1e-9)) if share < 1 else GROUP


def _groups(count: int, items: Iterable[_Open | Result]) -> Iterator[list[_Open | Result]]:
    """Pictures to be encoded together: many make large batches, more would not fit the memory."""
    group: list[_Open | Result] = []
    pixels = 0
    for item in items:
        group.append(item)
        pixels += 0 if isinstance(item, Result) else math.prod(item.size)
        if len(group) == count or pixels >= GROUP_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _encode_to_target(
    group: Mapping[int, _Open | Result],
    recipe: FileOptions,
    jobs: int,
    write: Callable[[int, _Open | Result], None],
) -> None:
    """Hands each picture of the group on to `write`, with its number, as soon as its file is known."""
    from dnnjpeg.target.target import encode_to_target

    todo: dict[int, _Open] = {}
    for i, one in group.items():
        if isinstance(one, Result):
            write(i, one)
        else:
            todo[i] = one
    numbers = list(todo)

    def take(which: int, file: "Encoded") -> None:
        i = numbers[which]
        write(i, _take(todo.pop(i), file, "keep" in recipe.target))

    pictures = [one.picture for one in todo.values()]
    try:
        encode_to_target(
            [one.image if isinstance(one, Picture) else one for one in pictures],
            recipe.table,
            metadata=[one.metadata if isinstance(one, Picture) else {} for one in pictures],
            on_found=take,
            **recipe.target,
            threads=jobs,
            **vars(recipe.options),
        )
    except Exception as error:
        for i, one in list(todo.items()):  # one of them is to blame
            if len(numbers) > 1:
                _encode_to_target({i: one}, recipe, jobs, write)
            else:
                write(i, Result(one.source, "failed", describe(error, one.source)))


def _take(opened: _Open, file: "Encoded", for_networks: bool) -> _Open | Result:
    if file.met:
        return replace(opened, data=file.data, found=replace(file, data=b""))
    missed = "is read differently even at" if for_networks else "is too large even at"
    return Result(opened.source, "failed", f"{missed} quality {file.quality:g}, {len(file.data):,} bytes")


def describe(error: Exception, source: Path) -> str:
    """An exception as the end of a line that begins with the name of the file it is about."""
    if isinstance(error, OSError) and error.strerror:
        elsewhere = error.filename is not None and os.fspath(error.filename) != os.fspath(source)
        return f"{error.strerror}: {error.filename}" if elsewhere else error.strerror
    if isinstance(error, OSError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
