"""The start and the end of a program."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SETTINGS = ".numba_config.yaml"  # numba looks for it in the working folder


@contextmanager
def no_collection() -> Iterator[None]:
    """Turn garbage collection off while a program is loaded. It would take a third of the time of the start.

    What is loaded stays, so later collections leave it out, too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def one_thread() -> None:
    """Keep numpy's linear algebra, which encoding does not use, from starting threads when it is loaded.

    A process with one thread can be forked, see `jobs.workers`.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def load_numba() -> None:
    """Import numba without two packages that it only looks at: scipy for its version, yaml for a file of
    settings, if there is none. Meanwhile no other thread may import them.
    """
    unneeded = {"scipy"} if Path(_SETTINGS).exists() else {"scipy", "yaml"}
    unneeded -= sys.modules.keys()
    sys.modules.update(dict.fromkeys(unneeded))  # type: ignore[arg-type]  # None: it cannot be imported
    try:
        import numba  # noqa: F401
    finally:
        for name in unneeded:
            del sys.modules[name]


@contextmanager
def quick_end() -> Iterator[None]:
    """End the process with the status that the context exits with, once all threads have ended and all that
    others have registered with `atexit` since is done. Python would take itself apart first, which takes a
    tenth of the time of a short command.
    """
    status: int | None = None

    def leave() -> None:
        if status is not None:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed
                    stream.flush()
            os._exit(status)

    atexit.register(leave)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, int):
            status = end.code
        raise
