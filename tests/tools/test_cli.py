"""The command line as a whole: it starts quickly and shows its commands."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from PIL import Image

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


def groups(command: click.Command, context: click.Context) -> Iterator[click.Group]:
    if isinstance(command, click.Group):
        yield command
        for name in command.list_commands(context):
            yield from groups(command.get_command(context, name), context)


def test_summaries_are_whole_on_a_narrow_terminal():
    context = click.Context(main, terminal_width=80)
    for group in groups(main, context):
        assert "..." not in click.Context(group, terminal_width=80).get_help().partition("Commands:")[2]


def test_help_of_sparse_needs_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for command, option in (("tune", "--report"), ("run", "--plan")):
        result = CliRunner().invoke(main, ["sparse", command, "--help"])
        assert result.exit_code == 0 and option in result.stdout
    data = str(Path(__file__).parent)
    result = CliRunner().invoke(main, ["sparse", "tune", "--network", "x:y", "--data", data, "-o", "x.json"])
    assert result.exit_code == 2 and "torch is missing, and sparse needs it" in result.stderr


def test_encode_tells_how_an_interrupted_run_goes_on():
    text = " ".join(CliRunner().invoke(main, ["encode", "--help"]).stdout.split())
    assert "The same command with --skip-existing goes on from there" in text and "130 interrupted" in text


def test_unknown_command_is_wrong_usage():
    result = CliRunner().invoke(main, ["encdoe"])
    assert result.exit_code == 2
    assert "encdoe" in result.stderr


def paths(command: click.Command, context: click.Context) -> Iterator[click.Parameter]:
    """The parameters that are paths, of a command and those below it."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            yield parameter
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from paths(command.get_command(context, name), context)


def test_no_path_may_be_empty():
    """To pathlib, an empty one is the current folder."""
    context = click.Context(main)
    found = list(paths(main, context))
    assert {"output", "cache", "picture", "report_file", "files"} <= {parameter.name for parameter in found}
    for parameter in found:
        with pytest.raises(click.BadParameter, match=r"is empty|does not exist"):
            parameter.type.convert("", parameter, context)


def test_empty_output_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("x.png")
    result = CliRunner().invoke(main, ["encode", "x.png", "-o", ""])
    assert result.exit_code == 2 and "'-o' / '--output': the path is empty, expected" in result.stderr
    assert os.listdir() == ["x.png"]  # noqa: PTH208


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


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["tables list", "tables export standard --quality 50", "inspect x.jpg"])
def test_full_standard_output_is_one_line(tmp_path, arguments, unbuffered):
    (tmp_path / "x.jpg").write_bytes(dnnjpeg.encode(Image.new("L", (8, 8))))
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", "from dnnjpeg.tools.cli import run; run()", *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (1, b"Error: No space left on device\n")


CLOSED = "standard output is closed: send it to a file or a pipe, for example /dev/null"


@pytest.mark.parametrize(
    ("closing", "arguments", "code", "message"),
    [
        ("<&-", "inspect -", 1, "-: standard input is closed"),
        ("<&-", "encode - -o y.jpg", 1, "Error: standard input is closed"),
        ("<&-", "encode x.jpg -o y.jpg", 0, ""),
        (">&-", "encode x.jpg -o -", 1, f"Error: {CLOSED}"),
        (">&-", "encode x.jpg -o y.jpg", 1, f"Error: {CLOSED}"),
        (">&-", "inspect x.jpg", 1, f"Error: {CLOSED}"),
        (">&-", "tables list", 1, f"Error: {CLOSED}"),
        (">&-", "--help", 1, f"Error: {CLOSED}"),
        ("2>&-", "encode x.jpg -o y.jpg", 0, ""),
        ("2>&-", "inspect y.jpg", 1, ""),
        (">&- 2>&-", "tables list", 1, ""),
    ],
)
def test_closed_streams_are_one_line(tmp_path, closing, arguments, code, message):
    (tmp_path / "x.jpg").write_bytes(dnnjpeg.encode(Image.new("L", (8, 8))))
    program = [sys.executable, "-W", "error", "-c", "from dnnjpeg.tools.cli import run; run()"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *program, *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (code, message and message + "\n")
    assert (tmp_path / "y.jpg").exists() == ("y.jpg" in arguments and code == 0)
