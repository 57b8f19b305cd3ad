"""Loads, stores and lanes of vectors against numpy, lane by lane."""

from typing import Any

import numba
import numpy as np
import pytest

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.native import multiply_pairs, pack, pick_bytes
from dnnjpeg.machine.simd import (
    address,
    compress,
    convert,
    count_set,
    fetch_add,
    fused,
    lanes_of,
    load,
    load_scalar,
    load_where,
    magnitude_bits,
    mask_bits,
    reinterpret,
    select,
    shuffler,
    splat,
    store,
    store_where,
)
from dnnjpeg.machine.words import big_endian, count_ones, count_zeros_low, highest_bit

MASK = [31, 0, 16, 15, 1, 1, 30, 2, 3, 17, 18, 19, 4, 5, 6, 7]
_shuffle = shuffler(MASK)


@numba.njit
def _moved(source, target, offset):
    at = address(source) + offset
    store(address(target), load(at, "u8x64"))
    store(address(target) + 64, load_scalar(at, "u16"))
    store(address(target) + 66, load_scalar(at, "i64"))
    store(address(target) + 74, np.uint8(7))
    store(address(target) + 75, splat(-2, "i16x8"))


@pytest.mark.parametrize("offset", [0, 1, 3, 63])
def test_memory_at_any_alignment(offset: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, 200, np.uint8)
    target = np.zeros(100, np.uint8)
    _moved(source, target, offset)
    part = source[offset:]
    assert np.array_equal(target[:64], part[:64])
    assert np.array_equal(target[64:66], part[:2]) and np.array_equal(target[66:74], part[:8])
    assert target[74] == 7 and np.array_equal(target[75:91].view(np.int16), np.full(8, -2))
    assert not target[91:].any()


@numba.njit
def _converted(bytes_, words, floats, out):
    unsigned, signed = load(address(bytes_), "u8x16"), load(address(bytes_), "i8x16")
    store(address(out[0]), convert(unsigned, "i32x16"))
    store(address(out[1]), convert(signed, "i32x16"))
    store(address(out[2]), convert(convert(load(address(words), "i32x16"), "u8x16"), "i32x16"))
    store(address(out[3]), convert(load(address(floats), "f32x16"), "i32x16"))
    store(address(out[4]), reinterpret(convert(load(address(words), "i32x16"), "f32x16"), "i32x16"))
    store(address(out[5]), reinterpret(convert(load(address(words), "u32x16"), "f32x16"), "i32x16"))
    store(address(out[6]), reinterpret(load(address(floats), "f32x16"), "i32x16"))
    store(address(out[7]), convert(load(address(words), "i32x16") > 5, "i32x16"))


def test_conversions() -> None:
    bytes_ = np.array([0, 1, 127, 128, 129, 255] * 3, np.uint8)[:16]
    words = np.array(
        [0, 5, 6, -1, 255, 256, -256, 2**31 - 1, -(2**31), 100_000_007, -7, 300, 1, 2, 3, 4], np.int32
    )
    floats = np.array([0.9, -0.9, 1.5, -1.5, 2.5, 1e9, -1e9, -0.0] * 2, np.float32)
    out = np.zeros((8, 16), np.int32)
    _converted(bytes_, words, floats, out)
    expected = [
        bytes_.astype(np.int32),
        bytes_.view(np.int8).astype(np.int32),
        words.astype(np.uint8).astype(np.int32),
        floats.astype(np.int32),  # towards zero
        words.astype(np.float32).view(np.int32),
        words.view(np.uint32).astype(np.float32).view(np.int32),
        floats.view(np.int32),
        (words > 5).astype(np.int32),
    ]
    for row, one in zip(out, expected, strict=True):
        assert np.array_equal(row, one)


@numba.njit
def _lanes(a, b, bits, out, masks, compressed):
    x, y = load(address(a), "i16x16"), load(address(b), "i16x16")
    store(address(out[0]), _shuffle(x, y))
    store(address(out[1]), select(x > y, x, y))
    mask = lanes_of(bits, "i1x16")
    masks[0] = mask_bits(mask)
    masks[1] = mask_bits(lanes_of(bits, "i1x64"))
    masks[2] = mask_bits(lanes_of(bits, "i1x8"))
    store(address(compressed), compress(x, mask))


@pytest.mark.parametrize("bits", [0, 1, 0x8000, 0xFFFF, 0xA5F0_1234_8765_4321])
def test_lanes(bits: int) -> None:
    rng = np.random.default_rng(bits % 1000)
    a, b = rng.integers(-(2**15), 2**15, (2, 16)).astype(np.int16)
    out, masks, compressed = np.zeros((2, 16), np.int16), np.zeros(3, np.uint64), np.zeros(16, np.int16)
    _lanes(a, b, np.uint64(bits), out, masks, compressed)
    assert np.array_equal(out[0], np.concatenate([a, b])[MASK])
    assert np.array_equal(out[1], np.maximum(a, b))
    assert masks.tolist() == [bits & 0xFFFF, bits, bits & 0xFF]
    chosen = a[[bool(bits >> i & 1) for i in range(16)]]
    assert np.array_equal(compressed[: chosen.size], chosen)


@numba.njit
def _picked(bytes_, numbers, out):
    store(address(out), pick_bytes(load(address(bytes_), "u8x16"), load(address(numbers), "u8x16")))


