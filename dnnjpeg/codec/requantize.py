"""Quantized coefficients get coarser steps, and chroma gets fewer samples, without pixels.

Averaging neighbouring samples is linear, and so is the DCT: the coefficients of a block of averages are sums
of those of the blocks it is made of. Nothing is rounded or held to 0..255 on the way.
"""

from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np

from dnnjpeg.codec.dct import LANES, transpose_16
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.quantize import (
    NEAREST,
    NO_LIMIT,
    ROUNDER,
    Quantizer,
    block_hash,
    legal,
    random_keys,
    sample_16,
)
from dnnjpeg.codec.scan import COLUMNS, PLANE, ROWS, STRIDE, H
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.memory import empty
from dnnjpeg.machine.simd import (
    address,
    convert,
    count_zeros_low,
    fused,
    load,
    load_scalar,
    mask_bits,
    reinterpret,
    splat,
    store,
)

_NATURAL = np.array(NATURAL, np.uint8)
_ACROSS_FIRST = np.argsort(NATURAL).reshape(8, 8).T.ravel().astype(np.uint8)
"""By frequencies across, then down: the place in zigzag order."""
_LANE_NUMBERS = np.arange(LANES, dtype=np.uint32)


@kernel
def nearest_blocks(source, source_stride, target, target_stride, columns, rows, ratios):
    """Each coefficient of `rows` x `columns` blocks in zigzag order, times its ratio of steps, which is not
    above 1, to the nearest integer. All are addresses, strides in blocks; `ratios`: float32[64].
    """
    for y in range(rows):
        here, there = source + y * source_stride * 128, target + y * target_stride * 128
        for at in range(0, columns * 128, 128):
            for i in range(0, 128, 32):
                value = convert(load(here + at + i, "i16x16"), "f32x16")
                rounded = fused(value, load(ratios + 2 * i, "f32x16"), splat(ROUNDER, "f32x16"))
                store(there + at + i, convert(reinterpret(rounded, "i32x16"), "i16x16"))


@inlined
def _gather(blocks, columns):
    """Indices of sixteen blocks, one a lane, float32[64][16]."""
    for lane in range(16):
        for k in range(64):
            value = np.float32(load_scalar(blocks + lane * 128 + 2 * k, "i16"))
            store(columns + k * 64 + lane * 4, value)


@inlined
def _add_down(block, steps, matrix, columns):
    """Add a block, its frequencies down taken through a matrix, to float32[8 across][8 down]; returns the
    columns that it adds to, a bit each.
    """
    low, high = mask_bits(load(block, "i16x32") != 0), mask_bits(load(block + 64, "i16x32") != 0)
    left, used = low | high << np.uint64(32), np.uint64(0)
    while left != 0:
        k = np.int64(count_zeros_low(left))
        left &= left - np.uint64(1)
        value = np.float32(load_scalar(block + 2 * k, "i16")) * load_scalar(steps + 4 * k, "f32")
        place = np.int64(load_scalar(address(_NATURAL) + k, "u8"))
        row = columns + (place & 7) * 32
        used |= np.uint64(1) << np.uint64(place & 7)
        store(
            row, fused(splat(value, "f32x8"), load(matrix + (place >> 3) * 32, "f32x8"), load(row, "f32x8"))
        )
    return used


@inlined
def _add(total, vector, weight):
    return fused(vector, splat(load_scalar(weight, "f32"), "f32x8"), total)


@inlined
def _take_across(room, used, matrix):
    """The frequencies across of the `used` columns taken through a matrix, in place: to [across][down]."""
    zero = splat(np.float32(0), "f32x8")
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    while used != 0:
        i = np.int64(count_zeros_low(used))
        used &= used - np.uint64(1)
        vector, weights = load(room + i * 32, "f32x8"), matrix + i * 32
        a, b = _add(a, vector, weights), _add(b, vector, weights + 4)
        c, d = _add(c, vector, weights + 8), _add(d, vector, weights + 12)
        e, f = _add(e, vector, weights + 16), _add(f, vector, weights + 20)
        g, h = _add(g, vector, weights + 24), _add(h, vector, weights + 28)
    store(room, a)
    store(room + 32, b)
    store(room + 64, c)
    store(room + 96, d)
    store(room + 128, e)
    store(room + 160, f)
    store(room + 192, g)
    store(room + 224, h)


