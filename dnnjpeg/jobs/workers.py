"""Encode pictures in threads, or in worker processes if there are many.

Only one thread at a time runs Python code, so two threads are hardly faster than one. Processes do not wait
for each other, but each takes about a second to start.
"""

import os
import pickle
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from dnnjpeg.jobs.file import encode_file
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.machine.startup import no_collection

MANY = 1000  # the fewest pictures for which worker processes are worth their start
_CHUNK, _CHUNK_BYTES = 8, 1 << 22  # the most pictures, and bytes, that a worker process gets at once
Item = TypeVar("Item")
Value = TypeVar("Value")
Work = Sequence[FileTask | Result]


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
            size += sum(len(task.content or b"") for task in unit[1] if isinstance(task, FileTask))
            if len(chunk) == self._chunk or size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


@contextmanager
def encoders(recipe: FileOptions, jobs: int, *, many: bool) -> Iterator[Encoders]:
    """`jobs` encoders of pictures. many: whether to start worker processes for them, if there are several."""
    with ThreadPoolExecutor(jobs) as threads, ExitStack() as stack:
        if many and jobs > 1 and sys.executable and _kernels_last():
            idle: SimpleQueue[_Worker] = SimpleQueue()
            for _ in range(jobs):
                idle.put(stack.enter_context(_Worker(recipe)))
            yield Encoders(lambda work: threads.submit(_hand_over, idle, work), 2 * jobs, _CHUNK)
        else:
            yield Encoders(lambda work: threads.submit(_encode, work, recipe), 2 * jobs, 1)


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


def _encode(work: Work, recipe: FileOptions) -> list[Result]:
    return [encode_file(task, recipe) for task in work]


def _kernels_last() -> bool:
    """Whether worker processes find the machine code that this one has compiled."""
    from dnnjpeg.machine.kernel_cache import is_lasting

    return is_lasting()


def _hand_over(idle: "SimpleQueue[_Worker]", work: Work) -> list[Result]:
    worker = idle.get()
    try:
        return worker.encode(work)
    finally:
        idle.put(worker)


class _Worker:
    """A process that encodes. It does not import the program's main module, gets no signals of the terminal,
    and ends with this process.
    """

    def __init__(self, recipe: FileOptions) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from dnnjpeg.jobs.workers import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self._first: list[Any] = [recipe]  # its caches know the table by its identity: it gets it once

    def encode(self, work: Work) -> list[Result]:
        try:
            for thing in (*self._first, work):
                pickle.dump(thing, self._to, pickle.HIGHEST_PROTOCOL)
            self._first = []
            self._to.flush()
            results: list[Result] = pickle.load(self._from)
        except (EOFError, OSError):
            raise ChildProcessError(
                f"a worker process ended with status {self._process.wait()}. If the memory was full, give "
                "fewer --jobs"
            ) from None
        return results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._to.close()
        self._process.wait()
        self._from.close()


def serve() -> None:
    """What a worker process does, until its standard input ends."""
    warnings.simplefilter("ignore")  # Pillow's, of odd metadata; the codec's is in the results
    given, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else gets between the results

    def work() -> None:
        pickle.dump(_encode(pickle.load(given), recipe), results, pickle.HIGHEST_PROTOCOL)
        results.flush()

    with suppress(EOFError, pickle.UnpicklingError, BrokenPipeError):  # the parent is gone
        recipe = pickle.load(given)
        with no_collection():
            work()
        while True:
            work()
