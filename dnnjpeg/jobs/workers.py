"""Encode pictures in threads, or in worker processes if there are enough.

Only one thread at a time runs Python code, so two threads are hardly faster than one. Processes do not wait
for each other.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

from dnnjpeg.jobs.file import encode_files
from dnnjpeg.jobs.processes import Forked, Started, Work, Worker, can_fork
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.machine.processors import processors

MANY = 1000  # the fewest pictures for which worker processes are worth their start
SOME = 24  # the same for two forks of this process
_CHUNK, _CHUNK_BYTES = 8, 1 << 22  # the most pictures, and bytes, that a worker process gets at once
Item = TypeVar("Item")
Value = TypeVar("Value")


class Encoders:
    """Encodes the pictures of items in their order, and begins some of them in advance."""

    def __init__(self, submit: Callable[[Work], Future[list[Result]]], in_flight: int, chunk: int) -> None:
        self._submit, self._in_flight, self._chunk = submit, in_flight, chunk

    def each(
        self, items: Iterable[Item], tasks: Callable[[Item], Work]
    ) -> Iterator[tuple[Item, list[Result]]]:
        """Each item, and the results of its tasks.

        Raises ChildProcessError if a worker process was killed.
        """
        units = ((item, tasks(item)) for item in items)
        for chunk, done in in_advance(self._send, self._chunks(units), self._in_flight):
            results = iter(done)
            for item, work in chunk:
                yield item, [next(results) for _ in work]

    def _send(self, chunk: list[tuple[Item, Work]]) -> Future[list[Result]]:
        return self._submit([task for _, work in chunk for task in work])

    def _chunks(self, units: Iterable[tuple[Item, Work]]) -> Iterator[list[tuple[Item, Work]]]:
        chunk: list[tuple[Item, Work]] = []
        size = 0
        for unit in units:
            chunk.append(unit)
            size += sum(_size(task) for task in unit[1] if isinstance(task, FileTask))
            if len(chunk) == self._chunk or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


def _size(task: FileTask) -> int:
    """Of the picture, in bytes; 0 if nothing tells it."""
    if task.content is not None:
        return len(task.content)
    with suppress(OSError):
        return task.source.stat().st_size
    return 0


@contextmanager
def encoders(recipe: FileOptions, jobs: int, pictures: int) -> Iterator[Encoders]:
    """`jobs` encoders of pictures: threads, or worker processes if these are worth their start.

    pictures: how many there are, about. Numbers beyond `MANY` make no difference.
    """
    count = jobs
    start: Callable[[FileOptions, list[Worker]], Worker] | None = None
    if jobs > 1 and _kernels_last():
        if pictures >= SOME and jobs <= processors() and can_fork():
            count, start = min(jobs, 2 * pictures // SOME), Forked
        elif pictures >= MANY and sys.executable:
            start = Started
    with ThreadPoolExecutor(jobs) as threads, ExitStack() as stack:
        workers: list[Worker] = []
        if start:
            with suppress(OSError):  # at a limit of processes or descriptors, fewer workers do
                for _ in range(count):
                    workers.append(stack.enter_context(start(recipe, workers)))
        if workers:
            idle: SimpleQueue[Worker] = SimpleQueue()
            for worker in workers:
                idle.put(worker)
            chunk = min(max(pictures // (4 * jobs), 1), _CHUNK)
            yield Encoders(lambda work: threads.submit(_hand_over, idle, work), 2 * jobs, chunk)
        else:
            yield Encoders(lambda work: threads.submit(encode_files, work, recipe), 2 * jobs, 1)


def in_advance(
    submit: Callable[[Item], Future[Value]], items: Iterable[Item], count: int
) -> Iterator[tuple[Item, Value]]:
    """Each item and the result of `submit(item)`, in order, up to `count` of them done before they are asked
    for.
    """
    waiting: deque[tuple[Item, Future[Value]]] = deque()
    try:
        for item in items:
            waiting.append((item, submit(item)))
            if len(waiting) > count:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _kernels_last() -> bool:
    """Whether worker processes find the machine code that this one has compiled."""
    from dnnjpeg.machine.kernel_cache import is_lasting

    return is_lasting()


def _hand_over(idle: "SimpleQueue[Worker]", work: Work) -> list[Result]:
    worker = idle.get()
    try:
        return worker.encode(work)
    finally:
        idle.put(worker)
