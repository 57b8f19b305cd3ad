"""Standard output and standard error: all of what is written arrives, or an error says so."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from dnnjpeg.files.atomic import write_all


class _Whole(io.RawIOBase):
    """A file of which `write` takes all that it is given."""

    def __init__(self, descriptor: int) -> None:
        self._file = io.FileIO(descriptor, "w", closefd=False)

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        write_all(self._file, data)
        return len(data)


@contextmanager
def whole_output() -> Iterator[None]:
    """Meanwhile nothing is buffered in the standard streams, and nothing is lost: the usual ones forget the
    rest of what a raw file takes in part (PYTHONUNBUFFERED), and give up on a pipe that does not block.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _whole(sys.stdout, sys.__stdout__), _whole(sys.stderr, sys.__stderr__)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _whole(stream: Any, original: TextIO | None) -> Any:
    if os.name != "posix" or original is None or stream is not original:  # closed, or a test's
        return stream
    stream.flush()
    return io.TextIOWrapper(_Whole(stream.fileno()), stream.encoding, stream.errors, write_through=True)


def check_output() -> None:
    """Raises OSError where standard output did not keep what it took: over a network, a full disk may show
    only when the file is closed.
    """
    if isinstance(getattr(sys.stdout, "buffer", None), _Whole):
        os.close(os.dup(sys.stdout.fileno()))
