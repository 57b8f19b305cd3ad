"""Checks of a user's values. Each check returns the value in one form, or raises ValueError.

The error names the field, the value that was given, and what is expected.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from reprlib import Repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_LEVELS = 100  # of a record. Python's own limit is higher, and depends on the caller


class _Brief(Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python does not print what has thousands of digits
            return f"an integer of {x.bit_length()} bits"


_brief = _Brief()
_brief.maxlevel = 3


def brief(value: object) -> str:
    """A value for a message: the beginning of its `repr`, in one line."""
    text = re.sub(r"\s*\n\s*", " ", _brief.repr(value))
    return text if len(text) <= 120 else f"{text[:117]}..."


def one_line(text: str) -> str:
    """`text` with all control characters escaped. File names and tables can hold any characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether a value is a number of Python or numpy. True and False are no numbers here."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_integer(value: Any, name: str, low: int, high: int) -> int:
    """Check for an integer low..high. Returns an int."""
    if type(value) is int and low <= value <= high:  # asked for every picture: the usual case first
        return value
    if not is_number(value, Integral) or not low <= value <= high:
        raise ValueError(f"{name} is {brief(value)}, expected an integer {low}..{high}")
    return int(value)


def check_flag(value: Any, name: str, *others: str | None) -> Any:
    """True or False, or one of the other values."""
    if value is True or value is False:
        return value
    for other in others:
        if value is other or (isinstance(value, str) and value == other):
            return other
    with suppress(TypeError, ValueError):  # an array is not one truth
        if value in (False, True):
            return bool(value)
    raise ValueError(
        f"{name} is {brief(value)}, expected {', '.join(map(repr, (True, False, *others)[:-1]))} or "
        f"{(True, False, *others)[-1]!r}"
    )


def check_positive(value: Any, name: str, least: float = 0.0, rest: str = "") -> float:
    """Check for a finite number above 0, or of at least `least` if it is given. Returns a float."""
    if is_number(value):
        with suppress(OverflowError):  # an integer can be more than any float
            number = float(value)
            if 0 < number < math.inf and number >= least:
                return number
    bound = f"of at least {least}" if least else "above 0"
    raise ValueError(f"{name} is {brief(value)}, expected a finite number {bound}{rest}")


def check_quality(value: Any, name: str = "quality") -> float:
    """Check for a number 1..100. Returns an int if it is whole, so that it prints as 75 and not as 75.0."""
    if type(value) is int and 1 <= value <= 100:
        return value
    if not is_number(value) or not 1 <= value <= 100:
        raise ValueError(f"{name} is {brief(value)}, expected a number 1..100")
    return int(value) if value == int(value) else float(value)


def check_items(value: Any, name: str, expected: str) -> list[Any]:
    """Check for a sequence, array or other iterable. Returns its items."""
    if not isinstance(value, (str, bytes, Mapping)):
        with suppress(TypeError):
            return list(value)
    raise ValueError(f"{name} is {brief(value)}, expected {expected}")


def check_array(value: Any, name: str, expected: str, kind: type | None = None) -> "NDArray[Any]":
    """Check for an array, or for something that numpy turns into an array. Returns the array."""
    import numpy as np  # not at the top: tables need no numpy

    try:
        return np.asarray(value, kind)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {brief(value)}, expected {expected}") from None


def check_record(value: Any, name: str) -> dict[str, Any]:
    """Check for an object that JSON can hold. Returns a copy."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {brief(value)}, expected an object")
    if not _is_shallow(value, _MAX_LEVELS):
        raise ValueError(f"{name} is nested too deeply, expected at most {_MAX_LEVELS} levels")
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()  # fails for half of a character
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be kept as JSON: {error}") from None


def _is_shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, Mapping | list | tuple):
        return True
    parts = value.values() if isinstance(value, Mapping) else value
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


def check_keys(document: Any, name: str, required: Sequence[str], optional: Sequence[str]) -> None:
    """Check that an object has the required keys, and no unknown ones, which are mostly misspelt."""
    if not isinstance(document, dict):
        raise ValueError(f"{name} is {brief(document)}, expected an object")
    for key in required:
        if key not in document:
            raise ValueError(f"{key} is missing")
    for key in document:
        if key not in (*required, *optional):
            raise ValueError(
                f"{brief(key)} is not a field of a {name}, expected {', '.join((*required, *optional))}"
            )
