"""Which file is encoded, and where to."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dnnjpeg.files.images import EXTENSIONS, JPEG_EXTENSIONS, walk
from dnnjpeg.jobs.file import describe
from dnnjpeg.jobs.tasks import Result, Task


def plan(
    paths: Sequence[Path],
    output: Path | None,
    *,
    recursive: bool = True,
    is_done: Callable[[Path, Path], bool] | None = None,
    keep_tree: bool = False,
) -> Iterator[Task | Result]:
    """A task for each picture of `paths`, files or folders, in order; a result for one not to be encoded.

    Under the folder `output` a file's name or, for a folder, the path below that folder is kept; a name that
    does not say JPEG gets .jpg. Two pictures that would become one file: the second fails; one named twice is
    taken once. If the output file exists, it is replaced, or the picture is skipped if `is_done(source,
    output)` is true. If the output file lies in a folder of `paths`, or beside a file of `paths`, it may be a
    source itself: then the picture fails.

    With `keep_tree`, the path below the current folder is kept; if any of `paths` lies elsewhere, the path
    below the deepest folder that holds all of them.

    Without `output` every file is its own target. Of folders only JPEG files are taken then, without
        following links.
    """
    among_sources = _guard(paths, output)
    root = _root(paths) if keep_tree else None
    claimed: dict[str, str] = {}  # by real target, the real source
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
            real = os.path.realpath(target)
            origin = os.path.realpath(source)
            if real in claimed:
                if claimed[real] != origin:
                    are_apart = Path(claimed[real]).parent != Path(origin).parent
                    hint = ", or keep their folders (--keep-tree)" if are_apart and not keep_tree else ""
                    yield Result(
                        source, "failed", f"{target} is made from another picture: rename one of them{hint}"
                    )
                continue
            claimed[real] = origin
            if output is not None and target.exists():
                if is_done is not None and _says(is_done, source, target):
                    yield Result(source, "skipped", f"{target} is there already")
                    continue
                if among_sources(real):
                    yield Result(
                        source, "failed", f"{target} exists among the sources: choose another folder"
                    )
                    continue
            yield Task(source, target)
        for error in unreadable:
            folder = Path(error.filename)
            yield Result(folder, "failed", describe(error, folder))


def _says(is_done: Callable[[Path, Path], bool], source: Path, target: Path) -> bool:
    try:
        return is_done(source, target)
    except OSError:  # the task meets it again, and reports it
        return False


def _root(paths: Sequence[Path]) -> Path:
    """The folder below which trees are kept: the current one, or what holds all paths."""
    places = [_absolute(path if path.is_dir() else path.parent) for path in paths]
    here = Path.cwd()
    return (
        here if all(here in (place, *place.parents) for place in places) else Path(os.path.commonpath(places))
    )


def _absolute(path: Path) -> Path:
    """Without .., and without following links: names are kept as they were given."""
    return Path(os.path.normpath(path.absolute()))


def _below(source: Path, path: Path, root: Path | None) -> Path:
    """What is kept of a source's path; `path` is the one that was named, the source or a folder above it."""
    if root is not None:
        return _absolute(source).relative_to(root)
    return source.relative_to(path) if path.is_dir() else Path(source.name)


def jpeg_name(path: Path) -> Path:
    """`path` with .jpg for its picture extension; unchanged where it has one of JPEG."""
    extension = path.suffix.lower()
    if extension in JPEG_EXTENSIONS:
        return path
    return path.with_suffix(".jpg") if extension in EXTENSIONS else path.with_name(path.name + ".jpg")


def _guard(paths: Sequence[Path], output: Path | None) -> Callable[[str], bool]:
    """Whether a real path lies where sources do. An output folder inside a source folder is not walked."""
    out = Path(os.path.realpath(output)) if output is not None else None
    trees = [Path(os.path.realpath(path)) for path in paths if path.is_dir()]
    trees = [tree for tree in trees if out is None or tree not in out.parents]
    folders = {Path(os.path.realpath(path)).parent for path in paths if not path.is_dir()}

    def among_sources(real: str) -> bool:
        parents = Path(real).parents
        return parents[0] in folders or any(tree in parents for tree in trees)

    return among_sources
