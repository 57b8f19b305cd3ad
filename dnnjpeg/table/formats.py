"""Quantization tables in the formats of other programs: wizard text (cjpeg, Pillow) and CSV."""

from collections.abc import Sequence

from dnnjpeg.checks import brief
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.fields import spread
from dnnjpeg.table.point import OperatingPoint


def format_steps(steps: Sequence[int]) -> str:
    """64 steps as eight lines of eight."""
    width = len(str(max(steps)))
    return "\n".join(" ".join(f"{step:{width}}" for step in steps[i : i + 8]) for i in range(0, 64, 8))


def to_wizard(point: OperatingPoint) -> str:
    """The point's tables as the text that `cjpeg -qtables FILE` and Pillow's `qtables=` read."""
    (across, down), *_ = SUBSAMPLINGS[point.subsampling]
    slots = ",".join(str(i) for i in range(len(point.tables)))
    lines = [
        f"# quality {point.quality}, {point.subsampling}, natural order",
        f"# cjpeg -qtables FILE -qslots {slots} -sample {across}x{down}",
    ]
    if any(kappa is not None for kappa in point.hardness):
        lines.append("# hardness is not part of this format: whoever reads it rounds to the nearest")
    if any(width != 1 for width in point.bin_width):
        lines.append("# bin_width is not part of this format: whoever reads it takes it for 1")
    if any(limit is not None for limit in point.max_index):
        lines.append("# max_index is not part of this format: whoever reads it has no limit")
    for name, table in zip(point.table_names, point.tables, strict=True):
        lines += [f"# {name}", format_steps(table)]
    return "\n".join(lines) + "\n"


def parse_wizard(text: str) -> list[Steps]:
    """Parse wizard text: 1 to 4 tables of 64 steps. `#` starts a comment.

    Raises ValueError that names the line. `OperatingPoint.from_tables` checks the range of the steps.
    """
    steps: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.split("#", 1)[0].split():
            if not (word.isascii() and word.isdigit() and len(word) <= 5):
                raise ValueError(
                    f"line {number}: {brief(word)} is not a quantization step, expected an integer 1..255"
                )
            steps.append(int(word))
    if len(steps) not in (64, 128, 192, 256):
        raise ValueError(f"{len(steps)} quantization steps, expected 64 for each of 1 to 4 tables")
    return [tuple(steps[i : i + 64]) for i in range(0, len(steps), 64)]


def to_csv(point: OperatingPoint) -> str:
    """The point as CSV, a line for each coefficient. Hardness and max_index are empty if there is none."""
    lines = ["table,row,column,step,hardness,bin_width,max_index"]
    columns = (
        point.tables,
        *(map(spread, entries) for entries in (point.hardness, point.bin_width, point.max_index)),
    )
    for name, *table in zip(point.table_names, *columns, strict=True):
        for i, (step, kappa, width, limit) in enumerate(zip(*table, strict=True)):
            rest = f"{'' if kappa is None else kappa},{width:g},{'' if limit is None else limit}"
            lines.append(f"{name},{i // 8},{i % 8},{step},{rest}")
    return "\n".join(lines) + "\n"
