"""The run of `dnnjpeg encode` for shards."""

import json
import sys
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line

from .encode_plan import STREAM
from .progress import progress

if TYPE_CHECKING:
    from dnnjpeg.jobs.report import RunReport
    from dnnjpeg.jobs.tasks import FileOptions, Result


def encode_shards(
    paths: tuple[str | Path, ...],
    output: str | Path | None,
    jobs: int,
    on_error: Any,
    column: str | None,
    as_json: bool,
    unfit: list[str],
    recipe: "FileOptions",
    report: "Path | None",
    engine: str,
    address: str | None,
) -> None:
    """unfit: names of options that were given and are not of shards."""
    from dnnjpeg.jobs.report import RunReport
    from dnnjpeg.shards.cluster import on_ray
    from dnnjpeg.shards.run import ShardOptions, Shards, here

    for name, is_given in (
        ("--network and other targets", recipe.target),
        ("--only-if-smaller", recipe.only_if_smaller),
        ("--dry-run", recipe.dry_run),
        ("--no-fsync", not recipe.fsync),
    ):
        unfit += [name] if is_given else []
    if engine == "ray" and report:
        unfit.append("--report with --engine ray")
    if address and engine != "ray":
        raise click.UsageError("--address goes with --engine ray: give both, or leave out --address")
    if unfit:
        raise click.UsageError(f"{', '.join(unfit)}: not for shards")
    if pictures := [path for path in paths if not isinstance(path, str)]:
        raise click.UsageError(
            f"{one_line(str(pictures[0]))} is not a shard: encode pictures and shards by separate commands"
        )
    if output in (None, STREAM):
        raise click.UsageError("where to? Give -o FOLDER or -o URL")
    try:
        run = on_ray(address) if engine == "ray" else None
        shards = Shards(
            [str(path) for path in paths], str(output), ShardOptions(recipe, jobs, on_error, column)
        )
    except ValueError as error:
        raise click.UsageError(one_line(str(error))) from None
    counts = {"done": 0, "before": 0, "failed": 0}
    is_shown, page = sys.stderr.isatty(), RunReport()
    if run is None:
        run = partial(here, on_picture=partial(_note, page, recipe.quality)) if report else here
    try:
        with (
            warnings.catch_warnings(),
            progress(len(shards), "shards", is_shown=is_shown) as bar,
        ):
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            for shard in shards.run(run):
                counts[shard.status] += 1
                for line in _lines(shard):
                    bar.write(one_line(line), file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        done = counts["done"] + counts["before"]
        click.echo(
            f"interrupted: {done} of {len(shards)} shards done; the same command goes on from here", err=True
        )
        raise SystemExit(130) from None
    click.echo(json.dumps(shards.summary) if as_json else _summary(shards.summary))
    if report:
        facts = [("Shards", f"{counts['done']:,} done, {counts['failed']:,} failed")]
        facts += [("Shards done by an earlier run, not shown here", f"{counts['before']:,}")]
        write_report(page, report, recipe, shards.summary["seconds"], facts)
    raise SystemExit(1 if counts["failed"] or shards.summary["failed"] else 0)


def _note(page: "RunReport", quality: float, name: str, result: "Result", content: bytes) -> None:
    page.add(name, result, quality, content)


def write_report(
    page: "RunReport",
    path: Path,
    recipe: "FileOptions",
    seconds: float,
    facts: Iterable[tuple[str, Any]] = (),
) -> None:
    from dnnjpeg.files.atomic import write_atomic

    rows = [*facts, ("Table", recipe.table.name), ("Seconds", f"{seconds:.1f}")]
    write_atomic(path, page.html(rows).encode())


def _lines(shard: Any) -> list[str]:
    if shard.status == "failed":
        return [f"{shard.source}: {shard.reason}"]
    if shard.status == "before":
        return []
    record = shard.record
    lines = [f"{shard.source}: {one['member']}: {one['reason']}" for one in record["failures"]]
    if (rest := record["failed"] - len(lines)) > 0:
        lines.append(f"{shard.source}: {rest:,} more pictures failed")
    if record["duplicates"]:
        lines.append(
            f"{shard.source}: warning: {record['duplicates']:,} members have the name of another one"
        )
    return lines


def _summary(found: dict[str, Any]) -> str:
    shards = found["shards"]
    counts = [f"shards: {shards['done']:,} done"]
    counts += [f"{shards['before']:,} done before"] if shards["before"] else []
    counts += [f"{shards['failed']:,} failed"]
    text = (
        f"{', '.join(counts)} in {found['seconds']:.1f} s: {found['encoded']:,} pictures encoded, "
        f"{found['copied']:,} copied as they were, {found['failed']:,} failed"
    )
    text += f", {found['dropped']:,} samples dropped" if found["dropped"] else ""
    if found["bytes_before"]:
        change = 100 * (found["bytes_after"] / found["bytes_before"] - 1)
        text += f"\n{found['bytes_before']:,} -> {found['bytes_after']:,} bytes of pictures ({change:+.1f} %)"
    return text
