"""Encode many files at the same time."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Any

from dnnjpeg.files.atomic import remove_leftovers
from dnnjpeg.files.images import Picture
from dnnjpeg.files.paths import folder_of
from dnnjpeg.jobs.file import Opened, describe, read_task, taken, write_opened
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.jobs.workers import MANY, encoders, in_advance

if TYPE_CHECKING:
    from dnnjpeg.target.target import Encoded

GROUP, GROUP_PIXELS = 50, 1 << 25  # the most pictures, and pixels, that are encoded to a target together


def run(
    tasks: Iterable[FileTask | Result],
    recipe: FileOptions,
    jobs: int,
    *,
    on_done: Callable[[], object] = lambda: None,
    is_stopped: Callable[[], bool] = lambda: False,
    interruptible: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Result]:
    """Carry out tasks. Yields their results in the order of the tasks.

    jobs: the number of pictures that are encoded at the same time. Many pictures are encoded in worker
        processes, see `encoders`. Few pictures, and pictures with a target, are encoded in threads.
    on_done: called after each picture is encoded. Its result may come much later.
    is_stopped: called before each picture. If it returns True, no further picture is begun.
    interruptible: a context in which pictures are encoded to a target. A KeyboardInterrupt may be raised in
        it. Then the files that are ready are still written, and their results come before the exception.

    Temporary files that killed runs have left in the output folders are removed, see `remove_leftovers`.
    """
    if not recipe.dry_run:
        tasks = _tidied(tasks)
    if not recipe.target:
        tasks = iter(tasks)
        first = list(islice(tasks, MANY if jobs > 1 else 0))
        left = takewhile(lambda _: not is_stopped(), chain(first, tasks))
        with encoders(recipe, jobs, len(first)) as workers:
            for _, (result,) in workers.each(left, lambda task: (task,)):
                on_done()
                yield result
        return
    with ThreadPoolExecutor(jobs) as pool:
        left = takewhile(lambda _: not is_stopped(), tasks)
        read = in_advance(lambda task: pool.submit(read_task, task, recipe), left, 2 * jobs)
        for group in _groups(_group_size(recipe), (opened for _, opened in read)):
            written: dict[int, Future[Result]] = {}  # by the picture's number in the group

            def write(i: int, one: Opened | Result, written: dict[int, Future[Result]] = written) -> None:
                written[i] = pool.submit(write_opened, one, recipe)
                on_done()

            try:
                with interruptible():
                    _encode_to_target(dict(enumerate(group)), recipe, jobs, write)
            finally:
                yield from (written[i].result() for i in sorted(written))


def _tidied(tasks: Iterable[FileTask | Result]) -> Iterator[FileTask | Result]:
    """Yield the tasks. Before the first task that writes into a folder, leftovers in it are removed."""
    tidy = set()
    for task in tasks:
        if isinstance(task, FileTask) and task.destination is not None:
            folder = folder_of(task.destination)
            if folder not in tidy:
                tidy.add(folder)
                remove_leftovers(folder)
        yield task


def _group_size(recipe: FileOptions) -> int:
    """The largest number of pictures in a group.

    With accuracy=X%, a group is so large that at least one of its pictures may break the criterion.
    """
    if recipe.target.get("keep") is None:
        return GROUP
    from dnnjpeg.networks.criterion import Criterion

    share = Criterion.parse(recipe.target["keep"]).share
    return max(GROUP, math.ceil(1 / (1 - share) - 1e-9)) if share < 1 else GROUP


def _groups(count: int, items: Iterable[Opened | Result]) -> Iterator[list[Opened | Result]]:
    """Divide pictures into groups of `count`, or fewer if they have more than GROUP_PIXELS pixels.

    Large groups make large batches for networks. The limit of the pixels bounds the memory.
    """
    group: list[Opened | Result] = []
    pixels = 0
    for item in items:
        group.append(item)
        pixels += 0 if isinstance(item, Result) else math.prod(item.size)
        if len(group) == count or pixels >= GROUP_PIXELS:
            yield group
            group, pixels = [], 0
    if group:
        yield group


def _shown(picture: Any, recipe: FileOptions) -> Any:
    """What `encode_to_target` takes in place of a picture that was read."""
    if isinstance(picture, Picture):
        return picture.image
    return picture.stripped() if recipe.metadata == "strip" else picture


def _encode_to_target(
    group: Mapping[int, Opened | Result],
    recipe: FileOptions,
    jobs: int,
    write: Callable[[int, Opened | Result], None],
) -> None:
    """Encode the pictures of a group. Calls `write` with a picture's number and file, as soon as it is known.

    If the group raises an error, each picture is encoded by itself, so that only the faulty one fails.
    """
    from dnnjpeg.target.target import encode_to_target

    todo: dict[int, Opened] = {}
    for i, one in group.items():
        if isinstance(one, Result):
            write(i, one)
        else:
            todo[i] = one
    numbers = list(todo)

    def take(which: int, file: "Encoded") -> None:
        i = numbers[which]
        write(i, taken(todo.pop(i), file, recipe))

    pictures = [one.picture for one in todo.values()]
    try:
        encode_to_target(
            [_shown(one, recipe) for one in pictures],
            recipe.table,
            metadata=[one.metadata if isinstance(one, Picture) else {} for one in pictures],
            on_found=take,
            **recipe.target,
            threads=jobs,
            **vars(recipe.options),
        )
    except Exception as error:
        for i, one in list(todo.items()):
            if len(numbers) > 1:
                _encode_to_target({i: one}, recipe, jobs, write)
            else:
                write(i, Result(one.source, "failed", describe(error, one.source)))
