"""The hot loop. One compiled call turns rows of MCUs from pixels to quantized coefficients and tokens."""

import numpy as np

from dnnjpeg.codec.bits import count_symbols
from dnnjpeg.codec.colour import fill_strips
from dnnjpeg.codec.dct import LANES, ORDER, WIDTH, forward_column, forward_rows_16, store_8, transpose_16
from dnnjpeg.codec.quantize import (
    NEAREST,
    TWO,
    between_two,
    block_hash,
    legal,
    nearest,
    one_of_two,
    sample_16,
    step_up,
)
from dnnjpeg.codec.scan import PLANE, STRIDE, H, V, mcu_row_tokens
from dnnjpeg.codec.stream import code_in_place
from dnnjpeg.codec.transpose import transpose_words
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, convert, fetch_ahead, load, load_scalar, splat, store

JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            "layout", "pixel_bytes", "width", "height",  # the picture
            "h", "v", "mcus", "restart",  # largest sampling factors, MCUs a row, MCUs between restarts
            "y_stride", "c_stride",  # bytes a row of the strips
            "whole_picture",  # keep the planes of all of it, and make no tokens
            # where these lie in the memory
            "strips", "edge", "rows", "columns", "indices", "weights", "entries", "bits", "coefficients",
            "tokens",
        )
    ]
)  # fmt: skip

LATER, WITH_TABLES, OPTIMAL = range(3)
"""How tokens become bytes: not in this call; behind the last row, by the Huffman tables that are given; or
there, by the best ones.
"""

_LANE_NUMBERS = np.array(ORDER, np.uint32)
_PLACES = 64 * np.argsort(NATURAL)


# The indices of a batch are int32[64 zigzag][16]. To narrow them would take more operations than to join two.


@inlined
def _put_index(indices, k, index):
    store(indices + load_scalar(address(_PLACES) + 8 * k, "i64"), index)


_transpose = transpose_16 if WIDTH == 16 else transpose_words


@inlined
def _put(indices, k, value, scale):
    _put_index(indices, k, nearest(value, load_scalar(scale + 4 * k, "f32")))


@inlined
def _quantize_nearest(rows, indices, scale):
    """Column pass and rounding of a batch: float32 `rows` to `indices`. All are addresses."""
    for u in range(8):
        for lane in range(0, LANES, WIDTH):
            a, b, c, d, e, f, g, h = forward_column(rows + u * 64 + lane * 4)
            to = indices + lane * 4
            _put(to, u, a, scale)
            _put(to, u + 8, b, scale)
            _put(to, u + 16, c, scale)
            _put(to, u + 24, d, scale)
            _put(to, u + 32, e, scale)
            _put(to, u + 40, f, scale)
            _put(to, u + 48, g, scale)
            _put(to, u + 56, h, scale)


@inlined
def _draw(indices, k, value, scale, law, keys, hashed):
    scaled, key = load_scalar(scale + 4 * k, "f32"), load_scalar(keys + 8 + 4 * k, "u32")
    drawn = one_of_two(value, scaled, hashed, law + 8 * k, key, False)
    _put_index(indices, k, drawn)


@inlined
def _two_at_once(rows, columns, indices, scale, law, keys, hashed):
    """Column pass, then a draw from two candidates for each coefficient."""
    for u in range(8):
        a, b, c, d, e, f, g, h = forward_column(rows + u * 64)
        _draw(indices, u, a, scale, law, keys, hashed)
        _draw(indices, u + 8, b, scale, law, keys, hashed)
        _draw(indices, u + 16, c, scale, law, keys, hashed)
        _draw(indices, u + 24, d, scale, law, keys, hashed)
        _draw(indices, u + 32, e, scale, law, keys, hashed)
        _draw(indices, u + 40, f, scale, law, keys, hashed)
        _draw(indices, u + 48, g, scale, law, keys, hashed)
        _draw(indices, u + 56, h, scale, law, keys, hashed)


@inlined
def _begin_draw(columns, indices, k, value, scale, law):
    below, exponent = between_two(value, load_scalar(scale + 4 * k, "f32"), law + 8 * k)
    _put_index(indices, k, below)
    store(columns + 64 * k, exponent)


