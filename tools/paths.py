"""Paths on the command line, and what - stands for there."""

import sys
from pathlib import Path
from typing import Any

import click


class NamedPath(click.Path):
    """A path that need not exist, but has a name: to pathlib, an empty one is the current folder."""

    def __init__(self, **options: bool) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty, expected a name, as . for the current directory", param, ctx)
        return super().convert(value, param, ctx)


def read_stdin() -> bytes:
    """All of standard input. Raises OSError where it is closed."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin.buffer.read()


def printable(text: str) -> str:
    """`text`, each of its lines as `one_line` has it."""
    return "\n".join(map(one_line, text.split("\n")))


def one_line(text: str) -> str:
    """`text` in one line, printable: file names may hold any byte but / and NUL, and tables hold any text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
