"""Running `dnnjpeg encode`, and looking at what it wrote."""

import os
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from dnnjpeg.tools.cli import main

COMMAND = [sys.executable, "-W", "error", "-c", "from dnnjpeg.tools.cli import run; run()", "encode"]


def encode(*arguments: object, **options) -> Result:
    given = [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments]
    result = CliRunner().invoke(main, ["encode", *given], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one.convert("RGB")).astype(float) - np.asarray(other.convert("RGB"))
    return float(10 * np.log10(255**2 / np.mean(difference**2)))