@inlined
def _two_in_turn(rows, columns, indices, scale, law, keys, hashed):
    """The same in two loops. In one loop, values that wait leave no registers for the next draw."""
    for u in range(8):
        for lane in range(0, LANES, WIDTH):
            a, b, c, d, e, f, g, h = forward_column(rows + u * 64 + lane * 4)
            exponents, to = columns + lane * 4, indices + lane * 4
            _begin_draw(exponents, to, u, a, scale, law)
            _begin_draw(exponents, to, u + 8, b, scale, law)
            _begin_draw(exponents, to, u + 16, c, scale, law)
            _begin_draw(exponents, to, u + 24, d, scale, law)
            _begin_draw(exponents, to, u + 32, e, scale, law)
            _begin_draw(exponents, to, u + 40, f, scale, law)
            _begin_draw(exponents, to, u + 48, g, scale, law)
            _begin_draw(exponents, to, u + 56, h, scale, law)
    for k in range(64):
        place = indices + load_scalar(address(_PLACES) + 8 * k, "i64")
        key = load_scalar(keys + 8 + 4 * k, "u32")
        step = step_up(load(columns + 64 * k, "f32x16"), hashed, key, False)
        store(place, load(place, "i32x16") + step)


_quantize_two = _two_at_once if WIDTH == 16 else _two_in_turn


@inlined
def _store_columns(rows, columns):
    """Column pass: float32[64 natural][16] at `columns`."""
    for u in range(8):
        for lane in range(0, LANES, WIDTH):
            a, b, c, d, e, f, g, h = forward_column(rows + u * 64 + lane * 4)
            store_8(columns + u * 64 + lane * 4, 512, a, b, c, d, e, f, g, h)


@inlined
def _quantize_mixed(rows, columns, indices, weights, scale, law, reach, limit, keys, hashed):
    """Column pass, then a draw for each coefficient, from as many candidates as its hardness needs."""
    _store_columns(rows, columns)
    for k in range(64):
        drawn = sample_16(
            load(columns + k * 64, "f32x16"), load_scalar(scale + 4 * k, "f32"), hashed,
            law + 8 * k, load_scalar(reach + 8 * k, "i64"),
            load_scalar(keys + 8 + 4 * k, "u32"), weights,
        )  # fmt: skip
        index = legal(drawn, k, np.int64(load_scalar(limit + 2 * k, "i16")))
        _put_index(indices, k, convert(index, "i32"))


@inlined
def _quantize_sampled(rows, columns, indices, weights, kind, scale, law, reach, limit, keys, first_block):
    """Column pass and drawing of a batch whose blocks are numbered from `first_block`."""
    hashed = block_hash(load(address(_LANE_NUMBERS), "u32x16") + splat(first_block, "u32x16"), keys)
    if kind == TWO:
        _quantize_two(rows, columns, indices, scale, law, keys, hashed)
    else:
        _quantize_mixed(rows, columns, indices, weights, scale, law, reach, limit, keys, hashed)


@inlined
def _fetch_batch(pixels, row_bytes, batch_bytes):
    """Ask for the pixels that a batch of blocks is made of."""
    for y in range(8):
        for at in range(0, batch_bytes, 64):
            fetch_ahead(pixels + y * row_bytes + at)


