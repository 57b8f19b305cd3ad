"""Names of shards: braces, globs, and the kind of a shard."""

import re
from itertools import product

TAR, PARQUET = ".tar", ".parquet"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MANY = 1_000_000  # the most shards that one pattern may name


def kind_of(name: str) -> str | None:
    """The kind of a shard by the end of its name or pattern: `TAR`, `PARQUET`, or None."""
    lower = name.lower()
    return next((kind for kind in (TAR, PARQUET) if lower.endswith(kind)), None)


def is_url(name: str) -> bool:
    return "://" in name


def name_of(path: str) -> str:
    """The last part of a path or URL."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def expand(pattern: str) -> list[str]:
    """Expand the braces of a pattern. {000..099} stands for a hundred numbers, {train,val} for two words.

    Raises ValueError if braces hold anything else.
    """
    parts: list[list[str]] = []
    end = count = 0
    for found in _BRACES.finditer(pattern):
        choices = _choices(found[1], pattern)
        parts += [[pattern[end : found.start()]], choices]
        end, count = found.end(), (count or 1) * len(choices)
        if count > _MANY:
            raise ValueError(f"{pattern} names more than {_MANY:,} shards")
    return ["".join(names) for names in product(*parts, [pattern[end:]])]


def _choices(text: str, pattern: str) -> list[str]:
    if found := _RANGE.fullmatch(text):
        first, last = int(found[1]), int(found[2])
        if last < first or last - first >= _MANY:
            raise ValueError(f"{pattern}: {{{text}}} counts down or too far, expected as {{000..099}}")
        width = len(found[1]) if found[1].startswith("0") else 0
        return [f"{i:0{width}}" for i in range(first, last + 1)]
    if "," not in text:
        raise ValueError(f"{pattern}: {{{text}}} is not a range, expected as {{000..099}} or {{train,val}}")
    return text.split(",")


def has_glob(name: str) -> bool:
    return any(character in name for character in "*?[")
