"""Tables by name: the standard table, the package's tables, and the user's own."""

import importlib.resources
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from dnnjpeg.checks import brief
from dnnjpeg.jpeg.standard import STANDARD_CHROMA, STANDARD_LUMA, ijg_scale
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

DEFAULT_TABLE = "universal"


@cache
def standard_table() -> Table:
    """The standard table: T.81 Annex K, scaled to qualities 1 to 100 as libjpeg (and so Pillow) does."""
    points = (
        OperatingPoint(q, "4:2:0", ijg_scale(STANDARD_LUMA, q), (ijg_scale(STANDARD_CHROMA, q),))
        for q in range(1, 101)
    )
    return Table("standard", tuple(points), "T.81 Annex K, scaled by quality as libjpeg does")


def user_folder() -> Path:
    """The folder of the user's own tables: DNNJPEG_TABLES if it is set, else the platform's data folder."""
    if folder := os.environ.get("DNNJPEG_TABLES"):
        return Path(folder).expanduser()
    return _data_folder()


@cache
def _data_folder() -> Path:
    import platformdirs

    return platformdirs.user_data_path("dnnjpeg") / "tables"


def list_tables() -> dict[str, Path | None]:
    """The installed tables: a dict from name to file. The built-in standard table has the file None.

    `load_table` takes these names. A shipped table keeps its name: a file of the user's with the same name is
    listed by its path, and is loaded by it.
    """
    found: dict[str, Path | None] = {"standard": None}
    for path in (*_shipped_files().values(), *sorted(user_folder().glob("*.json"))):
        of_name = found.setdefault(path.stem, path)
        if of_name is None or os.path.realpath(of_name) != os.path.realpath(path):
            found[str(path)] = path
    return found


def load_table(name: str | os.PathLike[str]) -> Table:
    """Load a table.

    name: the name of an installed table (see `list_tables`), or a path: it ends in .json, or has a separator.

    The file is read once, and again after it has changed, unless it is a shipped one. Raises ValueError if no
    table has this name, or if the file is not a table. Raises OSError if the file cannot be read.
    """
    if name == "standard":
        return standard_table()
    if type(name) is str and (shipped := _shipped(name)) is not None:
        return shipped
    path = Path(name) if _is_path(name) else _find(str(name), user_folder())
    status = path.stat()
    return _load(path.absolute(), status.st_mtime_ns, status.st_size)


def table_for(digests: Iterable[str]) -> str:
    """The name of the installed table that was learned for these networks and no others, or `DEFAULT_TABLE`.

    digests: the digests of the networks, see `Network`.
    """
    wanted = sorted(digests)
    for name in list_tables():
        with suppress(OSError, ValueError):
            if _learned_for(load_table(name)) == wanted:
                return name
    return DEFAULT_TABLE


def _learned_for(table: Table) -> list[str] | None:
    """The digests of the networks; None if the provenance, which may be anything, does not say so."""
    models = table.provenance.get("models")
    if not isinstance(models, list):
        return None
    weights = [one.get("weights") if isinstance(one, dict) else None for one in models]
    found = [one for one in weights if isinstance(one, str)]
    return sorted(found) if len(found) == len(models) else None


def chosen_table(table: Any, model: str | None) -> Any:
    """The table that a caller has chosen: `table`, or the installed table named `model`, or `DEFAULT_TABLE`.

    Raises ValueError if both are given, or if `model` is a path. Raises TypeError if `model` is no text.
    """
    if model is None:
        return DEFAULT_TABLE if table is None else table
    if table is not None:
        raise ValueError("model and table each choose the quantization tables: give one of them")
    if not isinstance(model, str):
        raise TypeError(f"model is a {type(model).__name__}, expected the name of an installed table")
    if _is_path(model):
        raise ValueError(
            f"model is {brief(model)}, expected the name of an installed table: a path is for table"
        )
    return model


def _is_path(name: str | os.PathLike[str]) -> bool:
    return not isinstance(name, str) or _spells_path(name)


@lru_cache(maxsize=64)
def _spells_path(text: str) -> bool:
    return text.endswith(".json") or Path(text).name != text


@cache
def _shipped_files() -> dict[str, Path]:
    folder = Path(str(importlib.resources.files("dnnjpeg.tables")))
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


@lru_cache(maxsize=64)
def _shipped(name: str) -> Table | None:
    path = _shipped_files().get(name)
    return Table.load(path) if path else None


@lru_cache(maxsize=64)
def _find(name: str, folder: Path) -> Path:
    """The file of an installed table. The result is cached, as each picture asks for it."""
    installed = list_tables()
    path = installed.get(name)
    if path is None:
        raise ValueError(
            f"no table is named {brief(name)}. Installed tables: {', '.join(installed)}. "
            f"Or give the path of a JSON file, or put the file into {folder}"
        )
    return path


@lru_cache(maxsize=64)
def _load(path: Path, mtime_ns: int, size: int) -> Table:
    return Table.load(path)
