"""`dnnjpeg`: the commands, each loaded when it is asked for."""

from importlib import import_module

import click

from dnnjpeg import __version__

COMMANDS = ("encode", "evaluate", "inspect", "learn-table", "sparse", "tables", "train", "warmup")


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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="dnnjpeg %(version)s")
def main() -> None:
    """Ordinary JPEG files for pictures that a neural network will look at."""
