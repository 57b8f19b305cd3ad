"""`dnnjpeg`: the commands. Each is loaded when it is used."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dnnjpeg import __version__
from dnnjpeg.checks import one_line
from dnnjpeg.machine.startup import quick_end

from .output import check_output, whole_output  # mypy does not know the way by dnnjpeg.tools

COMMANDS = (
    "demo",
    "encode",
    "evaluate",
    "inspect",
    "learn-table",
    "reader",
    "sparse",
    "tables",
    "train",
    "warmup",
)


class _Commands(click.Group):
    """The command NAME is the object NAME in the module dnnjpeg.tools.NAME. A dash becomes an underscore."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"dnnjpeg.tools.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        with whole_output():
            return super().main(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if sys.stderr is None:  # closed: a file opened later would take its place
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        if sys.stdout is None:
            raise click.ClickException(
                "standard output is closed: send it to a file or a pipe, for example /dev/null"
            )
        with _errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _errors():
            try:
                return super().invoke(ctx)
            finally:
                check_output()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors of the system into one line without their number. Control characters are escaped."""
    try:
        yield
    except click.ClickException as error:
        vars(error).update(message=one_line(re.sub(r"^\[Errno \d+\] ", "", error.message)))
        raise
    except BrokenPipeError:
        raise  # click handles it
    except OSError as error:
        reason = error.strerror or str(error)
        text = f"{reason}: {error.filename}" if error.filename else reason
        raise click.ClickException(one_line(text)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dnnjpeg %(version)s")
def main() -> None:
    """Make ordinary JPEG files for pictures that a neural network will read."""


def run(name: str | None = None) -> None:
    """The program. name: what its help calls it, if that is not what it was started as."""
    with quick_end():
        main(prog_name=name)
