"""Replaces the JPEG writers of other libraries by dnnjpeg's, in the whole process."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, MutableMapping
from functools import wraps
from importlib.util import find_spec
from typing import Any, Self, TypeVar

VARIABLE = "DNNJPEG_TAKEOVER"
GIVEN = "given"  # in place of a quality: the caller's own

Value = TypeVar("Value")
Writer = Callable[..., Any]

_log = logging.getLogger("dnnjpeg")


class Writers:
    """JPEG writers of another library, by their names in its namespace. The latest take-over replaces
    them.
    """

    def __init__(self, library: str, namespace: MutableMapping[str, Any]) -> None:
        self.library = library
        self._namespace = namespace
        self._own: dict[str, Writer] = {}  # of the library, while they are replaced
        self._ours: dict[str, Writer] = {}
        self._stack: list[Takeover] = []
        self._lock = threading.Lock()

    def take(self, takeover: "Takeover") -> None:
        with self._lock:
            if not self._stack:
                self._own = {name: self._namespace[name] for name in takeover.writers}
                self._ours = {name: self._writer(name, own) for name, own in self._own.items()}
                self._namespace.update(self._ours)
            self._stack.append(takeover)

    def give_back(self, takeover: "Takeover | None" = None) -> bool:
        """End a take-over; None is the latest. Returns False if it has ended already."""
        with self._lock:
            if not self._stack or (takeover is not None and takeover not in self._stack):
                return False
            self._stack.remove(takeover or self._stack[-1])
            if not self._stack:
                for name, own in self._own.items():
                    if self._namespace[name] is self._ours[name]:  # else somebody else has it now
                        self._namespace[name] = own
            return True

    @property
    def are_taken(self) -> bool:
        return bool(self._stack)

    def _writer(self, name: str, own: Writer) -> Writer:
        @wraps(own)
        def write(*args: Any, **options: Any) -> Any:
            with self._lock:
                latest = self._stack[-1] if self._stack else None
            if latest is None:  # somebody has kept this function
                return own(*args, **options)
            return latest.writers[name](own, *args, **options)

        return write


class Takeover:
    """dnnjpeg replaces a library's JPEG writer until `restore`, or until the end of a `with` block.

    written: the number of files that dnnjpeg wrote.
    refused: the number of files that the library's own writer wrote, because dnnjpeg refused an option or the
        picture. The logger "dnnjpeg" warns about the first one.
    """

    def __init__(self, place: Writers) -> None:
        self.written = self.refused = 0
        self.writers: Mapping[str, Writer] = {}  # called with the library's own function first
        self._place = place
        self._lock = threading.Lock()

    def start(self, **writers: Writer) -> Self:
        self.writers = writers
        self._place.take(self)
        return self

    def restore(self) -> None:
        """End this take-over. A second call does nothing."""
        self._place.give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def attempt(self, make: Callable[[], Value]) -> Value | None:
        """The result of `make`, or None if it raises any error: the other library must go on."""
        try:
            value = make()
        except Exception as error:
            with self._lock:
                self.refused += 1
                is_first = self.refused == 1
            if is_first:
                _log.warning(
                    "%s's own writer wrote a JPEG file, because dnnjpeg refused: %s: %s. "
                    "Further ones are counted, not logged.",
                    self._place.library, type(error).__name__, error,
                )  # fmt: skip
            return None
        with self._lock:
            self.written += 1
        return value


def restore_latest(place: Writers) -> None:
    if not place.give_back():
        raise RuntimeError(f"{place.library}'s JPEG writer is its own: there is nothing to restore")


def take_over_as_told(value: str) -> None:
    """Take over Pillow's writer and, if it is installed, OpenCV's, as the variable DNNJPEG_TAKEOVER says.

    value: TABLE or TABLE:QUALITY. Raises ValueError for another value.
    """
    table, colon, last = value.rpartition(":")
    quality: int | str = int(last) if last.isdecimal() else last
    if not colon or not (last == GIVEN or isinstance(quality, int)):
        table, quality = value, GIVEN
    from . import opencv, pillow

    try:
        pillow.takeover(table, quality)
        if find_spec("cv2") is not None:
            try:
                opencv.takeover(table, quality)
            except ImportError as error:
                _log.warning("cv2 cannot be imported, so its JPEG writer stays its own: %s", error)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{VARIABLE} is {value!r}, expected TABLE or TABLE:QUALITY, as universal:75: {error}"
        ) from error


def refuse_taken(place: Writers) -> None:
    """Raise ValueError while dnnjpeg replaces a writer. A program that measures the library would measure
    dnnjpeg.
    """
    if place.are_taken:
        told = f" (unset {VARIABLE})" if os.environ.get(VARIABLE) else ""
        raise ValueError(f"{place.library}'s JPEG writer is taken over by dnnjpeg: restore it first{told}")
