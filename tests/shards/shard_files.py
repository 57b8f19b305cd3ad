"""Shards for the tests: tar by Python's tarfile."""

import io
import tarfile
from pathlib import Path
from typing import Any

from drawing import draw
from PIL import Image

from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.shards.run import Shard, ShardOptions, Shards
from dnnjpeg.table.library import load_table

Members = list[tuple[str, bytes]]


def jpeg(seed: int, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw(64, 48, seed)).save(file, form, **({"quality": 95} if form == "JPEG" else {}))
    return file.getvalue()


def samples(count: int, start: int = 0) -> Members:
    """As webdataset has them."""
    found: Members = []
    for i in range(start, start + count):
        found += [(f"{i:05}.cls", b"%d" % i), (f"{i:05}.jpg", jpeg(i)), (f"{i:05}.json", b'{"n": %d}' % i)]
    return found


def tar_bytes(members: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname, info.mode = len(data), 1_000_000_000, "somebody", 0o640
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def read_tar(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(one.name, tar.extractfile(one).read() if one.isreg() else b"") for one in tar]


def options(**changes: Any) -> ShardOptions:
    return ShardOptions(FileOptions(load_table("universal"), 60), **{"jobs": 2, **changes})


def make(sources: Any, output: Any, **changes: Any) -> list[Shard]:
    paths = sources if isinstance(sources, list) else [sources]
    return list(Shards([str(path) for path in paths], str(output), options(**changes)).run())


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the JSON ones, which hold times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".json"
    }
