"""The hot loop: rows of MCUs from pixels to quantized coefficients and tokens, in one compiled call."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from dnnjpeg.codec.bits import count_symbols
from dnnjpeg.codec.colour import channel_map, fill_strips
from dnnjpeg.codec.dct import LANES, forward_column_16, forward_rows_16, store_8, transpose_16
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import SYMBOLS
from dnnjpeg.codec.markers import NATURAL
from dnnjpeg.codec.memory import empty
from dnnjpeg.codec.pixels import Pixels
from dnnjpeg.codec.quantize import (
    NEAREST,
    TWO,
    Quantizer,
    block_hash,
    legal,
    one_of_two,
    nearest_16,
    random_keys,
    sample_16,
)
from dnnjpeg.codec.scan import MAX_BLOCK_TOKENS, PLANE, STRIDE, H, V, entry_bytes, mcu_row_tokens
from dnnjpeg.codec.stream import SLACK, Scan, Tokens, interval_bounds, intervals_in
from dnnjpeg.jit import inlined, kernel
from dnnjpeg.simd import address, load, load_scalar, splat, store

JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "layout", "pixel_bytes", "width", "height",  # the picture
            "h", "v", "mcus", "restart",  # largest sampling factors, MCUs a row, MCUs between restarts
            "y_stride", "c_stride",  # bytes a row of the strips
            "keep",  # the planes of the whole picture, and make no tokens
            # where these lie in the scratch memory
            "strips", "edge", "rows", "columns", "indices", "weights", "entries", "coefficients",
        )
    ]
)  # fmt: skip

MIN_ROWS = 8  # rows of MCUs that are worth a part of their own
PARTS = 3  # for each thread, so that no thread waits long for another
Result = TypeVar("Result")
_NOWHERE = np.empty((0, 64), np.int16)
_NO_TOKENS = np.empty(0, np.uint32)

_LANE_NUMBERS = np.arange(LANES, dtype=np.uint32)
_ZIGZAG = np.argsort(NATURAL).astype(np.uint8)


@inlined
def _put(indices, k, value, scale):
    zigzag = np.int64(load_scalar(address(_ZIGZAG) + k, "u8"))
    store(indices + zigzag * 32, nearest_16(value, load_scalar(scale + 4 * k, "f32")))


@inlined
def _quantize_nearest(rows, indices, scale):
    """Column pass and rounding of a batch: float32 `rows` to `indices`, int16[64 zigzag][16]. All are
    addresses.
    """
    for u in range(8):
        a, b, c, d, e, f, g, h = forward_column_16(rows, u)
        _put(indices, u, a, scale)
        _put(indices, u + 8, b, scale)
        _put(indices, u + 16, c, scale)
        _put(indices, u + 24, d, scale)
        _put(indices, u + 32, e, scale)
        _put(indices, u + 40, f, scale)
        _put(indices, u + 48, g, scale)
        _put(indices, u + 56, h, scale)


@inlined
def _draw(indices, k, value, scale, law, keys, hashed):
    zigzag = np.int64(load_scalar(address(_ZIGZAG) + k, "u8"))
    scaled, key = load_scalar(scale + 4 * k, "f32"), load_scalar(keys + 8 + 4 * k, "u32")
    store(indices + zigzag * 32, legal(one_of_two(value, scaled, hashed, law + 8 * k, key), -1023 - (k == 0)))


@inlined
def _quantize_two(rows, indices, scale, law, keys, hashed):
    """Column pass and drawing from two candidates each."""
    for u in range(8):
        a, b, c, d, e, f, g, h = forward_column_16(rows, u)
        _draw(indices, u, a, scale, law, keys, hashed)
        _draw(indices, u + 8, b, scale, law, keys, hashed)
        _draw(indices, u + 16, c, scale, law, keys, hashed)
        _draw(indices, u + 24, d, scale, law, keys, hashed)
        _draw(indices, u + 32, e, scale, law, keys, hashed)
        _draw(indices, u + 40, f, scale, law, keys, hashed)
        _draw(indices, u + 48, g, scale, law, keys, hashed)
        _draw(indices, u + 56, h, scale, law, keys, hashed)


@inlined
def _quantize_mixed(rows, columns, indices, weights, scale, law, reach, keys, hashed):
    """Column pass and drawing, each coefficient from as many candidates as its hardness wants."""
    for u in range(8):
        a, b, c, d, e, f, g, h = forward_column_16(rows, u)
        store_8(columns + u * 64, 512, a, b, c, d, e, f, g, h)
    for k in range(64):
        drawn = sample_16(
            load(columns + k * 64, "f32x16"), load_scalar(scale + 4 * k, "f32"), hashed,
            law + 8 * k, load_scalar(reach + 8 * k, "i64"),
            load_scalar(keys + 8 + 4 * k, "u32"), weights,
        )  # fmt: skip
        store(
            indices + np.int64(load_scalar(address(_ZIGZAG) + k, "u8")) * 32,
            legal(drawn, -1023 - (k == 0)),
        )


@inlined
def _quantize_sampled(rows, columns, indices, weights, kind, scale, law, reach, keys, first_block):
    """Column pass and drawing of a batch whose blocks are numbered from `first_block`."""
    hashed = block_hash(load(address(_LANE_NUMBERS), "u32x16") + splat(first_block, "u32x16"), keys)
    if kind == TWO:
        _quantize_two(rows, indices, scale, law, keys, hashed)
    else:
        _quantize_mixed(rows, columns, indices, weights, scale, law, reach, keys, hashed)


@kernel
def encode_rows(
    job,
    pixels,
    row_bytes,
    mix,
    geometry,
    kinds,
    scale,
    law,
    reach,
    keys,
    first,
    last,
    kept,
    scratch,
    planes,
    tokens,
    count,
    state,
    counts,
    bounds,
):
    """Quantized coefficients, and tokens, of the rows of MCUs first..last-1.

    Tokens follow the `count` that there are; returns how many there are then. Rows before `kept` only leave
    their DC predictions in `state`, int64[components].

    `job`: a record of `JOB`. `pixels`: address of the first pixel. `mix`: int32[components, 4, 16]
    (`colour.channel_map`). `geometry`: int64[components, 7]. `kinds`, `scale`, `law`, `reach` [components, ...]
    and `keys`: see `quantize`. `scratch`: uint8. `planes`: int16[blocks, 64] where the job keeps them, else
    empty. `tokens`: uint32. `counts`: int64[4, 1024]. `bounds`: see `scan.mcu_row_tokens`.
    """
    room = address(scratch) + 63 & ~63
    rows, columns, indices = room + job.rows, room + job.columns, room + job.indices
    coefficients = address(planes) if job.keep else room + job.coefficients
    start = address(tokens)
    out = start + 4 * count
    for mcu_row in range(first, last):
        fill_strips(
            pixels, row_bytes, job.layout, job.pixel_bytes, job.width, job.height, job.mcus * 8 * job.h,
            mcu_row * 8 * job.v, job.h, job.v, address(mix), geometry.shape[0], room + job.strips,
            job.y_stride, job.c_stride, room + job.edge,
        )  # fmt: skip
        base = 0 if job.keep else mcu_row
        for c in range(geometry.shape[0]):
            strip = room + job.strips + (c > 0) * (8 * job.v * job.y_stride + (c - 1) * 8 * job.c_stride)
            strip_stride = job.c_stride if c else job.y_stride
            h, v, stride = geometry[c, H], geometry[c, V], geometry[c, STRIDE]
            for y in range(v):
                row = (mcu_row - base) * v + y
                for x in range(0, job.mcus * h, LANES):
                    forward_rows_16(strip + y * 8 * strip_stride + x * 8, strip_stride, rows)
                    if kinds[c] == NEAREST:
                        _quantize_nearest(rows, indices, address(scale) + c * 256)
                    else:
                        first_block = (mcu_row * v + y) * job.mcus * h + x
                        _quantize_sampled(
                            rows, columns, indices, room + job.weights, kinds[c], address(scale) + c * 256,
                            address(law) + c * 512, address(reach) + c * 512, address(keys) + c * 264,
                            first_block,
                        )  # fmt: skip
                    transpose_16(indices, coefficients + (geometry[c, PLANE] + row * stride + x) * 128)
        if not job.keep:
            begin = out
            out = mcu_row_tokens(
                out,
                room + job.entries,
                coefficients,
                geometry,
                base,
                mcu_row,
                job.mcus,
                job.restart,
                state,
                start,
                bounds,
            )
            if mcu_row < kept:
                out = begin
            else:
                count_symbols(begin, out, address(counts))
    return (out - start) // 4


@lru_cache(maxsize=256)
def _arguments(
    frame: Frame, mode: str, quantizer: Quantizer, seed: int, keep: bool, restart: int
) -> tuple[Any, ...]:
    """What `encode_rows` takes for all pictures of one kind: `job`, and `mix` to `keys`; and the bytes of its
    scratch.
    """
    layout, pixel_bytes, mix = channel_map(mode, frame.h * frame.v)
    geometry, blocks = frame.planes(keep)
    padded = frame.mcus * 8 * frame.h
    # rows end in slack that whole vectors spill into, and do not lie a power of two apart
    y_stride, c_stride = -(-padded // 128) * 128 + 64, -(-padded // frame.h // 128) * 128 + 64
    batch = 64 * LANES
    sizes = (
        8 * (frame.v * y_stride + (len(frame.sampling) - 1) * c_stride), 1088,
        4 * batch, 4 * batch, 2 * batch, 4 * LANES * quantizer.candidates,
        entry_bytes(frame.mcus * frame.blocks), 0 if keep else 128 * blocks,
    )  # fmt: skip
    ends = list(accumulate((size + 63 & ~63 for size in sizes), initial=0))
    fields = (
        layout, pixel_bytes, frame.width, frame.height, frame.h, frame.v, frame.mcus, restart, y_stride,
        c_stride, keep,
    )  # fmt: skip
    job = np.array((*fields, *ends[:-1]), JOB)[()]
    keys = random_keys(seed if quantizer.sampled else 0, len(frame.sampling))
    return (
        job,
        (mix, geometry, quantizer.kinds, quantizer.scale, quantizer.law, quantizer.reach, keys),
        ends[-1] + 64,
    )


def _in_threads(code: Callable[[int, int], Result], rows: int, threads: int) -> list[Result]:
    """`code(first, last)` over all rows of MCUs, in parts; a thread that is done with one takes the next."""
    parts = max(1, min(PARTS * threads, rows // MIN_ROWS))
    if threads == 1 or parts == 1:
        return [code(0, rows)]
    edges = [rows * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(code, edges[:-1], edges[1:]))


def picture_tokens(
    pixels: Pixels, frame: Frame, quantizer: Quantizer, seed: int, restart: int, threads: int
) -> Scan:
    """The baseline scan of a picture. With `restart` 0, rows of MCUs are divided among `threads`."""
    bounds = interval_bounds(frame.mcus * frame.mcu_rows, restart)

    def code(first: int, last: int) -> Tokens:
        job, fixed, scratch = _arguments(frame, pixels.mode, quantizer, seed, False, restart)
        room = (last - first) * frame.mcus * frame.blocks * MAX_BLOCK_TOKENS + SLACK
        memory = empty(4 * room + scratch, np.uint8)
        tokens, counts = memory[: 4 * room].view(np.uint32), np.zeros((4, SYMBOLS), np.int64)
        state = np.zeros(len(frame.sampling), np.int64)
        count = 0
        # the row before the first is coded too, for the DC predictions that it leaves
        for rows, top, begin, end in pixels.bands(max(first - 1, 0), last, 8 * frame.v):
            stride = rows.strides[0]
            count = encode_rows(
                job, rows.ctypes.data - top * stride, stride, *fixed, begin, end, first,
                memory[4 * room :], _NOWHERE, tokens, count, state, counts, bounds,
            )  # fmt: skip
        return Tokens(tokens, count, counts)

    pieces = _in_threads(code, frame.mcu_rows, 1 if restart else threads)
    return Scan(frame.every, tuple(pieces), threads, restart, intervals_in(bounds))


def picture_planes(pixels: Pixels, frame: Frame, quantizer: Quantizer, seed: int, threads: int) -> np.ndarray:
    """int16[blocks, 64]: the quantized coefficients of all components in zigzag order, laid out as
    `Frame.planes(True)` says.
    """
    planes = empty(frame.planes(True)[1] * 64, np.int16).reshape(-1, 64)
    counts, bounds = np.zeros((4, 1), np.int64), np.zeros(1, np.int64)

    def code(first: int, last: int) -> None:
        job, fixed, size = _arguments(frame, pixels.mode, quantizer, seed, True, 0)
        scratch = empty(size, np.uint8)
        for rows, top, begin, end in pixels.bands(first, last, 8 * frame.v):
            stride = rows.strides[0]
            encode_rows(
                job, rows.ctypes.data - top * stride, stride, *fixed, begin, end, begin,
                scratch, planes, _NO_TOKENS, 0, bounds, counts, bounds,
            )  # fmt: skip

    _in_threads(code, frame.mcu_rows, threads)
    return planes
