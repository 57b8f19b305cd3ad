"""From tokens to bytes: count symbols, look up codes, pack bits (T.81 F.1.2), stuff bytes (F.1.2.3).

A token is a uint32: a symbol in the high 16 bits, its extra bits in the low 16, see `scan`. Bits are packed
with the most significant one first.
"""

import numpy as np

from dnnjpeg.codec.huffman import RAW, SYMBOLS
from dnnjpeg.machine.jit import inlined, kernel
from dnnjpeg.machine.simd import address, load, load_scalar, mask_bits, reinterpret, shuffler, splat, store
from dnnjpeg.machine.words import big_endian, count_zeros_low

COUNT_ROWS = 4  # rows of counts; their sum is the histogram of a scan
CHUNK = 256  # tokens that `emit_at` codes at a time
_EVEN = shuffler(range(0, 16, 2))
_ODD = shuffler(range(1, 16, 2))


@inlined
def count_symbols(tokens, end, counts):
    """Count the symbols of the tokens between two addresses.

    counts: address of uint32[COUNT_ROWS, 1024], to which the symbols are added. The rows take turns, because
        equal neighbours in one row would wait for each other. No count overflows: a picture has fewer than
        2^34 tokens.
    """
    for at in range(tokens, end - 15, 16):
        _count(counts, load_scalar(at + 2, "u16"))
        _count(counts + 4 * SYMBOLS, load_scalar(at + 6, "u16"))
        _count(counts + 8 * SYMBOLS, load_scalar(at + 10, "u16"))
        _count(counts + 12 * SYMBOLS, load_scalar(at + 14, "u16"))
    for at in range(end - (end - tokens) % 16, end, 4):
        _count(counts, load_scalar(at + 2, "u16"))


@inlined
def _count(counts, symbol):
    at = counts + 4 * np.int64(symbol)
    store(at, np.uint32(load_scalar(at, "u32") + 1))


@inlined
def _flush(held, n, word, size, out):
    """Append `size` <= 56 bits of `word` to the n < 8 bits at the top of `held`. Write out whole bytes."""
    n += size
    held |= word << (np.uint64(64) - n)
    store(out, big_endian(held))
    whole = n & ~np.uint64(7)
    return held << whole, n & np.uint64(7), out + np.int64(whole >> np.uint64(3))


@inlined
def _looked_up(codes, token):
    return load_scalar(codes + 4 * np.int64(load_scalar(token + 2, "u16")), "u32")


@kernel
def count_tokens(tokens, count, counts):
    """`count_symbols` with arrays: the first `count` tokens, uint32; counts, uint32[COUNT_ROWS, 1024]."""
    count_symbols(address(tokens), address(tokens) + 4 * count, address(counts))


@kernel
def emit(memory, count, lut, phase, target, scratch):
    """`emit_at` with arrays in place of addresses, for the first `count` tokens. Returns the number of
    bits.
    """
    tokens = address(memory)
    return emit_at(tokens, tokens + 4 * count, address(lut), phase, address(target), address(scratch))


