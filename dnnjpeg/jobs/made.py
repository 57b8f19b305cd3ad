"""Find files that an earlier run of the same command has made, so that a second run changes nothing."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.jpeg.markers import EOI
from dnnjpeg.jpeg.segments import read_frame, read_segments
from dnnjpeg.jpeg.signature import NOTE, adaptation, signature_of
from dnnjpeg.options import DEFAULTS, EncodeOptions


@dataclass(frozen=True)
class Made:
    """A JPEG file that has the table and the quality of the run already. size: width and height in pixels."""

    data: bytes
    size: tuple[int, int]


def made_before(data: bytes, recipe: FileOptions) -> Made | None:
    """The file, if its signature names the table and the quality of the recipe.

    None for any other file, and if the recipe has options that a signature does not name.
    """
    told = _are_told(recipe.options) and recipe.metadata == "keep"
    if not told or recipe.target or recipe.only_if_smaller is False or not _is_signed(data, recipe):
        return None
    return Made(data, size) if (size := _size(data)) != (0, 0) else None


@lru_cache(maxsize=16)
def _are_told(options: EncodeOptions) -> bool:
    """Whether a signature names all that the options ask for."""
    return replace(options, adaptive=False) == DEFAULTS


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
    tables = [recipe.table.name, *["standard"] * ("keep" in recipe.target)]  # see `encode_to_target`
    if found is None or found.table not in tables or not data.endswith(EOI):
        return False
    if recipe.target:
        with suppress(ValueError):  # of a file that is damaged elsewhere
            return _meets(data, recipe.target)
        return False
    if recipe.options.adaptive:
        return found.adaptation == adaptation(recipe.options.adaptive, recipe.quality)
    return found.quality == float(f"{recipe.quality:g}")


def _meets(data: bytes, target: Mapping[str, Any]) -> bool:
    """Whether a file of this table is within the limit of a target, or has the note of its criterion."""
    if target.get("target_bytes") is not None:
        return len(data) <= target["target_bytes"]
    if target.get("target_bpp") is not None:
        width, height = _size(data)
        return 8 * len(data) <= target["target_bpp"] * width * height
    from dnnjpeg.networks.criterion import Criterion, note_of

    note = NOTE + note_of(Criterion.parse(target["keep"]), target["networks"]).encode()
    start = note + (b", pruned," if target.get("prune") else b"") + b" at quality "
    comments = (body for name, _, body in read_segments(data) if name == "COM")
    return any(line.startswith(start) for body in comments for line in body.split(b"\n"))


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG file; (0, 0) without a frame."""
    for name, _, body in read_segments(data):
        if name.startswith("SOF"):
            _, height, width, _ = read_frame(body)
            return width, height
    return 0, 0
