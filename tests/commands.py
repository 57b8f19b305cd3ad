"""The command line, as a process of its own."""

import sys
from typing import Any


def encode_command(quality: int, *arguments: Any) -> list[str]:
    """`dnnjpeg encode` with the table universal."""
    how = ["--table", "universal", "--quality", str(quality)]
    return [sys.executable, "-m", "dnnjpeg", "encode", *map(str, arguments), *how]
