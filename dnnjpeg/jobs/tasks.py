"""Tasks and options of a run over picture files, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.table import Table

if TYPE_CHECKING:
    from dnnjpeg.target.search import Encoded


@dataclass(frozen=True)
class FileTask:
    """One picture to encode."""

    source: Path
    destination: Path | None  # None: the result has the bytes. The same as `source`: replace it in place
    content: bytes | None = None  # the picture file, if `source` is no file


@dataclass(frozen=True)
class Result:
    """What has become of a picture."""

    source: Path
    status: Literal["encoded", "copied", "skipped", "failed"]  # copied: the source, unchanged
    reason: str = ""  # why a picture was skipped, or has failed
    pixels: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    data: bytes | None = None
    found: "Encoded | None" = None  # how a file with a target was made, without its bytes
    warning: str = ""  # about a file that is written
    transcoded: bool = False  # whether the file was made from the coefficients of a JPEG source


@dataclass(frozen=True)
class FileOptions:
    """The options that all pictures of a run share. They can be pickled."""

    table: Table
    quality: float
    options: EncodeOptions = field(default_factory=EncodeOptions)
    threads: int = 1  # for each picture
    target: Mapping[str, Any] = field(default_factory=dict)  # arguments of `encode_to_target`, if any
    pixels: bool = False  # decode JPEG sources to pixels, and do not transcode them
    salvage: bool = False  # read damaged JPEG sources, see `read_coefficients`
    metadata: Literal["keep", "strip"] = "keep"  # see `open_picture`
    background: tuple[int, int, int] | None = None
    # True: if the new file is not smaller, a JPEG source is copied, and another source is skipped.
    # None: this holds for JPEG sources only. False: the new file is always written.
    only_if_smaller: bool | None = None
    dry_run: bool = False  # do everything but write
    fsync: bool = True  # see `write_atomic`

    @property
    def decodes_once(self) -> bool:
        """Whether a file needs the coefficients of a JPEG source only once, from top to bottom."""
        return self.options.decodes_once and not (self.salvage or self.target)


@dataclass
class Read:
    """What networks read in the files: sums over pictures, and the worst divergence."""

    pictures: int = 0
    agrees: float = 0.0
    divergence: float = 0.0
    worst: float = 0.0
    tried: int = 0

    def add(self, found: "Encoded") -> None:
        self.tried += found.tried
        if found.divergence is not None and found.agrees is not None:
            self.pictures += 1
            self.agrees += found.agrees
            self.divergence += found.divergence
            self.worst = max(self.worst, found.divergence)


@dataclass
class Totals:
    encoded: int = 0
    copied: int = 0
    skipped: int = 0
    failed: int = 0
    pixels: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    transcoded: int = 0  # of those encoded
    read: Read = field(default_factory=Read)

    def add(self, result: Result) -> None:
        setattr(self, result.status, getattr(self, result.status) + 1)
        self.transcoded += result.transcoded
        if result.found is not None:
            self.read.add(result.found)
        if result.status in ("encoded", "copied"):
            self.pixels += result.pixels
            self.bytes_before += result.bytes_before
            self.bytes_after += result.bytes_after

    @property
    def done(self) -> int:
        return self.encoded + self.copied

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.bytes_after / self.pixels if self.pixels else 0.0
