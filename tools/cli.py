"""`dnnjpeg`: the commands, each loaded when it is asked for."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from dnnjpeg import __version__

COMMANDS = ("demo", "encode", "evaluate", "inspect", "learn-table", "sparse", "tables", "train", "warmup")


class _Commands(click.Group):
    """The command NAME is the object of that name in dnnjpeg.tools.NAME, a dash being an underscore there."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"dnnjpeg.tools.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if sys.stderr is None:  # closed: a file opened later would take its place
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        if sys.stdout is None:
            raise click.ClickException(
                "standard output is closed, expected somewhere to write to, as /dev/null"
            )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click knows
        except OSError as error:
            _abandon_full_output()
            reason = error.strerror or str(error)
            raise click.ClickException(f"{reason}: {error.filename}" if error.filename else reason) from None


def _abandon_full_output() -> None:
    """What a full standard output's buffer still holds would fail once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dnnjpeg %(version)s")
def main() -> None:
    """Ordinary JPEG files for pictures that a neural network will look at."""
