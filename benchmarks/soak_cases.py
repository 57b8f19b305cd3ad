"""What `soak.py` tries: a case of each group, made from random numbers alone, that fails by an exception."""

import io
import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import jpeglib
import numpy as np
import simplejpeg
import t81
from PIL import Image

from dnnjpeg import OperatingPoint, Table, encode, inspect, load_table, write_coefficients
from dnnjpeg.codec import picture as parts
from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.images import open_picture
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.table.fields import MIN_HARDNESS, spread

Random = np.random.Generator
_NAMES = tuple(SUBSAMPLINGS)
_K = np.arange(8)
_BASIS = np.sqrt(np.where(_K == 0, 1, 2) / 8)[:, None] * np.cos((2 * _K + 1) * _K[:, None] * np.pi / 16)
# Blocks with the largest coefficients there are: the signs of each basis function.
_EXTREMES = np.where((_BASIS >= 0)[:, None, :, None] ^ (_BASIS >= 0)[None, :, None, :], 255, 0)
_EXTREMES = _EXTREMES.reshape(64, 8, 8)


def require(holds: object, message: object) -> None:
    if not holds:
        raise AssertionError(message)


def pick(rng: Random, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


# --- coefficients: what is written is what decoders find ---


def coefficients(rng: Random, scratch: Path) -> None:
    width, height = rng.integers(1, 34, 2).tolist()
    options = _options(rng) | {"subsampling": pick(rng, *_NAMES)}
    factors = SUBSAMPLINGS[options["subsampling"]]
    sampling = pick(rng, factors, factors, factors, ((1, 1),), ((1, 1),) * 4)
    (across, down), *_ = sampling
    planes = []
    for h, v in sampling:
        rows, columns = (-(-s // 8) for s in (-(-height * v // down), -(-width * h // across)))
        one, other = (_indices(rng, (rows, columns, 64)) for _ in range(2))
        planes.append(np.where(rng.random((rows, columns, 1)) < 0.5, one, other))
    tables = list(rng.integers(1, 256, (rng.integers(1, 4), 64)))
    data = write_coefficients(planes, tables, width, height, **options)
    file = t81.read(data)
    require((file.width, file.height) == (width, height), "size")
    require(file.progressive == options["progressive"] or options["progressive"] == "auto", "progressive")
    path = scratch / "x.jpg"
    path.write_bytes(data)
    read = jpeglib.read_dct(path)
    theirs = [read.Y, read.Cb, read.Cr, read.K][: len(planes)]
    for c, (part, their, plane) in enumerate(zip(file.components, theirs, planes, strict=True)):
        require(np.array_equal(part.indices(), plane), f"component {c}, strict reader")
        require(np.array_equal(their.reshape(plane.shape), plane), f"component {c}, libjpeg")
        require(np.array_equal(part.steps, tables[min(c, len(tables) - 1)]), f"steps of component {c}")


def _options(rng: Random) -> dict[str, Any]:
    """Those of `encode` and `write_coefficients` alike."""
    return {
        "progressive": pick(rng, False, True, "auto"),
        "optimize": pick(rng, None, True, False),
        "restart_blocks": pick(rng, 0, 0, 1, 3, 8, 65535),
        "restart_rows": pick(rng, 0, 0, 0, 1, 2),
    }


def _indices(rng: Random, shape: tuple[int, ...]) -> np.ndarray:
    """Dense, extreme, sparse, small, few and far apart, or flat."""
    kind = rng.integers(6)
    if kind == 0:
        return rng.integers(-1023, 1024, shape)
    if kind == 1:
        values = rng.choice([-1023, 1023], shape)
        values[..., 0] = rng.choice([-1024, 1023], shape[:-1])
        return values
    if kind == 2:
        sizes = rng.laplace(0, 8, shape).round().astype(int)
        return sizes * (rng.random(shape) < rng.choice([0.01, 0.1, 0.4]))
    if kind == 3:
        return rng.integers(-4, 5, shape) * (rng.random(shape) < rng.choice([0.05, 0.5, 1]))
    values = np.zeros(shape, int)
    if kind == 4:
        values[..., rng.integers(64, size=2)] = rng.choice([-1, 0, 1, 7, -200], (*shape[:-1], 2))
    else:
        values[...] = rng.choice([0, 1, -1, 2, 1023])
    return values


# --- tables: each that is accepted gives a valid file, indices within what the quantizer promises ---


def tables(rng: Random, scratch: Path) -> None:
    table = Table("soak", [_point(rng, quality) for quality in (30, 80)])
    point = table.at(pick(rng, 30, 80, 1, 100, float(rng.uniform(1, 100))))
    options = _options(rng) | {
        "quantizer": pick(rng, None, "nearest"),
        "seed": int(rng.integers(2**63)),
        "subsampling": pick(rng, None, *_NAMES),
    }
    samples = _samples(rng, SUBSAMPLINGS[options["subsampling"] or point.subsampling])
    whole = samples[0].shape
    enlarged = [np.kron(part, np.ones(np.floor_divide(whole, part.shape), np.uint8)) for part in samples]
    data = encode(np.stack(enlarged, 2), point, mode="L" if len(samples) == 1 else "YCbCr", **options)
    file = t81.read(data)
    pixels = simplejpeg.decode_jpeg(data, "GRAY" if len(samples) == 1 else "RGB", strict=True)
    require(pixels.shape[:2] == whole, "size")
    for c, (part, plane) in enumerate(zip(file.components, samples, strict=True)):
        t = min(c, len(point.tables) - 1)
        require(part.steps == point.tables[t], f"steps of component {c}")
        blocks = plane.reshape(part.rows, 8, part.columns, 8).swapaxes(1, 2) - 128.0
        exact = (_BASIS @ blocks @ _BASIS.T).reshape(part.rows, part.columns, 64) / point.divisors[t]
        max_index = np.array([1024 if limit is None else limit for limit in spread(point.max_index[t])])
        low = np.maximum(np.where(np.arange(64) == 0, -1024, -1023), -max_index)
        nearest = options["quantizer"] == "nearest"
        room = [_room(None if nearest else kappa) for kappa in spread(point.hardness[t])]
        far = np.abs(part.indices() - exact.clip(low, np.minimum(1023, max_index))) - room
        require((far <= 2e-3).all(), f"component {c} is off by {far.max()} more than it may")


def _point(rng: Random, quality: float) -> OperatingPoint:
    """Any that validation accepts; what is at the ends of its range is common."""
    count = int(rng.integers(2, 4))

    def some(*choices: Any) -> Any:
        """One for all 64, or most of them alike."""
        few = [pick(rng, *choices) for _ in range(3)]
        few = [one() if callable(one) else one for one in few]
        return few[0] if rng.random() < 0.5 else [few[i] for i in rng.integers(0, 3, 64)]

    luma, *chroma = (
        np.broadcast_to(some(1, 1, 2, 255, lambda: int(rng.integers(1, 256))), 64).tolist()
        for _ in range(count)
    )
    point = OperatingPoint(quality, pick(rng, "4:2:0", pick(rng, *_NAMES)), luma, chroma)
    cell = (None, 0.5, 0.999, 1, 2, lambda: float(rng.uniform(0.5, 2)))
    kappa = (None, MIN_HARDNESS, 1, 15, 80, 1e300, lambda: float(np.exp(rng.uniform(-4, 8))))
    limit = (None, None, 1, 1023, lambda: int(rng.integers(1, 1024)))
    fields = {"bin_width": cell, "hardness": kappa, "max_index": limit}
    return replace(
        point,
        **{name: [some(*of) for _ in range(count)] for name, of in fields.items() if rng.random() < 0.5},
    )


def _room(kappa: float | None) -> float:
    """How far, in bin widths, an index may be from its coefficient: half of one where it is rounded; else as
    far as its weight is 1e-7 or more.
    """
    if kappa is None:
        return 0.5
    return 1.0 if kappa >= 15 else 1.5 + float(np.sqrt(16.2 / kappa))


def _samples(rng: Random, factors: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Of one or three components as they are sampled: noise, flat blocks, extremes."""
    rows, columns = rng.integers(1, 4, 2).tolist()
    samples = []
    for h, v in factors if rng.random() < 0.7 else factors[:1]:
        shape = (rows * v, columns * h)
        kinds = (
            rng.integers(0, 256, (*shape, 8, 8)),
            np.broadcast_to(rng.choice([0, 128, 255], (*shape, 1, 1)), (*shape, 8, 8)),
            _EXTREMES[rng.integers(0, 64, shape)],
            255 - _EXTREMES[rng.integers(0, 64, shape)],
        )
        blocks = np.choose(rng.integers(0, 4, shape)[..., None, None], kinds)
        samples.append(blocks.swapaxes(1, 2).reshape(8 * shape[0], 8 * shape[1]).astype(np.uint8))
    return samples


# --- threads, processes: the same bytes ---


def threads(rng: Random, scratch: Path) -> None:
    """Of large pictures, and of small ones of which every few blocks are worth a thread."""
    blocks, side = pick(rng, *[(4, 100), (32, 200)] * 20, (parts.MIN_BLOCKS, 1500))
    picture, point, options = _picture(rng, side)
    one = encode(picture, point, **options)
    with mock.patch.object(parts, "MIN_BLOCKS", blocks):
        for count in (2, int(rng.integers(3, 9))):
            require(encode(picture, point, threads=count, **options) == one, f"{count} threads")


def file_of(rng: Random) -> bytes:
    """For other processes to make too."""
    picture, point, options = _picture(rng, 200)
    return encode(picture, point, **options)


def _picture(rng: Random, side: int) -> tuple[np.ndarray, OperatingPoint, dict[str, Any]]:
    height, width = rng.integers(1, side + 1, 2).tolist()
    coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
    picture = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
    picture ^= rng.integers(0, pick(rng, 1, 8, 64, 256), picture.shape, np.uint8)
    options = _options(rng) | {"seed": int(rng.integers(2**63))}
    return picture, _point(rng, 50), options


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
        picture = open_picture(io.BytesIO(data), keep=bool(rng.integers(2)), background=background)
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
        from dnnjpeg.sparse.plan import Plan

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
    table = Table("soak", [_point(rng, 30), _point(rng, 80)], "a description", {"models": ["a", {"b": 1.5}]})
    return json.dumps(table.to_json())


@cache
def _plan_text() -> str:
    from dnnjpeg.sparse.geometry import Geometry
    from dnnjpeg.sparse.plan import LayerPlan, Plan
    from dnnjpeg.sparse.tiling import Tiling

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
        document[key] = pick(rng, *_ODD)


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
