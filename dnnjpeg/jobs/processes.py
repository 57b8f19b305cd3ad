"""Worker processes, which encode pictures: forks of this process, and processes that are started anew.

A fork starts at once, and has all that is loaded, but is safe only if this process has a single thread. Any
other process takes about a second to start.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO, Any, NoReturn, Self

from dnnjpeg.jobs.file import encode_files
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.machine.startup import no_collection

_ENDS = signal.SIGINT, signal.SIGTERM
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_PARENT_IS_GONE = EOFError, pickle.UnpicklingError, BrokenPipeError
Work = Sequence[FileTask | Result]


def can_fork() -> bool:
    """Whether this process has one thread. Otherwise a fork could wait for ever: it gets the locks that other
    threads hold, but not the threads, which would release them.
    """
    try:
        return len([*Path("/proc/self/task").iterdir()]) == 1
    except OSError:  # not Linux. macOS has threads of its own in every process
        return False


class Worker:
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
        """Close this side of the pipes, in another fork, which does not use them."""
        self._to.close()
        self._back.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._to.close()
        self._wait()
        self._back.close()


class Started(Worker):
    """A process of its own. It does not import the program's main module."""

    def __init__(self, recipe: FileOptions, _: Sequence[Worker]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from dnnjpeg.jobs.processes import serve; serve()"
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


class Forked(Worker):
    """A fork of this process.

    others: the forks before it, whose pipes it closes: each ends when this process closes its own.
    """

    def __init__(self, recipe: FileOptions, others: Sequence[Worker]) -> None:
        ends: list[int] = []
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # os.fork drops what a handler raises in it
        try:
            ends += os.pipe()
            ends += os.pipe()
            process = os.fork()
            if process == 0:
                _be_forked(recipe, ends, others)
        except OSError:
            for end in ends:
                os.close(end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        given, to, back, results = ends
        for end in (given, results):
            os.close(end)
        super().__init__(os.fdopen(to, "wb"), os.fdopen(back, "rb"), _waiter(process))


def _waiter(process: int) -> Callable[[], int]:
    """A function that waits for the end of a child process, and returns its status. Threads may share it."""
    lock = Lock()

    @cache
    def status() -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        except ChildProcessError:  # the caller of this program ignores SIGCHLD: no status is kept
            return 0

    def wait() -> int:
        with lock:
            return status()

    return wait


def _be_forked(recipe: FileOptions, ends: Sequence[int], others: Sequence[Worker]) -> NoReturn:
    """Encode in the fork, which never returns to what this process was about to do."""
    status = 1
    try:
        os.setsid()
        _end_with_parent()
        for number in _ENDS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        given, to, back, results = ends
        for end in (to, back):
            os.close(end)
        for other in others:
            other.close()
        _serve(os.fdopen(given, "rb"), os.fdopen(results, "wb"), recipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _end_with_parent() -> None:
    """Have the system kill this process when its parent ends, in the middle of a picture if need be."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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
