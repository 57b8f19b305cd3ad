"""Encode one picture file: read it, encode it, write it."""

import io
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dnnjpeg.files.atomic import AtomicWrites, make_folder, write_atomic
from dnnjpeg.files.images import JPEG_EXTENSIONS, Picture, open_picture
from dnnjpeg.jobs.made import Made, made_before
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.jpeg.segments import is_jpeg
from dnnjpeg.options import Metadata

if TYPE_CHECKING:
    from dnnjpeg.target.target import Encoded
    from dnnjpeg.transcoder import Decoded

Value = TypeVar("Value")


@dataclass(frozen=True)
class Opened:
    """A picture that is read and not yet written.

    bytes_before: the size of the source. data: the new file, once it is made. found: how a file with a target
    was made, without its bytes.
    """

    task: FileTask
    picture: "Picture | Decoded | Made"
    bytes_before: int
    data: bytes = b""
    found: "Encoded | None" = None

    @property
    def source(self) -> Path:
        return self.task.source

    @property
    def in_place(self) -> bool:
        return self.task.destination == self.task.source

    @property
    def is_jpeg(self) -> bool:
        return not isinstance(self.picture, Picture) or self.picture.format in ("JPEG", "MPO")

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.image.size if isinstance(self.picture, Picture) else self.picture.size


def _step(do: Callable[..., Value]) -> Callable[..., Value | Result]:
    """Make a step of encoding that never raises: any error becomes a failed result, and the run goes on.

    If the step before has ended with a result, the step returns this result.
    """

    @wraps(do)
    def step(item: Any, recipe: FileOptions, **how: Any) -> Value | Result:
        if isinstance(item, Result):
            return item
        try:
            return do(item, recipe, **how)
        except Exception as error:
            return Result(item.source, "failed", describe(error, item.source))

    return step


def encode_files(tasks: Sequence[FileTask | Result], recipe: FileOptions) -> list[Result]:
    """Carry out tasks. If something goes wrong with one, its result says why."""
    with AtomicWrites(fsync=recipe.fsync) as writes:
        results = [
            write_opened(_encode(read_task(task, recipe), recipe), recipe, writes=writes) for task in tasks
        ]
        errors = writes.finish()
    return [_finished(*pair, errors) for pair in zip(tasks, results, strict=True)] if errors else results


def _finished(task: FileTask | Result, result: Result, errors: Mapping[Path, OSError]) -> Result:
    """The result of a task, after the errors of writing are known."""
    error = errors.get(task.destination) if isinstance(task, FileTask) and task.destination else None
    return Result(result.source, "failed", describe(error, result.source)) if error else result


@_step
def read_task(task: FileTask, recipe: FileOptions) -> Opened:
    """Read the picture of a task: the coefficients of a JPEG file, or pixels."""
    found = task.source.stat() if task.content is None else None
    bytes_before = found.st_size if found else len(task.content or b"")
    if (decoded := _from_jpeg(task, recipe, found)) is not None:
        return Opened(task, decoded, bytes_before)
    source = task.source if task.content is None else io.BytesIO(task.content)
    picture = open_picture(source, metadata=recipe.metadata, background=recipe.background)
    if "comment" in picture.metadata:
        from dnnjpeg.jpeg.signature import bare_comment

        picture.metadata["comment"] = bare_comment(picture.metadata["comment"])
    opened = Opened(task, picture, bytes_before)
    if opened.in_place and picture.format != "JPEG":
        raise ValueError(f"is {picture.format}, and only JPEG is replaced in place: give an output folder")
    if opened.in_place and not picture.lone:
        raise ValueError("holds further pictures, which would be lost: give an output folder")
    return opened


def _from_jpeg(task: FileTask, recipe: FileOptions, found: os.stat_result | None) -> "Decoded | Made | None":
    """Read a JPEG source: as a file that an earlier run has made, or as its coefficients.

    found: what the system says of the source, if it is a file.

    None for other pictures, and if the recipe needs pixels.
    """
    from dnnjpeg.transcoder import Decoded, Unsupported

    if found is None:
        data = task.content or b""
    elif stat.S_ISREG(found.st_mode):
        data = _start_of(task.source, found.st_size)
    else:
        return None
    if not is_jpeg(data):
        return None
    if (made := made_before(data, recipe)) is not None:
        return made
    if recipe.pixels or recipe.target.get("prune"):
        return None
    try:
        decoded = Decoded.read(data, salvage=recipe.salvage, later=recipe.decodes_once)
    except Unsupported:
        return None
    if recipe.metadata == "keep":
        return decoded
    return decoded if decoded.orientation == 1 else None


