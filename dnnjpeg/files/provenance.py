"""Where results come from: the machine and the command."""

import platform
import shlex
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def command() -> str:
    """The command that runs, paths as `short` has them."""
    return shlex.join(["dnnjpeg", *map(short, sys.argv[1:])])


def short(argument: str) -> str:
    """A path by its last two parts: where a user keeps things is nobody's business."""
    option, equals, value = argument.rpartition("=")
    return option + equals + "/".join(Path(value).parts[-2:])
