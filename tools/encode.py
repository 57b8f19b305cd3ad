"""`dnnjpeg encode`: picture files and folders of them to JPEG files."""

import sys
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line
from dnnjpeg.machine.processors import processors
from dnnjpeg.machine.startup import load_numba, no_collection, one_thread

from .encode_plan import STREAM, begins_as_jpeg, file_options, is_single, plan_of
from .encode_run import run  # mypy does not know the way by dnnjpeg.tools
from .options import (
    check_folders,
    json_option,
    seed_option,
    subsampling_option,
    table_option,
)
from .paths import NamedPath, OutputPath, SourcePath, flat
from .shards import encode_shards
from .target import target_options

if TYPE_CHECKING:
    from dnnjpeg.jobs.tasks import FileOptions


def _colour(_context: click.Context, _parameter: click.Parameter, name: str | None) -> Any:
    from PIL import ImageColor

    try:
        return None if name is None else ImageColor.getcolor(name, "RGB")
    except ValueError:
        raise click.BadParameter(f"{name!r} is not a colour, expected a name or #rrggbb") from None


# fmt: off
@click.command(short_help="Encode pictures as JPEG files that any decoder reads.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True,
                type=SourcePath(), callback=flat)
@click.option("-o", "--output", metavar="DIR|FILE.jpg|-", type=OutputPath(allow_dash=True),
              help="Folder for the JPEG files; it is made if it is missing. For one picture, also a file "
                   "name, or - for standard output. For shards, also a URL.")
@click.option("--in-place", is_flag=True,
              help="Replace the JPEG files themselves, each in one step. Only the name gets the new file: "
                   "other hard links keep the old one.")
@click.option("--model", metavar="NAME",
              help="The installed table that was made for this model, see `dnnjpeg tables list`.")
@table_option(help="An installed table, or one from a file. Default: universal, or the installed table that "
                   "was learned for the networks of --network.")
@click.option("--quality", type=click.FloatRange(1, 100),
              help="Quality 1 to 100: the network loses about as much as with a standard JPEG of this "
                   "quality.  [default: 75]")
@click.option("--adaptive", "adaptive", flag_value="bits",
              help="Complex pictures get a lower quality, simple ones a higher one; --quality is the "
                   "average. Networks read the pictures a little better, for the same bytes in all.")
@click.option("--adaptive-read", "adaptive", flag_value="read",
              help="As --adaptive, and pictures that are hard to read get a higher quality, too. A "
                   "small classifier finds them: pip install 'dnnjpeg[reader]'.")
@target_options
@subsampling_option(help="Chroma subsampling. Default: the table's, or with --network the better of 4:2:0 "
                         "and 4:4:4.")
@click.option("--hardness", type=click.FloatRange(0.01),
              help="Hardness of the probabilistic quantizer, in place of the table's. With a larger one, "
                   "more coefficients get the nearest index; with inf, all do.")
@seed_option(help="Seed of the probabilistic quantizer.")
@click.option("--baseline", "scans", flag_value="baseline", help="One scan.  [default]")
@click.option("--progressive", "scans", flag_value="progressive", help="Several scans, from coarse to fine.")
@click.option("--progressive-auto", "scans", flag_value="auto", help="The smaller of the two.")
@click.option("--signature/--no-signature", default=True, show_default=True,
              help="Write a small segment that names the table and the quality. With --network, also write a "
                   "comment that names the networks and the criterion.")
@click.option("--strip", is_flag=True,
              help="Drop EXIF, XMP, comment, resolution and an sRGB profile. The pixels are turned as the "
                   "EXIF orientation says; other ICC profiles stay.")
@click.option("--background", metavar="COLOUR", callback=_colour,
              help="Colour under transparent pixels: a name or #rrggbb. Without it, transparent pictures are "
                   "refused.")
@click.option("--pixels", is_flag=True,
              help="Decode JPEG sources to pixels, and encode these. By default their own coefficients are "
                   "used: nothing is rounded twice, and no file becomes larger.")
@click.option("--salvage", is_flag=True,
              help="Read damaged JPEG sources as far as they go, and fill the rest with grey. By default "
                   "they are refused.")
@click.option("--recursive/--no-recursive", default=True, show_default=True, help="Enter subfolders.")
@click.option("--keep-tree", is_flag=True,
              help="Keep the folders that PATH names, too: photos/0 becomes out/photos/0. For folders with "
                   "files of the same names. Files keep their path below the current folder. If a PATH lies "
                   "elsewhere, they keep their path below the folder that holds all PATHs.")
@click.option("--skip-existing", is_flag=True,
              help="Skip pictures whose output file was made by the same table and quality, or is within the "
                   "target, for example after an interrupted run.")
@click.option("--only-if-smaller", "only_if_smaller", flag_value="yes",
              help="Skip pictures of other formats too if the new file is not smaller. A JPEG source is "
                   "copied then, which is the default.")
@click.option("--always", "only_if_smaller", flag_value="no",
              help="Write the new file even if it is larger than its JPEG source.")
@click.option("--on-error", type=click.Choice(["keep", "drop", "fail"]), default=None,
              help="Pictures of shards that cannot be encoded: keep them as they are, drop their sample or "
                   "row, or fail the shard.  [default: keep]")
@click.option("--column", metavar="NAME",
              help="The column of Parquet shards that holds the pictures. Default: each struct of bytes and "
                   "path, as Hugging Face has it.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@click.option("--fsync/--no-fsync", default=True, show_default=True,
              help="Wait until each file is on the disk, so that it survives a power loss.")
@click.option("--jobs", type=click.IntRange(1, 1024), default=processors, show_default="processors",
              help="Pictures at a time.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Where shards are made: on this machine, or on a Ray cluster, one task a shard.")
