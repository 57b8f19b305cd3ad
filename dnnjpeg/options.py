"""The options and metadata of `encode`, checked once. Equal options are equal objects."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from dnnjpeg.checks import brief, check_flag, check_integer, check_items, is_number
from dnnjpeg.jpeg import markers
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

_PILLOW_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True)
class EncodeOptions:
    """The options of `encode` that do not depend on the picture or the table. See `encode` for each.

    Raises ValueError for a value out of range, and for options that exclude each other.
    """

    adaptive: bool | str = False
    hardness: Any = None
    seed: int = 0
    subsampling: Any = None  # kept as a name
    progressive: bool | str = False
    optimize: bool | None = None
    restart_blocks: int = 0
    restart_rows: int = 0
    signature: bool = True
    abbreviated: bool = False

    def __post_init__(self) -> None:
        for name, value in (
            ("adaptive", check_flag(self.adaptive, "adaptive", "read")),
            ("hardness", _hashable(self.hardness)),
            ("seed", check_integer(self.seed, "seed", 0, 2**63 - 1)),
            ("subsampling", None if self.subsampling is None else subsampling_of(self.subsampling)),
            ("progressive", check_flag(self.progressive, "progressive", "auto")),
            ("optimize", check_flag(self.optimize, "optimize", None)),
            ("restart_blocks", check_integer(self.restart_blocks, "restart_blocks", 0, 65535)),
            ("restart_rows", check_integer(self.restart_rows, "restart_rows", 0, 65535)),
            ("signature", check_flag(self.signature, "signature")),
            ("abbreviated", check_flag(self.abbreviated, "abbreviated")),
        ):
            if value is not getattr(self, name):
                object.__setattr__(self, name, value)
        if not self.abbreviated:
            return
        if self.adaptive:
            raise ValueError("adaptive gives each picture its own tables, abbreviated pictures share theirs")
        if self.progressive:
            raise ValueError(
                "an abbreviated picture cannot be progressive: the standard Huffman tables have no EOB runs"
            )
        if self.optimize:
            raise ValueError(
                "an abbreviated picture cannot have Huffman tables of its own: leave optimize out"
            )

    @property
    def decodes_once(self) -> bool:
        """Whether a file needs the coefficients of its source only once, from top to bottom."""
        return not (self.adaptive or self.progressive)


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file. See `encode` for each field.

    Raises TypeError for what is not bytes, ValueError for a dpi out of range.
    """

    exif: bytes = b""
    xmp: bytes = b""
    icc_profile: bytes = b""
    comment: bytes = b""
    dpi: Any = None  # kept as two integers
    jfif: bool = False

    def __post_init__(self) -> None:
        for name in ("exif", "xmp", "icc_profile", "comment"):
            value = getattr(self, name)
            if not isinstance(value, bytes):
                raise TypeError(f"{name} is a {type(value).__name__}, expected bytes")
        check_flag(self.jfif, "jfif")
        if self.dpi is not None:
            numbers = check_items(self.dpi, "dpi", "two numbers 1..65535")
            if len(numbers) != 2 or not all(
                is_number(n) and math.isfinite(n) and 1 <= round(n) <= 65535 for n in numbers
            ):
                raise ValueError(f"dpi is {brief(self.dpi)}, expected two numbers 1..65535")
            object.__setattr__(self, "dpi", (round(numbers[0]), round(numbers[1])))

    def segments(self, components: int) -> bytes:
        """The marker segments of the metadata. Four components also get the Adobe marker, which they need."""
        if self is NO_METADATA and components < 4:
            return b""
        return b"".join(
            (
                markers.jfif(self.dpi) if self.jfif or self.dpi else b"",
                markers.exif(self.exif),
                markers.xmp(self.xmp),
                markers.icc(self.icc_profile),
                markers.adobe() if components == 4 else b"",
                markers.comment(self.comment),
            )
        )


_NAMES, _METADATA = (tuple(field.name for field in fields(kind)) for kind in (EncodeOptions, Metadata))


def options_of(keywords: Mapping[str, Any]) -> tuple[EncodeOptions, Metadata]:
    """Sort keywords of `encode` into options and metadata. Raises TypeError for unknown keywords."""
    for name in keywords:
        if name not in _NAMES and name not in _METADATA:
            raise TypeError(f"no option is named {brief(name)}, expected {', '.join((*_NAMES, *_METADATA))}")
    options = {name: value for name, value in keywords.items() if name in _NAMES}
    return EncodeOptions(**options), Metadata(
        **{name: keywords[name] for name in keywords if name in _METADATA}
    )


def subsampling_of(subsampling: Any) -> str:
    """The name of a subsampling, from its name or Pillow's number. Raises ValueError."""
    name = subsampling
    if is_number(subsampling, Integral):
        name = _PILLOW_SUBSAMPLINGS.get(int(subsampling))
    if not isinstance(name, str) or name not in SUBSAMPLINGS:
        raise ValueError(
            f"subsampling is {brief(subsampling)}, expected one of {', '.join(SUBSAMPLINGS)}, or 0, 1, 2"
        )
    return name


def _hashable(hardness: Any, levels: int = 2) -> Any:
    """The numbers of a hardness as nested tuples. Their count is checked later, with the table."""
    if hardness is None or is_number(hardness):
        return hardness
    if levels == 0:
        raise ValueError(f"hardness holds {brief(hardness)}, expected numbers, or 64 numbers a table")
    items = check_items(hardness, "hardness", "a number, 64 numbers, or one of these for each table")
    return tuple(_hashable(item, levels - 1) for item in items)


DEFAULTS, NO_METADATA = EncodeOptions(), Metadata()
_DEFAULT_VALUES, _NO_VALUES = (tuple(vars(made).values()) for made in (DEFAULTS, NO_METADATA))


def options_from(*values: Any) -> EncodeOptions:
    """`EncodeOptions(*values)`, quicker if all values are the defaults, as for most pictures."""
    return DEFAULTS if all(map(operator.is_, values, _DEFAULT_VALUES)) else EncodeOptions(*values)


def metadata_from(*values: Any) -> Metadata:
    """`Metadata(*values)`, quicker if all values are the defaults."""
    return NO_METADATA if all(map(operator.is_, values, _NO_VALUES)) else Metadata(*values)
