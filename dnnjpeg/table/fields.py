"""Checks of the fields of a table. Each check returns the value in one form, or raises ValueError.

The error names the field.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from dnnjpeg.checks import brief, check_integer, check_items, check_positive, is_number
from dnnjpeg.jpeg.standard import Steps

Hardness = (
    float | tuple[float | None, ...] | None
)  # κ of one table: for all its coefficients, by coefficient, or none
BinWidth = float | tuple[float, ...]  # of one table: for all coefficients, or one for each
MaxIndex = int | tuple[int | None, ...] | None  # of one table, in the same way

MIN_HARDNESS = 0.01  # below this, an index is nearly random
T = TypeVar("T")


def check_tables(value: Any, name: str, expected: str) -> list[Any]:
    """The tables of a list, or of a mapping by number, for example Pillow's `image.quantization`."""
    if isinstance(value, Mapping):
        for key in value:
            if not is_number(key, Integral) or not 0 <= key <= 3:
                raise ValueError(f"{name} has the key {brief(key)}, expected numbers 0..3")
        value = [value[key] for key in sorted(value)]
    return check_items(value, name, expected)


def check_name(value: Any) -> str:
    """Check for the name of a table: one line of printable text."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"name is {brief(value)}, expected printable text")
    return value


def check_steps(value: Any, name: str) -> Steps:
    """Check for 64 quantization steps 1..255."""
    steps = check_items(value, name, "64 integers")
    if len(steps) != 64:
        raise ValueError(f"{name} has {len(steps)} steps, expected 64")
    for i, step in enumerate(steps):
        if not is_number(step, Integral) or not 1 <= step <= 255:
            raise ValueError(f"{name}[{i}] is {brief(step)}, expected an integer 1..255")
    return tuple(map(int, steps))


def check_chroma(value: Any) -> tuple[Steps, ...]:
    """Check for one table of 64 steps, or a list of one or two tables. Returns a tuple of tables."""
    items = check_items(value, "chroma", "64 integers, or one or two lists of 64")
    if len(items) in (1, 2):
        return tuple(check_steps(table, f"chroma[{i}]") for i, table in enumerate(items))
    return (check_steps(items, "chroma"),)


def check_hardness(value: Any, tables: int) -> tuple[Hardness, ...]:
    """Check the hardness of a point with so many tables. Returns a tuple with an entry for each table.

    value: None, one κ, or 64 of them, for all tables; or a list with one of these for each table.
    """
    return _by_table(value, "hardness", tables, _kappa)


def check_bin_width(value: Any, tables: int) -> tuple[BinWidth, ...]:
    """Check the bin_width of a point with so many tables. Returns a tuple with an entry for each table.

    value: None (means 1), one number 0.5..2, or 64 of them, for all tables; or a list with one of these for
        each table.
    """
    return _by_table(value, "bin_width", tables, _width)


def check_max_index(value: Any, tables: int) -> tuple[MaxIndex, ...]:
    """Check the max_index of a point with so many tables. Returns a tuple with an entry for each table.

    value: None, one integer 1..1023, or 64 of them, for all tables; or a list with one of these for each
        table.
    """
    return _by_table(value, "max_index", tables, _index_bound)


def _by_table(value: Any, name: str, tables: int, check: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if value is None or isinstance(value, Real):
        return (check(value, name),) * tables
    items = check_items(value, name, "None, a number, or one entry a table")
    nothing = check(None, name)
    if all(isinstance(item, Real | None) and item in (None, nothing) for item in items):
        return (nothing,) * tables  # `replace` may change the number of tables
    if len(items) == 64:
        return (_entries(items, name, check),) * tables
    if len(items) != tables:
        raise ValueError(f"{name} has {len(items)} entries, expected one for each of {tables} tables, or 64")
    return tuple(_entries(item, f"{name}[{i}]", check) for i, item in enumerate(items))


def _entries(value: Any, name: str, check: Callable[[Any, str], Any]) -> Any:
    """The entry of one table. 64 entries that all mean None become one."""
    if value is None or isinstance(value, Real):
        return check(value, name)
    entries = tuple(
        check(entry, f"{name}[{i}]")
        for i, entry in enumerate(check_items(value, name, "None, a number, or 64"))
    )
    if len(entries) != 64:
        raise ValueError(f"{name} has {len(entries)} entries, expected None, a number, or 64")
    return check(None, name) if entries == (check(None, name),) * 64 else entries


def _kappa(value: Any, name: str) -> float | None:
    rounds = value is None or (is_number(value) and value == math.inf)
    return None if rounds else check_positive(value, name, MIN_HARDNESS, ", inf or None")


def _width(value: Any, name: str) -> float:
    if value is None:
        return 1.0
    if not is_number(value) or not 0.5 <= value <= 2:
        raise ValueError(f"{name} is {brief(value)}, expected a number 0.5..2 or None")
    return float(value)


def _index_bound(value: Any, name: str) -> int | None:
    return None if value is None else check_integer(value, name, 1, 1023)


def spread(entry: T | tuple[T, ...]) -> tuple[T, ...]:
    """An entry of hardness, bin_width or max_index as 64 values, one for each coefficient."""
    return entry if isinstance(entry, tuple) else (entry,) * 64