@click.option("--address", metavar="HOST:PORT",
              help="The Ray cluster. Default: what RAY_ADDRESS says, or this machine alone.")
@click.option("--report", metavar="FILE.html", type=NamedPath(dir_okay=False),
              help="Write a page about the run: bytes, histograms, the pictures that shrank most and least, "
                   "failures. It loads nothing from elsewhere.")
@json_option(help="Print the summary as a JSON object.")
def encode(
    paths: tuple[Any, ...],  # a shard or URL is a string
    output: Any,
    in_place: bool,
    recursive: bool,
    keep_tree: bool,
    skip_existing: bool,
    on_error: Any,
    column: str | None,
    jobs: int,
    report: Path | None,
    engine: str,
    address: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Encode pictures as JPEG files that any decoder reads.

    PATH is a picture file, a folder of pictures, - for standard input, shards, or @LIST: a text file with one
    PATH a line. Files in the output folder have the names of their sources, with the extension .jpg, and the
    same tree of folders. If two pictures would get one name, the second is refused; --keep-tree keeps them
    apart. No source is overwritten, except with --in-place. Other files in the output folder are replaced. A
    JPEG file never grows: if the new file is not smaller, the source is copied. A file that the same table
    and quality have made stays as it is. A killed run leaves whole files, old or new. The next run removes
    its temporary files once they are a minute old.

    Shards end in .tar or .parquet. A shard may be a URL (s3://, gs://, hf://, ...) and have globs and braces:
    's3://bucket/{000..099}.tar'. Their JPEG files are made smaller, and all else is copied. The folder
    _dnnjpeg in the output says which shards are done: the same command goes on after any interruption.

    With --network, a picture fails if the networks read it differently in every file that was tried. With
    --target-bytes or --target-bpp, a picture fails if its file is too large at quality 1. Nothing is written
    for a picture that fails.

    16-bit grey is scaled to 8 bits, palettes become RGB, opaque alpha is dropped. Transparent and animated
    pictures, and pixels that JPEG cannot hold, are refused with one line each; the run goes on.

    Ctrl-C ends a run after the pictures at hand. Files that are written stay, and are whole. The same command
    with --skip-existing goes on from there.

    Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 nothing to do, 130 interrupted (143: terminated).
    """
    one_thread()
    if report and report.parent != output:  # the output folder is made
        check_folders(report)
    if any(isinstance(path, str) for path in (*paths, output)):
        others = {"--in-place": in_place, "--keep-tree": keep_tree, "--skip-existing": skip_existing}
        unfit = [name for name, is_given in others.items() if is_given]
        encode_shards(
            paths, output, jobs, on_error or "keep", column, as_json, unfit, _prepared(how), report, engine,
            address,
        )  # fmt: skip
        return
    if on_error or column or address or engine == "ray":
        raise click.UsageError(
            "--on-error, --column, --engine and --address are for shards, whose names end in .tar or .parquet"
        )
    if paths == (STREAM,) and output is None and not in_place:
        output = STREAM
    to_stream = output == STREAM
    if to_stream and (as_json or sys.stdout.buffer.isatty()):
        raise click.UsageError(
            "the JPEG file goes to standard output: send it to a file or a pipe, and leave out --json"
        )
    with no_collection():
        tasks = plan_of(paths, output, in_place, recursive, skip_existing, keep_tree)
        recipe = file_options(**how, pictures=jobs if is_single(paths) else 1)
        todo = tasks(recipe)
        first = next(todo, None)
        if first is None:
            kind = "JPEG files" if in_place else "pictures"
            click.echo(f"no {kind} in {one_line(', '.join(map(str, paths)))}", err=True)
            raise SystemExit(3)
        _prepare(recipe, begins_as_jpeg(first), is_single(paths))

    skips = "" if skip_existing or in_place else " with --skip-existing"
    hint = "" if to_stream else f"; the same command{skips} goes on from here"
    run(chain([first], todo), partial(tasks, recipe), recipe, jobs, report, as_json, to_stream, hint)
# fmt: on


def _prepared(how: dict[str, Any]) -> "FileOptions":
    with no_collection():
        recipe = file_options(**how, pictures=1)
        _prepare(recipe, True, False)
    return recipe


def _prepare(recipe: "FileOptions", from_jpeg: bool, single: bool) -> None:
    """Compile the codec if necessary, and try the options on a small picture, so that errors come early.

    from_jpeg: whether the first source is a JPEG file. Then the reader of coefficients is compiled, too.
    single: whether it is the only source. Then only what it needs is compiled.

    Raises click.UsageError for wrong options.
    """
    load_numba()
    from PIL import Image

    from dnnjpeg import encoder, transcoder

    reads_coefficients = from_jpeg and not recipe.pixels
    takes_pixels = not (reads_coefficients and single)
    is_cold = reads_coefficients and not transcoder.is_warm()
    if is_cold or (takes_pixels and not encoder.is_warm()):
        click.echo("compiling the codec for this processor, once: some seconds", err=True)
    try:
        picture = Image.new("RGB", (8, 8))
        if takes_pixels:
            encoder.encode(picture, recipe.table, recipe.quality, **vars(recipe.options))
        if reads_coefficients and (single or is_cold):
            for progressive in (False,) if single else (False, True):
                file = BytesIO()
                picture.save(file, "JPEG", progressive=progressive)
                decoded = transcoder.Decoded.read(file.getvalue(), later=recipe.decodes_once)
                decoded.encode(recipe.table, recipe.quality, recipe.options)
                if not single:
                    decoded.recode(b"", recipe.options)  # as files that would not become smaller
        if recipe.target:
            from dnnjpeg.target.target import encode_to_target

            encode_to_target([], recipe.table, **recipe.target, **vars(recipe.options))
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
