"""Quantized coefficients get coarser steps, and chroma gets fewer samples, without pixels."""

from typing import NamedTuple, Self

import numpy as np

from dnnjpeg.codec import reduce
from dnnjpeg.codec.dct import LANES, store_4, transpose_16
from dnnjpeg.codec.halve import FOLDED, JOINED, folding
from dnnjpeg.codec.quantize import (
    NEAREST,
    NO_LIMIT,
    ROUNDER,
    Quantizer,
    block_hash,
    legal,
    sample_16,
)
from dnnjpeg.codec.reduce import average
from dnnjpeg.codec.scan import COLUMNS, PLANE, ROWS, STRIDE, H, V
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.jit import inlined
from dnnjpeg.machine.simd import (
    address,
    convert,
    fused,
    load,
    load_scalar,
    reinterpret,
    select,
    shuffler,
    splat,
    store,
)

LAW = np.dtype(
    [
        ("across", np.int64), ("down", np.int64),  # samples that become one
        ("near", np.int64),  # whether all go to the nearest integer, and none can be out of T.81's bounds
        # of the source, in folded order, and what is made of them to halve samples, see `halve`
        ("steps", np.float32, 64), ("folding", np.float32, 64),
        ("scale", np.float32, 64), ("law", np.float32, (64, 2)),  # see `quantize.Quantizer`, as the next two
        ("reach", np.int64, 64), ("limit", np.int16, 64),
        ("scale_joined", np.float32, 64),  # the scale in the order `halve.JOINED`
    ],
    align=True,
)  # fmt: skip
"""What is done to a component; tables are in zigzag order unless told otherwise."""

_AVERAGES = 8192  # in the room of a draw, where averages are computed
ROOM = _AVERAGES + reduce.ROOM  # bytes that `requantize_row` works in, and 64 for each candidate of a draw

_NATURAL = np.array(NATURAL, np.uint8)
_LANE_NUMBERS = np.arange(LANES, dtype=np.uint32)
_LOWEST_AC = ROUNDER - 1023  # T.81 F.1.2
_LOWEST = np.array([ROUNDER - 1024] + [_LOWEST_AC] * 15, np.float32)  # of DC, and of AC behind it
_FAR = 4096.0  # beyond these bounds, and far within those of int16
_ZIGZAG = np.argsort(JOINED).tolist()
_FIRST_ZIGZAG, _LAST_ZIGZAG = shuffler(_ZIGZAG[:32]), shuffler(_ZIGZAG[32:])
_PAIR = shuffler(range(32))


@inlined
def _nearest_blocks(source, target, columns, ratios):
    """Each coefficient of a row of blocks, times its ratio of steps, which is not above 1, to the nearest
    integer. All are addresses.
    """
    for at in range(0, columns * 128, 128):
        for i in range(0, 128, 32):
            value = convert(load(source + at + i, "i16x16"), "f32x16")
            rounded = fused(value, load(ratios + 2 * i, "f32x16"), splat(ROUNDER, "f32x16"))
            store(target + at + i, convert(reinterpret(rounded, "i32x16"), "i16x16"))


@inlined
def _gather(blocks, columns):
    """Indices of sixteen blocks, one a lane, float32[64][16]."""
    for lane in range(16):
        for k in range(64):
            value = np.float32(load_scalar(blocks + lane * 128 + 2 * k, "i16"))
            store(columns + k * 64 + lane * 4, value)


@inlined
def _average(law, source, place, x, y, folded, room):
    return average(
        source, place[STRIDE], place[COLUMNS], place[ROWS], x, y, law.across, law.down, folded,
        address(law.steps), address(law.folding), room,
    )  # fmt: skip


@inlined
def _rounded(value, scales, lowest):
    """Times the scales at an address, to the nearest integer within T.81's bounds, i16x16. lowest: the lower
    bounds and `ROUNDER`.
    """
    rounded = fused(value, load(scales, "f32x16"), splat(ROUNDER, "f32x16"))
    rounded = select(rounded < lowest, lowest, rounded)
    rounded = select(rounded > ROUNDER + 1023, ROUNDER + 1023, rounded)
    return convert(reinterpret(rounded, "i32x16"), "i16x16")


@inlined
def _nearest_averages(law, source, place, target, columns, y, folded, room):
    """A row of blocks of averages to the nearest integer, block by block."""
    scales = address(law.scale_joined)
    with_dc, others = load(address(_LOWEST), "f32x16"), splat(_LOWEST_AC, "f32x16")
    for x in range(columns):
        a, b, c, d = _average(law, source, place, x, y, folded, room)
        low = _PAIR(_rounded(a, scales, with_dc), _rounded(b, scales + 64, others))
        high = _PAIR(_rounded(c, scales + 128, others), _rounded(d, scales + 192, others))
        store(target + x * 128, _FIRST_ZIGZAG(low, high))
        store(target + x * 128 + 64, _LAST_ZIGZAG(low, high))


