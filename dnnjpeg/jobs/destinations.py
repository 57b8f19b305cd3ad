"""The plan of a run: which files are encoded, and where the new files go."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dnnjpeg.files.images import EXTENSIONS, JPEG_EXTENSIONS, walk
from dnnjpeg.files.paths import RealPaths, exists
from dnnjpeg.jobs.file import describe
from dnnjpeg.jobs.tasks import FileTask, Result


def plan(
    paths: Sequence[Path],
    output: Path | None,
    *,
    recursive: bool = True,
    is_done: Callable[[Path, Path], bool] | None = None,
    keep_tree: bool = False,
) -> Iterator[FileTask | Result]:
    """Yield a task for each picture, or a result for a picture that is not encoded.

    paths: picture files, and folders of them. Pictures come in this order. A picture that is named twice is
        encoded once.
    output: the folder for the new files. A file keeps its name, and a file of a folder keeps its path below
        this folder. The extension becomes .jpg, unless it is one of JPEG files. None: each file is replaced
        in place. Then folders are searched for JPEG files only, and links are not followed.
    recursive: enter subfolders.
    is_done: called as is_done(source, output) if the output file exists. If it returns True, the picture is
        skipped. Otherwise the output file is replaced.
    keep_tree: a file keeps its path below the current folder. If any of `paths` lies elsewhere, it keeps its
        path below the deepest folder that holds all of them.

    A picture fails if its output file is that of an earlier picture. It also fails if its output file exists
    in a folder of `paths`, or beside a file of `paths`, because that file may be a source.
    """
    among_sources = _guard(paths, output)
    root = _root(paths) if keep_tree else None
    real_path = RealPaths()
    claimed: dict[str, str] = {}  # from the real path of an output file to that of its source
    for path in paths:
        unreadable: list[OSError] = []
        sources: Iterable[Path] = (path,)
        if path.is_dir():
            extensions, links = (JPEG_EXTENSIONS, False) if output is None else (EXTENSIONS, True)
            sources = walk(
                path,
                extensions=extensions,
                recursive=recursive,
                follow_links=links,
                skip=output,
                on_error=unreadable.append,
            )
        for source in sources:
            target = source
            if output is not None:
                target = output / jpeg_name(_below(source, path, root))
            real, origin = real_path(target), real_path(source)
            if real in claimed:
                if claimed[real] != origin:
                    are_apart = Path(claimed[real]).parent != Path(origin).parent
                    hint = ", or keep their folders (--keep-tree)" if are_apart and not keep_tree else ""
                    yield Result(
                        source, "failed", f"{target} is made from another picture: rename one of them{hint}"
                    )
                continue
            claimed[real] = origin
            if output is not None and exists(target):
                if is_done is not None and _says(is_done, source, target):
                    yield Result(source, "skipped", f"{target} is there already")
                    continue
                if among_sources(real):
                    yield Result(
                        source, "failed", f"{target} exists among the sources: choose another folder"
                    )
                    continue
            yield FileTask(source, target)
        for error in unreadable:
            folder = Path(error.filename)
            yield Result(folder, "failed", describe(error, folder))


def _says(is_done: Callable[[Path, Path], bool], source: Path, target: Path) -> bool:
    try:
        return is_done(source, target)
    except OSError:  # the task gets the same error, and reports it
        return False


def _root(paths: Sequence[Path]) -> Path:
    """The folder below which files keep their paths, see `keep_tree` of `plan`."""
    places = [_absolute(path if path.is_dir() else path.parent) for path in paths]
    here = Path.cwd()
    return (
        here if all(here in (place, *place.parents) for place in places) else Path(os.path.commonpath(places))
    )


def _absolute(path: Path) -> Path:
    """The absolute path without "..". Links are not followed, so names stay as they were given."""
    return Path(os.path.normpath(path.absolute()))


def _below(source: Path, path: Path, root: Path | None) -> Path:
    """The path that a source keeps in the output folder.

    path: the path that the user named: the source, or a folder above it.
    root: the result of `_root`, or None without `keep_tree`.
    """
    if root is not None:
        return _absolute(source).relative_to(root)
    return source.relative_to(path) if path.is_dir() else Path(source.name)


def jpeg_name(path: Path) -> Path:
    """The path with the extension .jpg in place of that of a picture. An extension of JPEG files stays."""
    extension = path.suffix.lower()
    if extension in JPEG_EXTENSIONS:
        return path
    return path.with_suffix(".jpg") if extension in EXTENSIONS else path.with_name(path.name + ".jpg")


def _guard(paths: Sequence[Path], output: Path | None) -> Callable[[str], bool]:
    """Make a function that says whether a real path lies in a folder of sources.

    A folder of sources that holds the output folder does not count, because `walk` skips the output folder.
    """
    out = Path(os.path.realpath(output)) if output is not None else None
    trees = [Path(os.path.realpath(path)) for path in paths if path.is_dir()]
    trees = [tree for tree in trees if out is None or tree not in out.parents]
    folders = {Path(os.path.realpath(path)).parent for path in paths if not path.is_dir()}

    def among_sources(real: str) -> bool:
        parents = Path(real).parents
        return parents[0] in folders or any(tree in parents for tree in trees)

    return among_sources