@inlined
def transform(
    job, room, strips, coefficients, geometry, kinds, scale, law, reach, limit, keys, base, mcu_row, below,
    row_bytes,
):  # fmt: skip
    """Quantize a row of MCUs: from its strips to coefficients.

    job: a record of `JOB`. room: address of the memory that it lays out.
    strips: address, see `colour.fill_strips`.
    coefficients: address of the planes, int16 blocks of 64 in zigzag order. geometry: their layout, see
        `scan`.
    kinds, scale, law, reach, limit, keys: arrays, see `quantize`.
    base: the row of MCUs at which the planes begin. mcu_row: the row to quantize.
    below: address of the first pixel of the next row of MCUs, whose pixels are asked for meanwhile; or 0.
    row_bytes: from one row of pixels to the next.
    """
    for c in range(geometry.shape[0]):
        strip = strips + (c > 0) * (8 * job.v * job.y_stride + (c - 1) * 8 * job.c_stride)
        strip_stride = job.c_stride if c else job.y_stride
        h, v, stride = geometry[c, H], geometry[c, V], geometry[c, STRIDE]
        rows, columns, indices = room + job.rows, room + job.columns, room + job.indices
        for y in range(v):
            row = (mcu_row - base) * v + y
            for x in range(0, job.mcus * h, LANES):
                if c == 0 and below != 0:
                    _fetch_batch(
                        below + y * 8 * row_bytes + x * 8 * job.pixel_bytes,
                        row_bytes,
                        LANES * 8 * job.pixel_bytes,
                    )
                forward_rows_16(strip + y * 8 * strip_stride + x * 8, strip_stride, rows)
                if keys is None or kinds[c] == NEAREST:
                    _quantize_nearest(rows, indices, address(scale) + c * 256)
                else:
                    first_block = (mcu_row * v + y) * job.mcus * h + x
                    _quantize_sampled(
                        rows, columns, indices, room + job.weights, kinds[c], address(scale) + c * 256,
                        address(law) + c * 512, address(reach) + c * 512, address(limit) + c * 128,
                        address(keys) + c * 264, first_block,
                    )  # fmt: skip
                _transpose(indices, coefficients + (geometry[c, PLANE] + row * stride + x) * 128)


@kernel
def encode_rows(
    jobs,
    pixels,
    row_bytes,
    mix,
    geometry,
    kinds,
    scale,
    law,
    reach,
    limit,
    keys,
    first,
    last,
    kept,
    memory,
    planes,
    count,
    desks,
    bounds,
    finish,
):
    """Encode the rows of MCUs first..last-1: quantized coefficients, tokens and, if asked, bytes. Returns the
    number of all tokens.

    jobs, desks: arrays of one record, of `JOB` and of `stream.DESK`.
    pixels: address of the picture's first pixel; rows are `row_bytes` apart.
    mix: int32[components, 4, 16], see `colour.channel_map`.
    geometry: int64[components, 7], see `scan`.
    kinds, scale, law, reach, limit, keys: see `quantize`. `keys` is None if all kinds are `NEAREST`: what
        draws is not compiled then.
    kept: the first row of MCUs whose tokens are kept. Rows before it only leave their DC predictions.
    memory: uint8 array that the job lays out.
    planes: int16[blocks, 64], zigzag order, if the job keeps whole planes; else empty.
    count: the number of tokens that are there already. New ones follow them.
    bounds: see `stream.interval_bounds`.
    finish: `LATER`, `WITH_TABLES` or `OPTIMAL`. With tables, symbols are not counted.
    """
    job, desk = jobs[0], desks[0]
    room = address(memory) + 63 & ~63
    coefficients = address(planes) if job.whole_picture else room + job.coefficients
    start = room + job.tokens
    out = start + 4 * count
    for mcu_row in range(first, last):
        fill_strips(
            pixels, row_bytes, job.layout, job.pixel_bytes, job.width, job.height, job.mcus * 8 * job.h,
            mcu_row * 8 * job.v, job.h, job.v, address(mix), geometry.shape[0], room + job.strips,
            job.y_stride, job.c_stride, room + job.edge,
        )  # fmt: skip
        below = pixels + (mcu_row + 1) * 8 * job.v * row_bytes if mcu_row + 1 < last else 0
        base = 0 if job.whole_picture else mcu_row
        transform(
            job, room, room + job.strips, coefficients, geometry, kinds, scale, law, reach, limit, keys,
            base, mcu_row, below, row_bytes,
        )  # fmt: skip
        if not job.whole_picture:
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
                desk.state,
                start,
                bounds,
            )
            if mcu_row < kept:
                out = begin
            elif finish != WITH_TABLES:
                count_symbols(begin, out, address(desk.counts))
    if finish != LATER and last * 8 * job.v >= job.height:
        code_in_place(start, out, memory, bounds, desk, finish == OPTIMAL, room + job.bits)
    return (out - start) // 4