@pytest.mark.skipif(not host_has("ssse3"), reason="this processor has no such instruction")
def test_bytes_are_picked_by_number() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        bytes_, numbers = rng.integers(0, 256, 16, np.uint8), rng.integers(0, 16, 16, np.uint8)
        out = np.zeros(16, np.uint8)
        _picked(bytes_, numbers, out)
        assert np.array_equal(out, bytes_[numbers])


@numba.njit
def _packed(words, shorts, narrow, bytes_, ones):
    a, b = load(address(shorts), "i16x16"), load(address(shorts) + 32, "i16x16")
    store(address(narrow), pack(load(address(words), "i32x8"), load(address(words) + 32, "i32x8")))
    store(address(bytes_), pack(a, b))
    store(address(ones), count_set(a))


def test_lanes_that_fit_are_packed_by_sixteen_bytes() -> None:
    rng = np.random.default_rng(0)
    words, shorts = rng.integers(-(2**15), 2**15, 16, np.int32), rng.integers(0, 256, 32, np.int16)
    narrow, bytes_, ones = np.zeros(16, np.int16), np.zeros(32, np.uint8), np.zeros(16, np.int16)
    _packed(words, shorts, narrow, bytes_, ones)
    assert np.array_equal(narrow.reshape(2, 2, 4), words.reshape(2, 2, 4).swapaxes(0, 1))
    assert np.array_equal(bytes_.reshape(2, 2, 8), shorts.reshape(2, 2, 8).swapaxes(0, 1))
    assert ones.tolist() == [int(value).bit_count() for value in shorts[:16]]


@numba.njit
def _arithmetic(a, b, x, y, z, wide, narrow, small, sums):
    first, second = load(address(a), "i16x32"), load(address(b), "i16x32")
    store(address(wide), multiply_pairs(first, second))
    half_a, half_b = load(address(a), "i16x16"), load(address(b), "i16x16")
    store(address(narrow), multiply_pairs(half_a, half_b))
    store(address(small), magnitude_bits(half_a))
    store(
        address(sums),
        fused(load(address(x), "f32x16"), load(address(y), "f32x16"), load(address(z), "f32x16")),
    )


def test_arithmetic() -> None:
    rng = np.random.default_rng(0)
    for round_ in range(50):
        a, b = rng.integers(-(2**15), 2**15, (2, 32)).astype(np.int16)
        a[:4], b[:4] = (0, 1, -1, -32767), (-32768, 32767, -32768, 32767)
        x, y, z = (rng.normal(0, 10.0 ** rng.integers(-2, 3), (3, 16))).astype(np.float32)
        if round_ % 2:
            z = -(x * y)  # what is left is the rounding of the product, which a fused operation does not make
        wide, narrow, small, sums = (
            np.zeros(16, np.int32),
            np.zeros(8, np.int32),
            np.zeros(16, np.int16),
            np.zeros(16, np.float32),
        )
        _arithmetic(a, b, x, y, z, wide, narrow, small, sums)
        products = a.astype(np.int64) * b
        assert np.array_equal(wide, products[::2] + products[1::2])
        assert np.array_equal(narrow, wide[:8])
        assert small.tolist() == [int(abs(int(value))).bit_length() for value in a[:16]]
        # in float64 the product is exact, and the sum as good as that
        assert np.array_equal(sums, (x.astype(np.float64) * y + z).astype(np.float32))


@numba.njit
def _words(values, out):
    for i in range(values.size):
        out[i, 0] = count_zeros_low(values[i])
        out[i, 1] = highest_bit(values[i])
        out[i, 2] = count_ones(values[i])
        out[i, 3] = big_endian(values[i])


def test_words() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 2**64, 500, np.uint64) >> rng.integers(0, 64, 500).astype(np.uint64)
    values = np.concatenate(
        [np.maximum(values, np.uint64(1)), np.uint64(1) << np.arange(64, dtype=np.uint64)]
    )
    out = np.zeros((values.size, 4), np.uint64)
    _words(values, out)
    for value, row in zip(values.tolist(), out.tolist(), strict=True):
        assert row == [
            (value & -value).bit_length() - 1,
            value.bit_length() - 1,
            value.bit_count(),
            int.from_bytes(value.to_bytes(8, "little"), "big"),
        ]


def test_a_wrong_type_is_named() -> None:
    @numba.njit
    def run(a: Any) -> Any:
        return mask_bits(load(address(a), "f33x16") > 0)

    with pytest.raises((numba.TypingError, ValueError), match="'f33x16' is not a vector type"):
        run(np.zeros(16, np.float32))


@numba.njit
def _partly(source, target, bits, counter, before):
    lanes = lanes_of(bits, "i1x16")
    store_where(address(target), load_where(address(source), lanes, "f32x16") + 1, lanes)
    before[0] = fetch_add(address(counter), 5)


@pytest.mark.parametrize("count", [0, 1, 7, 16])
def test_memory_that_ends_within_a_vector(count: int) -> None:
    """Only the lanes of the mask are written."""
    source, target = np.arange(count, dtype=np.float32), np.full(16, 99, np.float32)
    counter, before = np.array([37]), np.zeros(1, np.int64)
    _partly(source, target, np.uint64((1 << count) - 1), counter, before)
    assert target.tolist() == [*range(1, count + 1), *[99] * (16 - count)]
    assert (before[0], counter[0]) == (37, 42)
