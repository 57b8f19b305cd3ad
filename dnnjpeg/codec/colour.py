"""From pixels to strips: RGB to YCbCr (JFIF 1.02, full range), chroma averaged, one row of MCUs at a time.

A strip holds the samples of a component for one row of MCUs: uint8, 8v rows. The last sample of a row is
repeated to the right, and the last row below. Pixels of several channels are mapped by integers:
sample = (offset + channels · weights) >> shift. Chroma is averaged before this map, so it is rounded once.
"""

from functools import lru_cache

import numpy as np

from dnnjpeg.codec.usual import usual_spans
from dnnjpeg.machine.jit import host_has, inlined
from dnnjpeg.machine.native import multiply_pairs
from dnnjpeg.machine.simd import convert, load, load_scalar, reinterpret, shuffler, store

PLANE, PACKED_3, PACKED_4 = range(3)
"""Layouts: one, three or four bytes a pixel."""

MAP_BYTES = 256  # the size of one component's part of a channel map

_JOIN_32 = shuffler(range(32))
_JOIN_64 = shuffler(range(64))
_SPREAD_LANES = shuffler(
    [16 * (pixel // 4) + 3 * (pixel % 4) + byte for pixel in range(16) for byte in range(4)]
)
_SPREAD = shuffler([3 * pixel + byte for pixel in range(16) for byte in range(4)])
_ANY_BYTE = host_has("avx512vbmi")
_EVEN = shuffler(range(0, 32, 2))
_ODD = shuffler(range(1, 32, 2))

# Weights of R, G, B in Y, Cb, Cr, in 1/32768; each row of a colour difference sums to 0, so that grays
# stay gray.
_YCBCR = ((9798, 19235, 3735), (-5529, -10855, 16384), (16384, -13720, -2664))


@lru_cache(maxsize=32)
def channel_map(mode: str, averaged: int) -> tuple[int, int, np.ndarray]:
    """The integers that turn pixels of a mode into components.

    mode: a key of `pixels.MODES`, or "YCbCrX".
    averaged: the number of pixels that one chroma sample stands for: 1, 2 or 4.

    Returns the layout (`PLANE`, `PACKED_3` or `PACKED_4`), the bytes a pixel, and the map, int32[3 or 4
    components, 4, 16]. Its four rows are the weights of channels 0 and 2 (two int16), the weights of channels
    1 and 3, the offset, and the shift. All 16 lanes of a row are equal. Gray pixels need no map: theirs is 0.
    """
    if mode == "L":
        return PLANE, 1, np.zeros((3, 4, 16), np.int32)
    if mode == "CMYK":  # stored inverted, as Adobe's programs and Pillow do
        rows = [[-16384 * (c == k) for c in range(4)] for k in range(4)]
        return PACKED_4, 4, _pack(rows, [(255 << 14, 14)] * 4)
    layout, width = (PACKED_4, 4) if mode.endswith("X") else (PACKED_3, 3)
    bits = averaged.bit_length() - 1
    if mode.startswith("YCbCr"):
        rows = [[16384 * (c == k) for c in range(3)] for k in range(3)]
        luma, chroma = (1 << 13, 14), (1 << 13 + bits, 14 + bits)
    else:
        rows = [list(row[::-1] if mode.startswith("BGR") else row) for row in _YCBCR]
        luma, chroma = (1 << 14, 15), ((128 << 15 + bits) + (1 << 14 + bits) - 1, 15 + bits)
    return layout, width, _pack([[*row, 0] for row in rows], [luma, chroma, chroma])


def _pack(rows: list[list[int]], ends: list[tuple[int, int]]) -> np.ndarray:
    weights = np.array(rows, np.int16)
    pairs = np.ascontiguousarray(weights[:, [0, 2, 1, 3]]).view(np.int32)
    scalars = np.concatenate([pairs, np.array(ends, np.int32)], axis=1)
    return np.repeat(scalars[:, :, None], 16, axis=2)


@inlined
def _channels(at, layout):
    """Load sixteen pixels as two i16x32: channels 0 and 2, and channels 1 and 3, a pair for each pixel. Up to
    16 bytes behind the pixels are read.
    """
    if layout == PACKED_4:
        words = load(at, "u32x16")
    elif _ANY_BYTE:
        pixels = load(at, "u8x64")
        words = reinterpret(_SPREAD(pixels, pixels), "u32x16")
    else:  # four pixels a 16-byte lane, so that the shuffle stays inside lanes
        low = _JOIN_32(load(at, "u8x16"), load(at + 12, "u8x16"))
        high = _JOIN_32(load(at + 24, "u8x16"), load(at + 36, "u8x16"))
        pixels = _JOIN_64(low, high)
        words = reinterpret(_SPREAD_LANES(pixels, pixels), "u32x16")
    return reinterpret(words & 0x00FF00FF, "i16x32"), reinterpret(reinterpret(words, "u16x32") >> 8, "i16x32")


@inlined
def _part(mix):
    """Load a component's part of the channel map, at address `mix`, as vectors."""
    return load(mix, "i16x32"), load(mix + 64, "i16x32"), load(mix + 128, "i32x16"), load(mix + 192, "i32x16")


@inlined
def _put(at, even, odd, part):
    """Compute sixteen samples of a component."""
    # added one by one, which is what processors have an instruction for
    weighted = part[2] + multiply_pairs(even, part[0]) + multiply_pairs(odd, part[1])
    store(at, convert(weighted >> part[3], "u8x16"))


@inlined
def _luma(source_0, source_1, target_0, target_1, layout, rows, part):
    """Write the luma of sixteen columns in one or two rows; return their channels, summed over the rows."""
    even, odd = _channels(source_0, layout)
    _put(target_0, even, odd, part)
    if rows == 2:
        even_1, odd_1 = _channels(source_1, layout)
        _put(target_1, even_1, odd_1, part)
        even, odd = even + even_1, odd + odd_1
    return even, odd


@inlined
def _fold(a, b):
    """Sums of neighbouring pixels: two i16x32 of 16 pixels each to one of 16 pairs."""
    left, right = reinterpret(a, "i32x16"), reinterpret(b, "i32x16")
    return reinterpret(_EVEN(left, right), "i16x32") + reinterpret(_ODD(left, right), "i16x32")


@inlined
def _span(source_0, source_1, y_0, y_1, chroma, plane, layout, pixel_bytes, h, v, parts, mix, components):
    """Compute all components of 16h columns in v rows."""
    step = 16 * pixel_bytes
    even, odd = _luma(source_0, source_1, y_0, y_1, layout, v, parts[0])
    if h >= 2:
        even_1, odd_1 = _luma(source_0 + step, source_1 + step, y_0 + 16, y_1 + 16, layout, v, parts[0])
        even, odd = _fold(even, even_1), _fold(odd, odd_1)
    if h == 4:
        even_2, odd_2 = _luma(
            source_0 + 2 * step, source_1 + 2 * step, y_0 + 32, y_1 + 32, layout, v, parts[0]
        )
        even_3, odd_3 = _luma(
            source_0 + 3 * step, source_1 + 3 * step, y_0 + 48, y_1 + 48, layout, v, parts[0]
        )
        even, odd = _fold(even, _fold(even_2, even_3)), _fold(odd, _fold(odd_2, odd_3))
    _put(chroma, even, odd, parts[1])
    _put(chroma + plane, even, odd, parts[2])
    if components == 4:
        _put(chroma + 2 * plane, even, odd, _part(mix + 3 * MAP_BYTES))


@inlined
def _spans(
    source_0, source_1, y_0, y_1, chroma, plane, width, layout, pixel_bytes, h, v, parts, mix, components
):  # fmt: skip
    """Compute all components of `width` columns, rounded up to a multiple of 16h."""
    for _ in range(0, width, 16 * h):
        _span(source_0, source_1, y_0, y_1, chroma, plane, layout, pixel_bytes, h, v, parts, mix, components)
        source_0 += 16 * h * pixel_bytes
        source_1 += 16 * h * pixel_bytes
        y_0 += 16 * h
        y_1 += 16 * h
        chroma += 16


@inlined
def _usual_wide(source_0, source_1, y_0, y_1, chroma, plane, width, layout, pixel_bytes, parts, mix):
    _spans(source_0, source_1, y_0, y_1, chroma, plane, width, layout, pixel_bytes, 2, 2, parts, mix, 3)


@inlined
def _usual_narrow(source_0, source_1, y_0, y_1, chroma, plane, width, layout, pixel_bytes, parts, mix):
    usual_spans(source_0, source_1, y_0, y_1, chroma, plane, width, pixel_bytes, mix)


_usual = _usual_wide if host_has("avx512bw") else _usual_narrow


@inlined
def _copy_end(source, count, pixel_bytes, target, total):
    """The last `count` pixels of a row, which begin at `source`, then the last one repeated up to `total`."""
    size = count * pixel_bytes
    if size >= 16:
        for i in range(0, size - 16, 16):
            store(target + i, load(source + i, "u8x16"))
        store(target + size - 16, load(source + size - 16, "u8x16"))
    else:
        for i in range(size):
            store(target + i, load_scalar(source + i, "u8"))
    last = load_scalar(target + size - pixel_bytes, "u32")  # `target` has bytes to spare
    for i in range(count, total):
        store(target + i * pixel_bytes, last)


@inlined
def fill_strips(
    pixels,
    row_bytes,
    layout,
    pixel_bytes,
    width,
    height,
    padded,
    top,
    h,
    v,
    mix,
    components,
    strips,
    y_stride,
    c_stride,
    edge,
):
    """Fill the strips of one row of MCUs.

    pixels: address of the picture's first pixel; its rows are `row_bytes` apart.
    layout, pixel_bytes: see `channel_map`. mix: address of its map.
    width, height: of the picture, in pixels.
    padded: width of a strip in pixels, a whole number of MCUs.
    top: the first row of pixels.
    h, v: sampling factors of component 0. Those of the others are 1.
    strips: address of component 0, 8v rows of `y_stride` bytes. Each other component follows, 8 rows of
        `c_stride` bytes.
    edge: address of room for two rows of 128 pixels of 4 bytes.
    """
    step = 64 if layout == PLANE else 16 * h
    # held in registers, for nothing tells the compiler that the stores below leave the map alone
    parts = _part(mix), _part(mix + MAP_BYTES), _part(mix + 2 * MAP_BYTES)
    spare = 6 if layout == PACKED_3 else 0  # pixels of three bytes are read with bytes behind them
    whole = max(width - spare, 0) // step * step  # whole steps that do not read past the row
    for y in range(8):
        source_0 = pixels + min(top + y * v, height - 1) * row_bytes
        y_0 = strips + y * v * y_stride
        if layout == PLANE:
            for x in range(0, whole, step):
                store(y_0 + x, load(source_0 + x, "u8x64"))
            if whole < padded:
                _copy_end(source_0 + whole, width - whole, pixel_bytes, edge, padded - whole)
            for x in range(0, padded - whole, step):
                store(y_0 + whole + x, load(edge + x, "u8x64"))
            continue
        source_1 = pixels + min(top + y * v + v - 1, height - 1) * row_bytes
        y_1 = y_0 + (v - 1) * y_stride
        chroma = strips + 8 * v * y_stride + y * c_stride
        plane = 8 * c_stride
        # the most usual pictures have loops of their own, without the branches
        usual = True
        if layout == PACKED_3 and h == 2 and v == 2:
            _usual(source_0, source_1, y_0, y_1, chroma, plane, whole, PACKED_3, 3, parts, mix)
        elif layout == PACKED_4 and h == 2 and v == 2:
            _usual(source_0, source_1, y_0, y_1, chroma, plane, whole, PACKED_4, 4, parts, mix)
        else:
            usual = False
        if whole < padded:
            _copy_end(source_0 + whole * pixel_bytes, width - whole, pixel_bytes, edge, padded - whole)
            _copy_end(source_1 + whole * pixel_bytes, width - whole, pixel_bytes, edge + 512, padded - whole)
        # whole steps, then the edge: one loop, for this is the longest code of all to compile
        for at_edge in range(usual, 2):
            if at_edge:
                source_0, source_1, columns = edge, edge + 512, padded - whole
                y_0, y_1, chroma = y_0 + whole, y_1 + whole, chroma + whole // step * 16
            else:
                columns = whole
            _spans(
                source_0, source_1, y_0, y_1, chroma, plane, columns,
                layout, pixel_bytes, h, v, parts, mix, components,
            )  # fmt: skip
