"""`dnnjpeg inspect`: what JPEG files are made of."""

import json
import sys
from pathlib import Path

import click

from dnnjpeg.checks import one_line
from dnnjpeg.jpeg.inspect import Inspection, Likeness
from dnnjpeg.jpeg.inspect import inspect as inspect_bytes
from dnnjpeg.table.formats import format_steps

from .options import json_option
from .paths import NamedPath, read_stdin


@click.command(short_help="Show tables, segments and encoder of JPEG files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=NamedPath(allow_dash=True))
@json_option(help="Print one JSON object a line, one for each file.")
def inspect(files: tuple[Path, ...], as_json: bool) -> None:
    """Show which encoder made a JPEG file, its tables, its subsampling, and the bytes of each segment.

    FILE - is standard input.
    """
    failed = False
    for path in files:
        try:
            data = read_stdin() if str(path) == "-" else path.read_bytes()
            found = inspect_bytes(data)
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            click.echo(one_line(f"{path}: {reason or error}"), err=True)
            failed = True
            continue
        click.echo(json.dumps({"file": str(path), **found.to_json()}) if as_json else _text(path, found))
    sys.exit(failed)


def _text(path: Path, found: Inspection) -> str:
    size = sum(found.segments.values())
    lines = [f"{one_line(str(path))}: {_frame(found)}, {size:,} bytes"]
    if found.width:
        lines[0] += f", {8 * size / (found.width * found.height):.2f} bits a pixel"
    if not found.complete:
        lines.append("  broken off   no end of image (EOI)")
    lines.append(f"  made by      {_printable(found.made_by)}")
    for what, like in (("luma", found.luma), ("chroma", found.chroma)):
        if like:
            lines.append(f"  {what:12} {_likeness(like)}")
    lines.append(f"  metadata     {', '.join(found.metadata) or 'none'}")
    lines.append(f"  coding       {_coding(found)}")
    sizes = ", ".join(f"{segment} {count:,}" for segment, count in found.segments.items())
    lines.append(f"  header       {found.header_bytes:,} bytes; scan data {found.scan_bytes:,}")
    lines.append(f"  segments     {sizes}")
    for number, steps in found.quantization.items():
        users = ", ".join(str(one.id) for one in found.components if one.table == number)
        lines.append(f"  table {number}{f', of component {users}' if users else ''}")
        lines += [f"    {row}" for row in format_steps(steps).splitlines()]
    return "\n".join(lines)


def _frame(found: Inspection) -> str:
    if not found.width:
        return found.kind
    count = len(found.components)
    components = f"{count} component{'' if count == 1 else 's'}"
    return f"{found.width}x{found.height}, {components}, {found.subsampling}, {found.kind}"


def _likeness(like: Likeness) -> str:
    return (
        f"the standard table at quality {like.quality}"
        if like.exact
        else f"nearest to standard quality {like.quality}"
    )


def _coding(found: Inspection) -> str:
    restart = f", restart interval {found.restart_interval}" if found.restart_interval else ""
    return f"{found.precision} bits, scans {found.scans}, Huffman tables {found.huffman_tables}{restart}"


def _printable(text: str) -> str:
    """A text from a file as one line without control characters, at most 200 characters."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= 200 else f"{line[:200]}..."
