"""From the arguments of `dnnjpeg encode` to the options of files, and to the plan."""

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line

from .paths import read_stdin
from .target import target

if TYPE_CHECKING:
    from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result

STREAM = Path("-")  # standard input, standard output


def is_single(paths: tuple[Path, ...]) -> bool:
    return len(paths) == 1 and not paths[0].is_dir()


def begins_as_jpeg(task: "FileTask | Result") -> bool:
    from dnnjpeg.files.images import JPEG_EXTENSIONS
    from dnnjpeg.jpeg.segments import is_jpeg

    content = getattr(task, "content", None)
    return is_jpeg(content) if content else task.source.suffix.lower() in JPEG_EXTENSIONS


def file_options(
    *,
    model: str | None,
    table: str | None,
    quality: float | None,
    scans: str | None,
    strip: bool,
    background: Any,
    only_if_smaller: str | None,
    dry_run: bool,
    fsync: bool,
    pixels: bool,
    salvage: bool,
    pictures: int,
    **options: Any,
) -> "FileOptions":
    """The options of files that the arguments ask for, with loaded table and networks.

    pictures: threads for each picture. options: the arguments of `target`, and those of `EncodeOptions`.

    Raises click.UsageError.
    """
    from dnnjpeg.jobs.tasks import FileOptions
    from dnnjpeg.options import EncodeOptions
    from dnnjpeg.table.library import chosen_table, load_table, table_for

    if only_if_smaller == "yes" and strip:
        raise click.UsageError("--only-if-smaller may copy a source with its metadata, which --strip forbids")
    options["adaptive"] = {None: False, "bits": True}.get(options["adaptive"], "read")
    options["progressive"] = {None: False, "baseline": False, "progressive": True}.get(scans, "auto")
    aimed = {name: options.pop(name) for name in signature(target).parameters}
    for name, value in (("--quality", quality), ("--adaptive", options["adaptive"])):
        if value and (aimed["keep"] or aimed["target_bytes"] or aimed["target_bpp"]):
            raise click.UsageError(f"with a target, each picture gets its own quality: leave out {name}")
    aim = target(**aimed)
    if pixels and salvage:
        raise click.UsageError("--salvage reads coefficients, and --pixels does not: give one of them")
    readers = aim.get("networks", ())
    try:
        encode_options = EncodeOptions(**options)
        chosen = chosen_table(table, model)
        if table is None and model is None and readers:
            chosen = table_for(network.digest for network in readers)
        loaded = load_table(chosen)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    return FileOptions(
        loaded,
        quality or 75,
        encode_options,
        pictures,
        aim,
        pixels,
        salvage,
        "strip" if strip else "keep",
        background,
        None if only_if_smaller is None else only_if_smaller == "yes",
        dry_run,
        fsync,
    )


def plan_of(
    paths: tuple[Path, ...],
    output: Path | None,
    in_place: bool,
    recursive: bool,
    skip_existing: bool,
    keep_tree: bool,
) -> Callable[["FileOptions"], Iterator["FileTask | Result"]]:
    """A function from the options of files to the plan that the arguments ask for. Each call begins anew.

    Raises click.UsageError.
    """
    from dnnjpeg.files.images import EXTENSIONS, JPEG_EXTENSIONS
    from dnnjpeg.jobs.destinations import plan
    from dnnjpeg.jobs.made import is_done
    from dnnjpeg.jobs.tasks import FileTask, Result

    if in_place:
        if output or skip_existing or keep_tree or STREAM in paths:
            raise click.UsageError(
                "--in-place takes files and folders, and no --output, --skip-existing or --keep-tree"
            )
        return lambda _: plan(paths, None, recursive=recursive)
    if output is None:
        raise click.UsageError("where to? Give -o FOLDER, or for one picture -o FILE.jpg, or --in-place")
    is_picture = output.suffix.lower() in EXTENSIONS
    if output.is_dir() or not (is_picture or output.exists() or output == STREAM):
        if STREAM in paths:
            raise click.UsageError("standard input has no name: give -o FILE.jpg, or -o -")

        def plan_folder(recipe: "FileOptions") -> Iterator["FileTask | Result"]:
            skip = partial(is_done, recipe=recipe) if skip_existing else None
            return plan(paths, output, recursive=recursive, is_done=skip, keep_tree=keep_tree)

        return plan_folder
    if keep_tree:
        raise click.UsageError("--keep-tree keeps folders: give a folder with -o")
    name = one_line(str(output))
    if is_picture and output.suffix.lower() not in JPEG_EXTENSIONS:
        raise click.UsageError(f"-o {name}: expected a folder, or a name that ends in .jpg")
    if not is_single(paths):
        raise click.UsageError(f"-o {name} holds one picture: give a folder for several")
    source = paths[0]
    if STREAM not in (source, output) and output.exists() and output.samefile(source):
        raise click.UsageError(f"-o {name} is the source: use --in-place")
    content = read_stdin() if source == STREAM else None

    def plan_file(recipe: "FileOptions") -> Iterator["FileTask | Result"]:
        if skip_existing and content is None and output.exists() and is_done(source, output, recipe):
            yield Result(source, "skipped", f"{output} is there already")
        else:
            yield FileTask(source, None if output == STREAM else output, content)

    return plan_file
