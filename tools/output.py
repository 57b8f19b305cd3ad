"""Standard output and standard error that write everything, or raise an error."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from dnnjpeg.files.atomic import write_all


class _Whole(io.RawIOBase):
    """A raw file whose `write` writes all data."""

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
    """In this context, the standard streams are unbuffered, and write everything.

    Python's own streams lose data if a raw file writes only a part (PYTHONUNBUFFERED), or if a pipe does not
    block.
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
    """Raise OSError if standard output lost data. A full network disk may fail only at the close."""
    if isinstance(getattr(sys.stdout, "buffer", None), _Whole):
        os.close(os.dup(sys.stdout.fileno()))
