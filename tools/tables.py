"""`dnnjpeg tables`: list, show and export quantization tables."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from dnnjpeg.checks import check_quality, one_line
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.table.fields import BinWidth, Hardness, MaxIndex
from dnnjpeg.table.formats import format_steps, to_csv, to_wizard
from dnnjpeg.table.library import list_tables, load_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

from .options import json_option
from .paths import NamedPath


def _load(ctx: click.Context, parameter: click.Parameter, name: str) -> Table:
    try:
        return load_table(name)
    except (ValueError, OSError) as error:
        raise click.BadParameter(str(error)) from None


def _check_quality(ctx: click.Context, parameter: click.Parameter, quality: float | None) -> float | None:
    try:
        return None if quality is None else check_quality(quality)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_name = click.argument("table", metavar="NAME", callback=_load)
_quality = partial(click.option, "--quality", type=float, callback=_check_quality)
_json = json_option(help="Print JSON.")


@click.group()
def tables() -> None:
    """List, show and export quantization tables. NAME is an installed table or the path of a JSON file."""


@tables.command("list")
@_json
def list_command(as_json: bool) -> None:
    """List the installed tables."""
    found: dict[str, Table] = {}
    installed = list_tables()
    for name in installed:
        try:
            found[name] = load_table(name)
        except (ValueError, OSError) as error:
            click.echo(one_line(f"{name}: {error}"), err=True)
    if as_json:
        click.echo(
            json.dumps([_entry(name, table, installed[name]) for name, table in found.items()], indent=2)
        )
    else:
        for name, table in found.items():
            span = f"quality {table.points[0].quality} to {table.points[-1].quality}"
            click.echo(one_line(f"{name}  {table.description} ({len(table.points)} points, {span})"))
    sys.exit(len(found) < len(installed))


@tables.command(short_help="Show a table, or its steps at one quality.")
@_name
@_quality(help="Show the steps at this quality, 1 to 100.")
@_json
def show(table: Table, quality: float | None, as_json: bool) -> None:
    """Show the operating points of a table, or with --quality the steps at this quality."""
    found: Table | OperatingPoint = table if quality is None else table.at(quality)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    elif isinstance(found, OperatingPoint):
        click.echo(one_line(_line(found)))
        for name, steps, kinds in zip(found.table_names, found.tables, _kinds(found), strict=True):
            click.echo(f"\n{name}, {kinds}\n{format_steps(steps)}")
    else:
        lines = [f"{table.name}  {table.description}", *map(_line, table.points)]
        for key, value in table.provenance.items():
            lines.append(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
        click.echo("\n".join(map(one_line, lines)))


@tables.command()
@_name
@_quality(required=True, help="Write the steps at this quality, 1 to 100.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["wizard", "csv", "json"]),
    default="wizard",
    show_default=True,
    help="Format. wizard: text for cjpeg -qtables and Pillow's qtables=; csv: comma-separated numbers; json: "
    "a table with this one point.",
)
@click.option(
    "-o",
    "--output",
    type=NamedPath(dir_okay=False, allow_dash=True),
    default="-",
    metavar="FILE",
    show_default="standard output",
    help="Where to write the steps.",
)
def export(table: Table, quality: float, form: str, output: Path) -> None:
    """Write the steps at one quality for other programs."""
    point = table.at(quality)
    if form == "json":
        one = Table(table.name, (point,), table.description, table.provenance)
        text = json.dumps(one.to_json()) + "\n"
    else:
        text = {"wizard": to_wizard, "csv": to_csv}[form](point)
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    try:
        write_atomic(output, text.encode())
    except OSError as error:
        raise click.FileError(str(output), error.strerror) from None


def _entry(name: str, table: Table, path: Path | None) -> dict[str, Any]:
    return {
        "name": name,
        "description": table.description,
        "qualities": [point.quality for point in table.points],
        "path": None if path is None else str(path),
    }


def _line(point: OperatingPoint) -> str:
    """A point as one line."""
    kinds = dict.fromkeys(_kinds(point))
    measured = [f"{key} {json.dumps(value)}" for key, value in (point.measured or {}).items()]
    parts = [f"quality {point.quality}", point.subsampling, f"{len(point.tables)} tables", *kinds, *measured]
    return ", ".join(parts)


def _kinds(point: OperatingPoint) -> list[str]:
    """For each table: its hardness, and its bin_width and max_index if it has them."""
    return [
        (_describe("hardness", hardness) or "rounded to the nearest")
        + ("" if bin_width == 1 else f", {_describe('bin_width', bin_width)}")
        + ("" if max_index is None else f", {_describe('max_index', max_index)}")
        for hardness, bin_width, max_index in zip(
            point.hardness, point.bin_width, point.max_index, strict=True
        )
    ]


def _describe(name: str, entry: Hardness | BinWidth | MaxIndex) -> str:
    if isinstance(entry, tuple):
        numbers = [number for number in entry if number is not None]
        return f"{name} {min(numbers):g} to {max(numbers):g} by coefficient"
    return "" if entry is None else f"{name} {entry:g}"
