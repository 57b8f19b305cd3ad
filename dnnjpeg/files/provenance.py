"""The origin of results: the machine and the command."""

import platform
import shlex
import sys
from pathlib import Path

from dnnjpeg.checks import one_line


def cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def command() -> str:
    """The running command, with paths shortened by `short`."""
    return shlex.join(["dnnjpeg", *map(short, sys.argv[1:])])


def short(argument: str) -> str:
    """The last two parts of a path, as printable text. The rest is private."""
    option, equals, value = argument.rpartition("=")
    return one_line(option + equals + "/".join(Path(value).parts[-2:]))