@inlined
def _reduce(
    source,
    stride,
    source_columns,
    source_rows,
    x,
    y,
    across,
    down,
    matrices_across,
    matrices_down,
    steps,
    room,
):
    """The coefficients of a block of averages in `room`, float32[8 across][8 down]."""
    high, wide = min(down, source_rows - y * down), min(across, source_columns - x * across)
    for i in range(0, 256 * across, 32):
        store(room + i, splat(np.float32(0), "f32x8"))
    used = np.uint64(0)
    for j in range(high):
        for i in range(wide):
            block = source + ((y * down + j) * stride + x * across + i) * 128
            matrix = matrices_down + (high * down + j) * 256
            used |= _add_down(block, steps, matrix, room + i * 256) << np.uint64(8 * i)
    _take_across(room, used, matrices_across + wide * across * 256)


@kernel
def reduce_blocks(
    source, source_stride, source_columns, source_rows, target, target_stride, columns, rows, across, down,
    matrices_across, matrices_down, steps, scale, memory,
):  # fmt: skip
    """`requantize_batches` of averages to the nearest integer: block by block, and of what is not zero."""
    room = memory + 63 & ~63
    scales, indices = room + 1024, room + 1280
    for i in range(64):
        place = np.int64(load_scalar(address(_ACROSS_FIRST) + i, "u8"))
        store(scales + 4 * i, load_scalar(scale + 4 * place, "f32"))
    for y in range(rows):
        for x in range(columns):
            _reduce(
                source, source_stride, source_columns, source_rows, x, y, across, down,
                matrices_across, matrices_down, steps, room,
            )  # fmt: skip
            left = np.uint64(0)
            for i in range(0, 64, 16):
                value, by = load(room + 4 * i, "f32x16"), load(scales + 4 * i, "f32x16")
                rounded = reinterpret(fused(value, by, splat(ROUNDER, "f32x16")), "i32x16")
                index = convert(rounded, "i16x16")
                store(indices + 2 * i, index)
                left |= mask_bits(index != 0) << np.uint64(i)
            block = target + (y * target_stride + x) * 128
            store(block, splat(0, "u8x64"))
            store(block + 64, splat(0, "u8x64"))
            while left != 0:
                i = np.int64(count_zeros_low(left))
                left &= left - np.uint64(1)
                value = np.int64(load_scalar(indices + 2 * i, "i16"))
                place = np.int64(load_scalar(address(_ACROSS_FIRST) + i, "u8"))
                store(block + 2 * place, np.int16(max(min(value, 1023), -1023 - (i == 0))))


@kernel
def requantize_batches(
    source, source_stride, source_columns, source_rows, target, target_stride, columns, rows, across, down,
    matrices_across, matrices_down, steps, scale, law, reach, limit, keys, first_stride, memory,
):  # fmt: skip
    """Sixteen blocks at a time: averages of `across` x `down` samples, or with 1 x 1 the indices as they are,
    times `scale`, to the nearest integer or one that is drawn (see `quantize`). Tables are in zigzag order.

    matrices: float32[n, j, 8, 8], of the j-th of n blocks that there are. `memory`: address of scratch.
    """
    values = memory + 63 & ~63
    indices, room, weights = values + 4096, values + 6144, values + 7168
    for y in range(rows):
        for x in range(0, columns, 16):
            if across * down == 1:
                _gather(source + (y * source_stride + x) * 128, values)
            else:
                for lane in range(min(16, columns - x)):
                    _reduce(
                        source, source_stride, source_columns, source_rows, x + lane, y, across, down,
                        matrices_across, matrices_down, steps, room,
                    )  # fmt: skip
                    for i in range(64):
                        k = np.int64(load_scalar(address(_ACROSS_FIRST) + i, "u8"))
                        store(values + k * 64 + lane * 4, load_scalar(room + 4 * i, "f32"))
            numbers = load(address(_LANE_NUMBERS), "u32x16") + splat(y * first_stride + x, "u32x16")
            hashed = block_hash(numbers, keys)
            for k in range(64):
                drawn = sample_16(
                    load(values + k * 64, "f32x16"), load_scalar(scale + 4 * k, "f32"), hashed, law + 8 * k,
                    load_scalar(reach + 8 * k, "i64"), load_scalar(keys + 8 + 4 * k, "u32"), weights,
                )  # fmt: skip
                store(indices + k * 32, legal(drawn, k, np.int64(load_scalar(limit + 2 * k, "i16"))))
            transpose_16(indices, target + (y * target_stride + x) * 128)


