"""Paths on the command line, and - for standard input."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from dnnjpeg.checks import one_line
from dnnjpeg.shards.names import is_url, kind_of


class NamedPath(click.Path):
    """A path that need not exist. An empty one is refused: for pathlib, it is the current folder."""

    def __init__(self, **options: bool) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty, expected a name; . is the current folder", param, ctx)
        return super().convert(value, param, ctx)


class SourcePath(click.Path):
    """A file or folder that exists, or a shard or URL as it is written: these have braces and globs.

    @LIST becomes a list of paths, one for each line of the file LIST. `flat` joins them.
    """

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or not value.startswith("@") or Path(value).exists():
            return self._one(value, param, ctx)
        try:
            lines = Path(value[1:]).read_bytes().splitlines()
        except OSError as error:
            self.fail(f"the list {one_line(value[1:])} cannot be read: {error.strerror}", param, ctx)
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found += [self._one(os.fsdecode(line), param, ctx)] if line else []
            except click.BadParameter as error:
                self.fail(f"{one_line(value[1:])}, line {number}: {error.message}", param, ctx)
        if not found:
            self.fail(f"the list {one_line(value[1:])} names no picture", param, ctx)
        return found

    def _one(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        is_folder = os.path.isdir(value)  # noqa: PTH112  # Path's raises for a long pattern
        if isinstance(value, str) and (is_url(value) or (kind_of(value) and not is_folder)):
            return value
        return super().convert(value, param, ctx)


def flat(_context: click.Context, _parameter: click.Parameter, paths: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace each list of paths by its paths."""
    return tuple(one for path in paths for one in (path if isinstance(path, list) else [path]))


class OutputPath(NamedPath):
    """A `NamedPath`, or a URL as it is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and is_url(value):
            return value
        return super().convert(value, param, ctx)


def read_stdin() -> bytes:
    """Read all of standard input. Raises OSError if it is closed."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin.buffer.read()


def printable(text: str) -> str:
    """`text` with all control characters but line ends escaped."""
    return "\n".join(map(one_line, text.split("\n")))
