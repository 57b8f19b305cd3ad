"""Operators of vectors against numpy's, lane by lane, on random and on extreme values."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from dnnjpeg.machine.simd import address, load, mask_bits, store
from dnnjpeg.machine.vector import vector

ROWS = 200


def values(dtype: Any, lanes: int, seed: int) -> np.ndarray:
    """[ROWS, lanes] of all magnitudes, with the extremes among them."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        drawn = rng.normal(0, 1, (ROWS, lanes)) * 10.0 ** rng.integers(-3, 6, (ROWS, lanes))
        edges = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e30, -1e30]
    else:
        info = np.iinfo(dtype)
        drawn = rng.integers(info.min, info.max, (ROWS, lanes), dtype, endpoint=True) >> rng.integers(
            0, info.bits, (ROWS, 1)
        ).astype(dtype)
        edges = [info.min, info.max, 0, 1, info.min + 1, info.max - 1, 2, 3]
    drawn = drawn.astype(dtype)
    drawn[rng.random((ROWS, lanes)) < 0.2] = 0
    drawn.reshape(-1)[: len(edges)] = edges
    return drawn


def arithmetic(kind: str) -> Callable[..., None]:
    @numba.njit
    def run(a, b, c, out, masks):
        for i in range(a.shape[0]):
            x, y = load(address(a[i]), kind), load(address(b[i]), kind)
            store(address(out[i, 0]), x + y)
            store(address(out[i, 1]), x - y)
            store(address(out[i, 2]), x * y)
            store(address(out[i, 3]), x + c)
            store(address(out[i, 4]), c - x)
            masks[i, 0] = mask_bits(x < y)
            masks[i, 1] = mask_bits(x <= y)
            masks[i, 2] = mask_bits(x > y)
            masks[i, 3] = mask_bits(x >= y)
            masks[i, 4] = mask_bits(x == y)
            masks[i, 5] = mask_bits(x != y)
            masks[i, 6] = mask_bits(x > c)

    return run


def bits(kind: str) -> Callable[..., None]:
    @numba.njit
    def run(a, b, shifts, out):
        for i in range(a.shape[0]):
            x, y, s = load(address(a[i]), kind), load(address(b[i]), kind), load(address(shifts[i]), kind)
            store(address(out[i, 0]), x & y)
            store(address(out[i, 1]), x | y)
            store(address(out[i, 2]), x ^ y)
            store(address(out[i, 3]), x << s)
            store(address(out[i, 4]), x >> s)
            store(address(out[i, 5]), x >> 3)

    return run


@pytest.mark.parametrize("kind", ["u8x64", "i16x16", "i32x16", "u32x16", "i64x8", "u64x8", "f32x16"])
def test_arithmetic_and_comparisons(kind: str) -> None:
    element, lanes = kind.split("x")
    dtype = np.dtype({"u": "uint", "i": "int", "f": "float"}[element[0]] + element[1:])
    a, b = values(dtype, int(lanes), 1), values(dtype, int(lanes), 2)
    b[::7] = a[::7]
    c = dtype.type(3)
    out, masks = np.zeros((ROWS, 5, int(lanes)), dtype), np.zeros((ROWS, 7), np.uint64)
    arithmetic(kind)(a, b, c, out, masks)
    with np.errstate(over="ignore"):
        expected = np.stack([a + b, a - b, a * b, a + c, c - a], axis=1)
    assert np.array_equal(out, expected)
    truths = np.stack([a < b, a <= b, a > b, a >= b, a == b, a != b, a > c], axis=1)
    weights = np.uint64(1) << np.arange(int(lanes), dtype=np.uint64)
    assert np.array_equal(masks, (truths * weights).sum(axis=-1, dtype=np.uint64))


@pytest.mark.parametrize("kind", ["i16x16", "i32x16", "u32x16", "u64x8"])
def test_bits_and_shifts(kind: str) -> None:
    """A signed type shifts its sign in from the left, an unsigned one zeros."""
    element, lanes = kind.split("x")
    dtype = np.dtype({"u": "uint", "i": "int"}[element[0]] + element[1:])
    a, b = values(dtype, int(lanes), 1), values(dtype, int(lanes), 2)
    shifts = np.random.default_rng(3).integers(0, dtype.itemsize * 8, a.shape).astype(dtype)
    out = np.zeros((ROWS, 6, int(lanes)), dtype)
    bits(kind)(a, b, shifts, out)
    assert np.array_equal(
        out, np.stack([a & b, a | b, a ^ b, a << shifts, a >> shifts, a >> dtype.type(3)], axis=1)
    )


def test_comparisons_with_nan_are_false() -> None:
    """Also !=, other than numpy's."""
    a = np.full((1, 16), np.nan, np.float32)
    masks = np.ones((1, 7), np.uint64)
    arithmetic("f32x16")(a, a, np.float32(3), np.zeros((1, 5, 16), np.float32), masks)
    assert not masks.any()


def test_vectors_of_different_types_do_not_mix() -> None:
    @numba.njit
    def run(a):
        return mask_bits((load(address(a), "i32x16") + load(address(a), "u32x16")) > 0)

    with pytest.raises(numba.TypingError):
        run(np.zeros(16, np.int32))


def test_names() -> None:
    assert (vector("f32x16").element, vector("f32x16").lanes, vector("f32x16").name) == ("f32", 16, "f32x16")
    assert vector("u8x64") is vector("u8x64") == vector("u8x64") != vector("i8x64")
    assert vector("i16x32").is_signed and not vector("u16x32").is_signed
    assert vector("f32x16").is_float and vector("f32x16").scalar == numba.float32
    assert vector("u16x8").scalar == numba.uint16


@pytest.mark.parametrize("name", ["", "f32", "x16", "f64x8", "i7x8", "f32 x16", "f32x16 ", "u1x8"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not a vector type; write element and lanes"):
        vector(name)
