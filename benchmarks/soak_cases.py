"""What `soak.py` tries with what is legal: cases made from random numbers, that fail by an exception."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import jpeglib
import numpy as np
import simplejpeg
import t81

from dnnjpeg import OperatingPoint, Table, encode, write_coefficients
from dnnjpeg.codec import picture as parts
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
    table = Table("soak", [any_point(rng, quality) for quality in (30, 80)])
    point = table.at(pick(rng, 30, 80, 1, 100, float(rng.uniform(1, 100))))
    options = _options(rng) | {
        "hardness": pick(rng, None, np.inf),
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
        nearest = options["hardness"] is not None
        room = [_room(None if nearest else kappa) for kappa in spread(point.hardness[t])]
        far = np.abs(part.indices() - exact.clip(low, np.minimum(1023, max_index))) - room
        require((far <= 2e-3).all(), f"component {c} is off by {far.max()} more than it may")


def any_point(rng: Random, quality: float) -> OperatingPoint:
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
    return picture, any_point(rng, 50), options
