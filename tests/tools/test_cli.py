"""The command line as a whole: it starts quickly and shows its commands."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

import dnnjpeg
from dnnjpeg.tools.cli import COMMANDS, main


def test_version():
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"dnnjpeg {dnnjpeg.__version__}\n")


def test_help_names_every_command():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.partition("Commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = CliRunner().invoke(main, [command, "-h"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {command}")


def test_unknown_command_is_wrong_usage():
    result = CliRunner().invoke(main, ["encdoe"])
    assert result.exit_code == 2
    assert "encdoe" in result.stderr


def test_warmup_says_how_long_it_took():
    result = CliRunner().invoke(main, ["warmup"])
    assert result.exit_code == 0
    assert result.stdout.endswith(" s\n")


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from dnnjpeg.tools.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print({'numpy', 'numba', 'torch', 'cv2', 'tqdm'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"