@inlined
def _drawn_batches(law, source, place, target, columns, y, folded, first_block, keys, room):
    """A row of blocks, sixteen at a time: averages, or the indices as they are, times the scale, to the
    nearest integer or one that is drawn (see `quantize`).
    """
    values, indices, averages, weights = room, room + 4096, room + _AVERAGES, room + ROOM
    for x in range(0, columns, 16):
        if law.across * law.down == 1:
            _gather(source + (y * place[STRIDE] + x) * 128, values)
        else:
            for lane in range(min(16, columns - x)):
                a, b, c, d = _average(law, source, place, x + lane, y, folded, averages)
                store_4(averages, 64, a, b, c, d)
                for i in range(64):
                    k = np.int64(load_scalar(address(JOINED) + i, "u8"))
                    store(values + k * 64 + lane * 4, load_scalar(averages + 4 * i, "f32"))
        numbers = load(address(_LANE_NUMBERS), "u32x16") + splat(first_block + x, "u32x16")
        hashed = block_hash(numbers, keys)
        for k in range(64):
            value, most = load(values + k * 64, "f32x16"), np.float32(_FAR) / law.scale[k]
            value = select(value > most, most, value)
            drawn = sample_16(
                select(value < -most, -most, value), law.scale[k], hashed, address(law.law) + 8 * k,
                law.reach[k], load_scalar(keys + 8 + 4 * k, "u32"), weights,
            )  # fmt: skip
            store(indices + k * 64, convert(legal(drawn, k, np.int64(law.limit[k])), "i32"))
        transpose_16(indices, target + x * 128)


@inlined
def requantize_row(laws, planes, places, in_rows, target, geometry, base, mcu_row, mcus, keys, room):
    """The blocks of a row of MCUs, from planes laid out as `places` says, to those at `target` that are laid
    out as `geometry` says, and begin with the row `base`.

    laws: array of records of `LAW`. planes, target, room: addresses. keys: None if all laws are `near`.
    in_rows: whether the planes begin with what becomes this row of MCUs, and not with the picture. Then
        components whose samples are averaged are in folded order, see `halve`.
    """
    for c in range(laws.size):
        law, place = laws[c], places[c]
        h, v, columns = geometry[c, H], geometry[c, V], geometry[c, COLUMNS]
        above = mcu_row * v * law.down if in_rows else 0
        source = planes + (place[PLANE] - above * place[STRIDE]) * 128
        for y in range(mcu_row * v, min(mcu_row * v + v, geometry[c, ROWS])):
            out = target + (geometry[c, PLANE] + (y - base * v) * geometry[c, STRIDE]) * 128
            if keys is not None and not law.near:
                first_block, own = y * mcus * h, address(keys) + c * 264
                _drawn_batches(law, source, place, out, columns, y, in_rows, first_block, own, room)
            elif law.across * law.down == 1:
                _nearest_blocks(source + y * place[STRIDE] * 128, out, columns, address(law.scale))
            else:
                _nearest_averages(law, source, place, out, columns, y, in_rows, room)


Sampling = tuple[tuple[int, int], ...]


def reduction(source: Sampling, target: Sampling, c: int) -> tuple[int, int]:
    """The number of samples of component c, across and down, that become one in another sampling."""
    (most_h, most_v), (new_h, new_v) = (tuple(map(max, zip(*one, strict=True))) for one in (source, target))
    (h, v), (after_h, after_v) = source[c], target[c]
    return new_h * h // (most_h * after_h), new_v * v // (most_v * after_v)


class Laws(NamedTuple):
    """One record of `LAW` a component; bool[components], whether its samples are averaged; whether all laws
    are `near`; and whether any coefficient is drawn, from how many candidates at the most.
    """

    components: np.ndarray
    reduced: np.ndarray
    near: bool
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
        laws = np.zeros(len(known), LAW)
        for c, (steps, divisor) in enumerate(zip(known, divisors, strict=True)):
            across, down = reduction(before, after, c)
            step, by = np.array(steps, np.float32)[_NATURAL], np.array(divisor)[_NATURAL]
            reach, whole = quantizer.reach[c][_NATURAL], across * down == 1
            if whole:
                reach[by == step] = NEAREST
            scale = ((step if whole else 1) / by).astype(np.float32)
            limit = quantizer.limit[c][_NATURAL]
            near = not reach.any() and bool(limit.min() == NO_LIMIT and (not whole or scale.max() <= 1))
            law = quantizer.law[c][_NATURAL]
            folded = step[FOLDED]
            laws[c] = (
                across, down, near, folded, folding(folded), scale, law, reach, limit, scale[JOINED],
            )  # fmt: skip
        reduced = laws["across"] * laws["down"] > 1
        return cls(laws, reduced, bool(laws["near"].all()), quantizer.sampled, quantizer.candidates)
