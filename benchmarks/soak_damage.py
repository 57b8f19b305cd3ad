"""What `soak.py` does to pictures, JSON and writers; cases fail by an exception, as in `soak_cases`."""

import io
import json
import os
import resource
import signal
import tempfile
import time
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import t81
from PIL import Image
from soak_cases import Random, any_point, pick, require

from dnnjpeg import Table, encode, inspect, load_table
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.images import open_picture
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.plan import LayerPlan, Plan
from dnnjpeg.sparse.tiling import Tiling

# --- mutations: of a damaged file, a result or a documented exception ---


@cache
def _files() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((40, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        encode(picture, exif=b"Exif\0\0" + exif.tobytes()[6:], comment=b"a comment", dpi=(72, 72)),
        encode(picture, progressive=True, restart_rows=1),
        encode(picture.convert("L"), hardness=5),
        encode(picture.convert("CMYK"), optimize=False),
    ]
    modes = {"JPEG": ("RGB", "CMYK"), "PNG": ("RGB", "RGBA", "P", "L", "1", "I;16"), "GIF": ("P",)}
    modes |= {"BMP": ("RGB", "P"), "TIFF": ("RGB", "CMYK"), "WEBP": ("RGB", "RGBA"), "PPM": ("RGB", "L")}
    for format, names in modes.items():
        for mode in names:
            image = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
            file = io.BytesIO()
            (image if mode == "I;16" else picture.convert(mode)).save(file, format)
            files.append(file.getvalue())
    return tuple(files)


def mutated(rng: Random, data: bytes) -> bytes:
    """Bytes changed, taken out, put in, doubled, or cut off."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at, count = int(rng.integers(len(content) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(7)
        if kind < 3 and at < len(content):
            content[at] = pick(rng, 0, 255, int(rng.integers(256)), content[at] ^ 1 << int(rng.integers(8)))
        elif kind == 3:
            del content[at : at + count]
        elif kind == 4:
            content[at:at] = rng.bytes(count)
        elif kind == 5:
            content[at:at] = content[at : at + 8 * count]
        elif rng.random() < 0.3:
            del content[at:]
    return bytes(content)


def mutations(rng: Random, scratch: Path) -> None:
    data = mutated(rng, pick(rng, *_files()))
    with suppress(ValueError):
        inspect(data).to_json()
    picture = None
    with suppress(OSError, ValueError):
        background = pick(rng, None, (255, 255, 255))
        metadata = pick(rng, "keep", "strip")
        picture = open_picture(io.BytesIO(data), metadata=metadata, background=background)
    if picture is not None:
        try:
            made = encode(picture.image, **picture.metadata)
        except ValueError as error:  # metadata can be more than a JPEG holds
            require("bytes" in str(error), error)
            made = encode(picture.image)
        t81.read(made)


# --- json: of a damaged table or plan, a result or a ValueError ---

_ODD = (
    None, True, False, 0, 1, -1, 2, 64, 255, 256, 1023, 1024, 0.5, 1.5, 1e308, -0.0, 10**400, "", "4:2:0",
    "\ud800", "\x1b[2J", [], {}, [None] * 64, [[1] * 64] * 2, float("nan"), float("inf"), {"a": {"b": []}},
)  # fmt: skip


def documents(rng: Random, scratch: Path) -> None:
    path = scratch / "x.json"
    is_table = rng.random() < 0.7
    path.write_bytes(_damaged(rng, _table_text(rng) if is_table else _plan_text()))
    if not is_table:
        with suppress(ValueError):
            Plan.load(path)
        return
    table = None
    with suppress(ValueError):
        table = load_table(path)
    if table is not None:
        table.save(path)
        require(Table.load(path) == table, "what was saved is not what is loaded")
        t81.read(encode(np.zeros((9, 9, 3), np.uint8), table, float(rng.uniform(1, 100))))


def _table_text(rng: Random) -> str:
    table = Table(
        "soak", [any_point(rng, 30), any_point(rng, 80)], "a description", {"models": ["a", {"b": 1.5}]}
    )
    return json.dumps(table.to_json())


@cache
def _plan_text() -> str:
    geometry = Geometry(64, 56, 56, 64, (3, 3), padding=(1, 1))
    layers = (
        LayerPlan("one", geometry, "torch", relu="two"),
        LayerPlan("three", geometry, "ring-numbered", Tiling(False, 32, 4), 0.2),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        Plan(layers, {"batch": 1}, {"model": "resnet50"}).save(path)
        return path.read_text()


def _damaged(rng: Random, text: str) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return mutated(rng, text.encode())
    document = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        _damage(rng, document)
    text = json.dumps(document, ensure_ascii=bool(rng.integers(2)))
    if kind < 0.4:
        text = text.replace('": ', '": ' + pick(rng, "[" * 5000, "9" * 5000, '{"a": 1, "a": 2}, "b": '), 1)
    return text.encode("utf-8", "surrogatepass")


def _damage(rng: Random, document: Any) -> None:
    """Somewhere in it, a value becomes another, goes, or is doubled."""
    while True:
        keys: list[Any] = list(document if isinstance(document, dict) else range(len(document)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if not isinstance(document[key], dict | list) or rng.random() < 0.2:
            break
        document = document[key]
    kind = rng.integers(5)
    if kind == 0:
        del document[key]
    elif kind == 1 and isinstance(document, dict):
        document[pick(rng, key + "s", "", "format")] = document[key]
    elif kind == 1:
        document.append(document[key])
    else:
        document[key] = deepcopy(pick(rng, *_ODD))


# --- files: the old one or the new one, whole, whatever happens to the writer ---


def files(rng: Random, scratch: Path) -> None:
    """A writer that is killed while it replaces a file again and again, or whose disk is full (a limit to the
    size of its files stands for that).
    """
    path, sizes = scratch / "x.jpg", rng.integers(0, 300_000, 2)
    old, new = (bytes([i]) * int(size) for i, size in enumerate(sizes))
    path.write_bytes(old)
    full = rng.random() < 0.2
    child = os.fork()
    if child == 0:
        os._exit(_fill(path, new, int(rng.integers(0, len(new) + 1))) if full else _write(path, old, new))
    if full:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        require(code in (0, 1), f"the writer ended with {code}")
        require(path.read_bytes() == (old if code else new), "neither the old file nor the new one")
        require([*scratch.iterdir()] == [path], "something was left behind")
        return
    time.sleep(float(rng.uniform(0, 0.01)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    require(path.read_bytes() in (old, new), "neither the old file nor the new one")
    for other in scratch.iterdir():
        if other != path:
            require(other.name.endswith(".dnnjpeg-tmp"), f"{other.name} was left behind")
            other.unlink()


def _write(path: Path, *contents: bytes) -> int:
    while True:
        for content in contents:
            write_atomic(path, content)


def _fill(path: Path, content: bytes, room: int) -> int:
    """0 where it could be written, 1 where it was refused, 2 for any other end."""
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        write_atomic(path, content)
        return 0 if room >= len(content) else 2
    except OSError:
        return 1 if room < len(content) else 2
    except BaseException:
        return 2
