"""Encode pictures in threads, or in worker processes if there are enough.

Only one thread at a time runs Python code, so two threads are hardly faster than one. Processes do not wait
for each other. A fork of this process starts at once, but is safe only if this process has a single thread.
Any other process takes about a second to start.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import IO, Any, NoReturn, Self, TypeVar

from dnnjpeg.jobs.file import encode_files
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.machine.startup import no_collection

MANY = 1000  # the fewest pictures for which worker processes are worth their start
SOME = 24  # the same for forks of this process
_CHUNK, _CHUNK_BYTES = 8, 1 << 22  # the most pictures, and bytes, that a worker process gets at once
_PARENT_IS_GONE = EOFError, pickle.UnpicklingError, BrokenPipeError
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
def encoders(recipe: FileOptions, jobs: int, pictures: int) -> Iterator[Encoders]:
    """`jobs` encoders of pictures: threads, or worker processes if these are worth their start.

    pictures: how many there are, about. Numbers beyond `MANY` make no difference.
    """
    start: Callable[..., _Worker] | None = None
    if jobs > 1 and pictures >= SOME and _kernels_last():
        if _can_fork():
            start = _Forked
        elif pictures >= MANY and sys.executable:
            start = _Started
    with ThreadPoolExecutor(jobs) as threads, ExitStack() as stack:
        workers: list[_Worker] = []
        if start:
            with suppress(OSError):  # at a limit of processes or descriptors, fewer have to do
                for _ in range(min(jobs, pictures)):
                    workers.append(stack.enter_context(start(recipe, workers)))
        if workers:
            idle: SimpleQueue[_Worker] = SimpleQueue()
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


def _can_fork() -> bool:
    """Whether this process has one thread. A fork would have the locks of others, and nobody to open them."""
    try:
        return len([*Path("/proc/self/task").iterdir()]) == 1
    except OSError:  # not Linux. macOS has threads of its own in every process
        return False


def _hand_over(idle: "SimpleQueue[_Worker]", work: Work) -> list[Result]:
    worker = idle.get()
    try:
        return worker.encode(work)
    finally:
        idle.put(worker)


class _Worker:
    """A process that encodes. It gets no signals of the terminal, and ends with this process.

    to, back: the pipes to the process and back. wait: waits until it has ended, and returns its status.
    first: what it gets before the first work.
    """

    def __init__(
        self, to: IO[bytes], back: IO[bytes], wait: Callable[[], int], first: Iterable[Any] = ()
    ) -> None:
        self._to, self._back, self._wait, self._first = to, back, wait, first

    def encode(self, work: Work) -> list[Result]:
        try:
            for thing in (*self._first, work):
                pickle.dump(thing, self._to, pickle.HIGHEST_PROTOCOL)
            self._first = ()
            self._to.flush()
            results: list[Result] = pickle.load(self._back)
        except (EOFError, OSError):
            raise ChildProcessError(
                f"a worker process ended with status {self._wait()}. If the memory was full, give fewer "
                "--jobs"
            ) from None
        return results

    def close(self) -> None:
        """Leave the process to others, in a fork."""
        self._to.close()
        self._back.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._to.close()
        self._wait()
        self._back.close()


class _Started(_Worker):
    """A process of its own. It does not import the program's main module."""

    def __init__(self, recipe: FileOptions, _: Sequence[_Worker]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from dnnjpeg.jobs.workers import serve; serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert process.stdin and process.stdout
        # its caches know the table by its identity: it gets it once
        super().__init__(process.stdin, process.stdout, process.wait, [recipe])


class _Forked(_Worker):
    """A fork of this process.

    others: the forks before it, whose pipes it closes: each ends when this process closes its own.
    """

    def __init__(self, recipe: FileOptions, others: Sequence[_Worker]) -> None:
        ends: list[int] = []
        try:
            ends += os.pipe()
            ends += os.pipe()
            process = os.fork()
        except OSError:
            for end in ends:
                os.close(end)
            raise
        given, to, back, results = ends
        if process == 0:
            _be_forked(recipe, given, results, (to, back), others)
        for end in (given, results):
            os.close(end)
        super().__init__(os.fdopen(to, "wb"), os.fdopen(back, "rb"), _waiter(process))


def _waiter(process: int) -> Callable[[], int]:
    """A function that waits for the end of a child process, and returns its status. Threads may share it."""
    lock = Lock()

    @cache
    def status() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def wait() -> int:
        with lock:
            return status()

    return wait


def _be_forked(
    recipe: FileOptions, given: int, results: int, ends: Sequence[int], others: Sequence[_Worker]
) -> NoReturn:
    """Encode in the fork, which never returns to what this process was about to do."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        for end in ends:
            os.close(end)
        for other in others:
            other.close()
        _serve(os.fdopen(given, "rb"), os.fdopen(results, "wb"), recipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def serve() -> None:
    """What a process of its own does, until its standard input ends."""
    warnings.simplefilter("ignore")  # Pillow's, of odd metadata; the codec's is in the results
    given, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else gets between the results
    with suppress(*_PARENT_IS_GONE):
        recipe = pickle.load(given)
        with no_collection():
            _answer(given, results, recipe)
        _serve(given, results, recipe)


def _serve(given: IO[bytes], results: IO[bytes], recipe: FileOptions) -> None:
    with suppress(*_PARENT_IS_GONE):
        while True:
            _answer(given, results, recipe)


def _answer(given: IO[bytes], results: IO[bytes], recipe: FileOptions) -> None:
    pickle.dump(encode_files(pickle.load(given), recipe), results, pickle.HIGHEST_PROTOCOL)
    results.flush()
