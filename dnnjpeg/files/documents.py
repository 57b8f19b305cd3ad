"""Reading JSON files of a user."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from dnnjpeg.checks import brief

MAX_BYTES = 64 << 20


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file. It must be a regular file, UTF-8, of at most `MAX_BYTES`, without repeated keys.

    Raises OSError if the file cannot be read, and ValueError if it breaks one of these rules.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # a device has no end, and a pipe waits for its writer
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"the key {brief(key)} is there twice")
        document[key] = value
    return document