@inlined
def emit_at(tokens, end, codes, phase, target, scratch):
    """Pack the tokens between two addresses as bits. Returns the number of bits, `phase` included.

    codes: address of uint32[1024], the code of each symbol, see `huffman.ScanTables`.
    phase: 0..7, the number of zero bits to begin with.
    target: address of the output. Up to 8 bytes behind the last bit are overwritten.
    scratch: address of uint32[4 * CHUNK + 32].

    The 64 bytes behind the last token are used, and restored.
    """
    out = target
    behind = load(end, "u8x64")
    store(end, splat(RAW << 16, "u32x16"))
    entry = scratch
    pair, pair_size = entry + 4 * CHUNK, entry + 8 * CHUNK
    quad, quad_size = entry + 12 * CHUNK, entry + 14 * CHUNK
    held, n = np.uint64(0), np.uint64(phase)
    start = out
    # whole chunks pass through each step in turn, so that no step waits for what the one before it has just
    # stored
    for chunk in range(tokens, end, 4 * CHUNK):
        size = min(4 * CHUNK, end - chunk + 63 & ~63)
        for i in range(0, size, 32):
            for at in range(i, i + 32, 8):  # unrolled, and two at a time: fewer stores
                first, second = _looked_up(codes, chunk + at), _looked_up(codes, chunk + at + 4)
                store(entry + at, np.uint64(first) | np.uint64(second) << np.uint64(32))
        for i in range(0, size, 64):
            coded = load(entry + i, "u32x16")
            words = reinterpret((coded >> 5) | (load(chunk + i, "u32x16") & 0xFFFF), "u64x8")
            sizes = reinterpret(coded & 31, "u64x8")
            store(pair + i, (words & 0xFFFFFFFF) << (sizes >> 32) | words >> 32)
            store(pair_size + i, (sizes & 0xFFFFFFFF) + (sizes >> 32))
        longest = splat(0, "u64x8")
        for i in range(0, size, 128):
            words, words_b = load(pair + i, "u64x8"), load(pair + i + 64, "u64x8")
            sizes, sizes_b = load(pair_size + i, "u64x8"), load(pair_size + i + 64, "u64x8")
            second = _ODD(sizes, sizes_b)
            both = _EVEN(sizes, sizes_b) + second
            store(quad + i // 2, _EVEN(words, words_b) << second | _ODD(words, words_b))
            store(quad_size + i // 2, both)
            longest = longest | (both + 7)
        if mask_bits(longest > 63) == 0:
            for i in range(0, size // 2, 8):
                held, n, out = _flush(
                    held, n, load_scalar(quad + i, "u64"), load_scalar(quad_size + i, "u64"), out
                )
        else:
            for i in range(0, size, 8):
                held, n, out = _flush(
                    held, n, load_scalar(pair + i, "u64"), load_scalar(pair_size + i, "u64"), out
                )
    store(end, behind)
    return (out - start) * 8 + np.int64(n)


@inlined
def _stuff(source, count, out):
    """Copy `count` bytes, and write a zero byte after each 0xFF (T.81 F.1.2.3). Returns the address behind
    the copy. Up to 64 bytes behind it are overwritten.
    """
    at, end = source, source + count
    while at < end:
        if at + 64 <= end:
            chunk = load(at, "u8x64")
            store(out, chunk)
            marks = mask_bits(chunk == 255)
            if marks == 0:
                at += 64
                out += 64
                continue
            step = np.int64(count_zeros_low(marks)) + 1
            at += step
            out += step
            store(out, np.uint8(0))
            out += 1
        else:
            byte = load_scalar(at, "u8")
            store(out, byte)
            at += 1
            out += 1
            if byte == 255:
                store(out, np.uint8(0))
                out += 1
    return out


@inlined
def _pad(raw, bits):
    """Fill the last byte with ones. Returns the number of bytes."""
    if bits & 7:
        last = raw + (bits >> 3)
        store(last, np.uint8(load_scalar(last, "u8") | 0xFF >> (bits & 7)))
    return (bits + 7) >> 3


@inlined
def pack_at(tokens, bounds, codes, raw, target, room_end, scratch):
    """Code restart intervals as stuffed bytes, with RST0 to RST7 between them (T.81 B.2.1, F.1.2.3). Returns
    the number of bytes; or 0 if there might be too little room for them.

    tokens: address of the first token.
    bounds: int64 array: the number n of intervals, the n tokens at which they begin, the number of all
        tokens.
    codes, scratch: see `emit_at`.
    raw: address of room for the unstuffed bytes of the longest interval.
    target, room_end: addresses at which the room for the output begins and ends.
    """
    out = target
    for i in range(bounds[0]):
        bits = emit_at(tokens + 4 * bounds[i + 1], tokens + 4 * bounds[i + 2], codes, 0, raw, scratch)
        count = _pad(raw, bits)
        if out + 2 * count + 2 + 64 > room_end:  # all may be stuffed
            return 0
        out = _stuff(raw, count, out)
        if i + 1 < bounds[0]:
            store(out, np.uint8(0xFF))
            store(out + 1, np.uint8(0xD0 | i & 7))
            out += 2
    return out - target


@inlined
def close_bounds(bounds, count):
    """Write the number of all tokens, `count`, to the end of `bounds` (see `pack_at`). Without an interval so
    far, all tokens become one.
    """
    bounds[0] = max(bounds[0], 1)
    bounds[bounds[0] + 1] = count


@kernel
def pack(memory, count, bounds, lut, raw, target, scratch):
    """`close_bounds` and `pack_at` with arrays in place of addresses, for the first `count` tokens."""
    close_bounds(bounds, count)
    room_end = address(target) + target.size
    return pack_at(
        address(memory), bounds, address(lut), address(raw), address(target), room_end, address(scratch)
    )


@kernel
def join(raw, offsets, bits, target):
    """Join pieces of one interval that `emit` packed apart, and stuff them. Returns the number of bytes.

    The phase of a piece is where the one before it ends within a byte; the two share that byte.

    raw: uint8 array with the pieces.
    offsets: int64[n], the byte at which each piece begins.
    bits: int64[n], what `emit` returned for each.
    target: uint8 array, the output.
    """
    out = address(target)
    for i in range(offsets.size):
        piece = address(raw) + offsets[i]
        count = bits[i] >> 3
        if i + 1 == offsets.size:
            count = _pad(piece, bits[i])
        elif bits[i] & 7:  # the byte that two pieces share is written by the latter
            shared = address(raw) + offsets[i + 1]
            store(shared, np.uint8(load_scalar(shared, "u8") | load_scalar(piece + count, "u8")))
        out = _stuff(piece, count, out)
    return out - address(target)
