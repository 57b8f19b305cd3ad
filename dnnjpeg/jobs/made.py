"""Find files that an earlier run of the same command has made, so that a second run changes nothing."""

from dataclasses import dataclass, replace
from pathlib import Path

from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.jpeg.segments import read_frame, read_segments
from dnnjpeg.jpeg.signature import signature_of
from dnnjpeg.options import DEFAULTS


@dataclass(frozen=True)
class Made:
    """A JPEG file that has the table and the quality of the run already. size: width and height in pixels."""

    data: bytes
    size: tuple[int, int]


def made_before(data: bytes, recipe: FileOptions) -> Made | None:
    """The file, if its signature names the table and the quality of the recipe.

    None for any other file, and if the recipe has options that a signature does not name.
    """
    told = replace(recipe.options, adaptive=False) == DEFAULTS and recipe.metadata == "keep"
    if not told or recipe.target or recipe.only_if_smaller is False or not _is_signed(data, recipe):
        return None
    for name, _, body in read_segments(data):
        if name.startswith("SOF"):
            _, height, width, _ = read_frame(body)
            return Made(data, (width, height))
    return None


def is_done(source: Path, output: Path, recipe: FileOptions) -> bool:
    """Whether an earlier run of the recipe made `output` from `source`.

    The signature of `output` says so. Without a signature, it is done if it is a copy of the source, or if
    the recipe writes no signatures. Raises OSError if a file cannot be read.
    """
    data = output.read_bytes()
    if not recipe.options.signature or _is_signed(data, recipe):
        return True
    return source.stat().st_size == len(data) and source.read_bytes() == data


def _is_signed(data: bytes, recipe: FileOptions) -> bool:
    found = signature_of(data)
    if found is None or found[0] != recipe.table.name:
        return False
    own_quality = recipe.options.adaptive or recipe.target  # each picture's own
    return bool(own_quality) or found[1] == float(f"{recipe.quality:g}")
