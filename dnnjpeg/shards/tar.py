"""Tar shards in webdataset's format: JPEG members are encoded again, all others are copied byte by byte.

Members are read and written by their place in the file. Their names are never paths on a disk.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from dnnjpeg.files.images import JPEG_EXTENSIONS
from dnnjpeg.jpeg.segments import is_jpeg
from dnnjpeg.shards.shard import Convert, ShardError, Tally

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LARGEST = 1 << 30  # the largest picture file, in bytes


@dataclass(frozen=True)
class _Member:
    name: str
    common: bytes  # headers before it that hold for all members behind them
    header: bytes  # its header blocks, extended ones included
    start: int  # where its data begin in the source
    stored: int  # bytes of its data, with the padding of the last block
    content: bytes | None  # the file, if it is a picture


@dataclass(frozen=True)
class _Sample:
    """Neighbouring members with the same key."""

    key: str
    members: list[_Member]

    @property
    def pictures(self) -> list[tuple[str, bytes]]:
        return [(one.name, one.content) for one in self.members if one.content is not None]


def rewrite_tar(source: IO[bytes], target: IO[bytes], convert: Convert, tally: Tally) -> None:
    """Encode the pictures of a tar archive, and copy all other members. convert: see `converter`.

    Raises ShardError if the source is not a complete tar archive.
    """
    length = 0
    for sample, found in convert(_samples(source, tally), lambda sample: sample.pictures):
        files = iter(found or ())
        for member in sample.members:
            target.write(member.common)
            length += len(member.common)
            if found is None:  # dropped
                continue
            if member.content is None or (data := next(files)) == member.content:
                target.write(member.header)
                _copy(source, target, member)
                length += len(member.header) + member.stored
            else:
                padding = -len(data) % _BLOCK
                target.write(b"".join((_resized(member.header, len(data)), data, bytes(padding))))
                length += len(member.header) + len(data) + padding
    target.write(bytes(2 * _BLOCK))
    target.write(bytes(-(length + 2 * _BLOCK) % tarfile.RECORDSIZE))


def _samples(source: IO[bytes], tally: Tally) -> Iterator[_Sample]:
    sample: _Sample | None = None
    names: set[str] = set()
    for member in _members(source):
        if member.name in names:
            tally.duplicates += 1
        names.add(member.name)
        key = key_of(member.name)
        if sample is not None and key == sample.key:
            sample.members.append(member)
            continue
        if sample is not None:
            yield sample
        sample = _Sample(key, [member])
    if sample is not None:
        yield sample


def key_of(name: str) -> str:
    """The key of a member's sample in webdataset: the path up to the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _members(source: IO[bytes]) -> Iterator[_Member]:
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    if end == 0:
        raise ShardError("is empty, expected a tar archive")
    try:
        tar = tarfile.open(fileobj=source, mode="r:", errorlevel=2)  # noqa: SIM115  # `source` is the caller's
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise ShardError(f"is no tar archive: {error}") from None
    at = 0
    while True:
        try:
            found = tar.next()
        except (tarfile.TarError, ValueError, EOFError, OverflowError, KeyError) as error:
            raise ShardError(f"is damaged behind byte {at:,}: {error}") from None
        if found is None:
            break
        tar.members = []  # type: ignore[attr-defined]  # otherwise it keeps all members in memory
        following = tar.offset
        if found.size < 0 or found.offset < at or following <= found.offset:
            raise ShardError(f"is damaged at byte {at:,}: a header gives the size {found.size:,}")
        if following > end:
            raise ShardError(
                f"ends early: {printable(found.name)} has {found.size:,} bytes by its header, and "
                f"{max(end - found.offset_data, 0):,} are there"
            )
        source.seek(at)
        common = source.read(found.offset - at)
        header = source.read(found.offset_data - found.offset)
        stored, content = following - found.offset_data, None
        if (
            found.isreg()
            and not found.issparse()
            and found.size <= _LARGEST
            and "size" not in found.pax_headers
        ):
            named = PurePosixPath(found.name).suffix.lower() in JPEG_EXTENSIONS
            if named or is_jpeg(source.read(3)):
                source.seek(found.offset_data)
                content = source.read(found.size)
        yield _Member(found.name, common, header, found.offset_data, stored, content)
        at = following
    _check_end(source, at)


def _check_end(source: IO[bytes], at: int) -> None:
    """Check that the archive ends here. tarfile also stops at a damaged header. Raises ShardError."""
    source.seek(at)
    rest = source.read(2 * _BLOCK)
    if len(rest) < _BLOCK or any(rest):
        raise ShardError(f"is cut off or damaged at byte {at:,}: the end of the archive is missing")
    while rest:
        rest = source.read(_CHUNK)
        if any(rest):
            raise ShardError(
                f"holds more behind the end of the archive, at byte {at:,}: are these two archives?"
            )


def _copy(source: IO[bytes], target: IO[bytes], member: _Member) -> None:
    source.seek(member.start)
    left = member.stored
    while left:
        data = source.read(min(left, _CHUNK))
        if not data:
            raise ShardError(f"ends early: {printable(member.name)} is cut off")
        target.write(data)
        left -= len(data)


def _resized(header: bytes, size: int) -> bytes:
    """The header of a member with another size of its data, and with the checksum that belongs to it."""
    block = bytearray(header[-_BLOCK:])
    block[124:136] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return header[:-_BLOCK] + bytes(block)


def printable(name: str) -> str:
    return repr(name) if len(name) <= 120 else f"{name[:117]!r}..."