@lru_cache(maxsize=8)
def _averaging(factor: int) -> np.ndarray:
    """float32[factor + 1, factor, 8, 8]: the j-th of n blocks side by side, frequency by frequency, to the
    block of averages of `factor` samples. Where n < factor, the last sample stands for those that lack.
    """
    k, n = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    dct = np.where(k == 0, np.sqrt(1 / 8), 0.5) * np.cos((2 * n + 1) * k * np.pi / 16)
    average = np.kron(np.eye(8), np.full((1, factor), 1 / factor))
    parts = [dct @ average[:, 8 * j : 8 * j + 8] @ dct.T for j in range(factor)]
    repeat = dct @ np.outer(np.ones(8), dct.T[7])
    matrices = np.zeros((factor + 1, factor, 8, 8), np.float32)
    for count in range(1, factor + 1):
        for j, part in enumerate(parts):
            if j < count:
                matrices[count, j] += part.T
            else:
                matrices[count, count - 1] += (part @ repeat).T
    return matrices


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


Sampling = tuple[tuple[int, int], ...]


def reduction(source: Sampling, target: Sampling, c: int) -> tuple[int, int]:
    """The number of samples of component c, across and down, that become one in another sampling."""
    (most_h, most_v), (new_h, new_v) = (tuple(map(max, zip(*one, strict=True))) for one in (source, target))
    (h, v), (after_h, after_v) = source[c], target[c]
    return new_h * h // (most_h * after_h), new_v * v // (most_v * after_v)


class Law(NamedTuple):
    """What is done to a component, tables in zigzag order, see the kernels; `near`: by `nearest_blocks` or
    `reduce_blocks`.
    """

    across: int
    down: int
    near: bool
    steps: np.ndarray
    scale: np.ndarray
    law: np.ndarray
    reach: np.ndarray
    limit: np.ndarray


class Laws(NamedTuple):
    """By component; and whether any coefficient is drawn, from how many candidates at the most."""

    components: tuple[Law, ...]
    sampled: bool
    candidates: int

    @classmethod
    def of(
        cls,
        known: tuple[Steps, ...],
        divisors: tuple[tuple[float, ...], ...],
        quantizer: Quantizer,
        before: Sampling,
        after: Sampling,
    ) -> Self:
        """known: steps of the source by component; divisors: where one equals its step, the index stays."""
        laws = []
        for c, (steps, divisor) in enumerate(zip(known, divisors, strict=True)):
            across, down = reduction(before, after, c)
            step, by = np.array(steps, np.float32)[_NATURAL], np.array(divisor)[_NATURAL]
            reach, whole = quantizer.reach[c][_NATURAL], across * down == 1
            if whole:
                reach[by == step] = NEAREST
            scale = ((step if whole else 1) / by).astype(np.float32)
            limit = quantizer.limit[c][_NATURAL]
            near = not reach.any() and bool(limit.min() == NO_LIMIT and (not whole or scale.max() <= 1))
            laws.append(Law(across, down, near, step, scale, quantizer.law[c][_NATURAL], reach, limit))
        return cls(tuple(laws), quantizer.sampled, quantizer.candidates)


def requantize(source: Frame, planes: np.ndarray, target: Frame, laws: Laws, seed: int) -> np.ndarray:
    """int16[blocks, 64], laid out as the target's `Frame.planes(True)` says, from planes laid out as the
    source's. The target may have fewer blocks in a component, by a whole factor.
    """
    here, there = (frame.planes(True)[0].tolist() for frame in (source, target))
    out = empty(target.planes(True)[1] * 64, np.int16)
    begin, end = _address(planes), _address(out)
    memory = np.empty(7168 + 64 * laws.candidates + 64, np.uint8)
    room = _address(memory)
    keys = _address(random_keys(seed if laws.sampled else 0, len(here)))
    for c, law in enumerate(laws.components):
        stride, columns, rows = here[c][STRIDE], here[c][COLUMNS], here[c][ROWS]
        first, scale = begin + here[c][PLANE] * 128, _address(law.scale)
        place = (end + there[c][PLANE] * 128, there[c][STRIDE], there[c][COLUMNS], there[c][ROWS])
        if law.near and law.across * law.down == 1:
            nearest_blocks(first, stride, *place, scale)
            continue
        matrices = (_address(_averaging(law.across)), _address(_averaging(law.down)), _address(law.steps))
        where = (first, stride, columns, rows, *place, law.across, law.down, *matrices, scale)
        if law.near:
            reduce_blocks(*where, room)
        else:
            requantize_batches(
                *where, _address(law.law), _address(law.reach), _address(law.limit),
                keys + c * 264, target.mcus * there[c][H], room,
            )  # fmt: skip
    return out.reshape(-1, 64)