def _start_of(path: Path, size: int) -> bytes:
    """A whole JPEG file, or the first bytes of another one. size: of the file, as far as is known."""
    is_named_so = path.suffix.lower() in JPEG_EXTENSIONS
    with path.open("rb", buffering=0) as file:
        data = file.read(max(size + 1, 3) if is_named_so else 3) or b""
        if is_jpeg(data) and not (is_named_so and len(data) == size):
            data += file.readall()
    return data


@_step
def _encode(opened: Opened, recipe: FileOptions) -> Opened:
    from dnnjpeg.codec.pixels import as_pixels
    from dnnjpeg.encoder import encode_pixels

    picture = opened.picture
    if isinstance(picture, Made):
        return replace(opened, data=picture.data)
    if not isinstance(picture, Picture):
        strip = recipe.metadata == "strip"
        data = picture.transcode(
            recipe.table,
            recipe.quality,
            recipe.options,
            strip=strip,
            only_if_smaller=recipe.only_if_smaller is not False,
        )
        return replace(opened, data=data)
    metadata = Metadata(**picture.metadata)
    pixels = as_pixels(picture.image, None)
    data = encode_pixels(pixels, recipe.table, recipe.quality, recipe.options, metadata, recipe.threads)
    return replace(opened, data=data)


@_step
def write_opened(opened: Opened, recipe: FileOptions, *, writes: AtomicWrites | None = None) -> Result:
    """Write the new file, or copy the source if the new file must be smaller and is not.

    writes: what the new file is written with. The caller finishes it. None writes the file at once.
    """
    from dnnjpeg.codec.frame import beyond_decoders

    task, data = opened.task, opened.data
    status: Literal["encoded", "copied"] = "encoded"
    if _must_shrink(opened, recipe) and len(data) >= opened.bytes_before:
        if not opened.is_jpeg:
            return Result(task.source, "skipped", "is smaller than its JPEG")
        status = "copied"
        data = task.source.read_bytes() if task.content is None else task.content
    elif not isinstance(opened.picture, Picture) and data == opened.picture.data:
        status = "copied"
    if task.destination is not None and not recipe.dry_run and not (opened.in_place and status == "copied"):
        write = writes.begin if writes is not None else partial(write_atomic, fsync=recipe.fsync)
        try:
            write(task.destination, data)
        except FileNotFoundError:
            make_folder(task.destination.parent, fsync=recipe.fsync)
            write(task.destination, data)
    width, height = opened.size
    return Result(
        task.source,
        status,
        pixels=width * height,
        bytes_before=opened.bytes_before,
        bytes_after=len(data),
        data=data if task.destination is None else None,
        found=opened.found if status == "encoded" else None,
        warning=beyond_decoders(width, height) if status == "encoded" else "",
        transcoded=status == "encoded" and not isinstance(opened.picture, Picture),
    )


def _must_shrink(opened: Opened, recipe: FileOptions) -> bool:
    """Whether the new file must be smaller than its source.

    By default it must, if the source can be copied in its place: an undamaged JPEG, with its metadata.
    """
    if recipe.only_if_smaller is not None:
        return recipe.only_if_smaller
    is_damaged = not isinstance(opened.picture, Picture | Made) and not opened.picture.whole
    return opened.is_jpeg and recipe.metadata == "keep" and not is_damaged


def taken(opened: Opened, file: "Encoded", recipe: FileOptions) -> Opened | Result:
    """The picture with its file of `encode_to_target`, or a failed result if the file misses the target."""
    if file.met:
        data, picture = file.data, opened.picture
        may_stay = recipe.metadata == "strip" and recipe.only_if_smaller is not False
        if may_stay and not isinstance(picture, Picture | Made) and picture.whole:
            is_ours = picture.signature is not None and not picture.has_metadata
            data = min(picture.data if is_ours else picture.bare(), data, key=len)
        return replace(opened, data=data, found=replace(file, data=b""))
    missed = "is read differently even at" if "keep" in recipe.target else "is too large even at"
    return Result(opened.source, "failed", f"{missed} quality {file.quality:g}, {len(file.data):,} bytes")


def describe(error: Exception, source: Path) -> str:
    """An error as text for a line that begins with the name of the source."""
    if isinstance(error, OSError) and error.strerror:
        elsewhere = error.filename is not None and os.fspath(error.filename) != os.fspath(source)
        return f"{error.strerror}: {error.filename}" if elsewhere else error.strerror
    if isinstance(error, OSError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")
