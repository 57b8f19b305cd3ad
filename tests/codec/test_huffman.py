"""Huffman tables against the procedures of T.81 Annexes C and K taken to the letter, and against Pillow's."""

import heapq
import io
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg import encode
from dnnjpeg.codec.huffman import RAW, optimal_huffman, standard_huffman
from dnnjpeg.jpeg.standard import STANDARD_HUFFMAN, HuffmanTable

Counts = Mapping[int, int]
DC_0, DC_1, AC_0, AC_1 = range(4)

counts_of = st.one_of(
    st.dictionaries(st.integers(0, 255), st.integers(1, 2**40), min_size=1),
    st.dictionaries(st.integers(0, 255), st.integers(1, 3), min_size=1),
    st.lists(st.integers(1, 30), min_size=1, max_size=40).map(
        lambda shifts: {i: 1 << shift for i, shift in enumerate(shifts)}
    ),
)


def packed(**tables: Counts) -> np.ndarray:
    """Counts by table name as `optimal_huffman` takes them, spread over its rows."""
    most = max((count for counts in tables.values() for count in counts.values()), default=0)
    rows = np.zeros((3 + (most >> 31), 1024), np.uint32)
    for name, counts in tables.items():
        for symbol, count in counts.items():
            at = globals()[name] << 8 | symbol
            full, rest = divmod(count, 2**32 - 1)
            rows[:full, at] = 2**32 - 1
            rows[full, at] = rest // 3
            rows[full + 1, at] = rest - rest // 3
    return rows


def parsed(dht: bytes) -> dict[int, HuffmanTable]:
    """The tables in the content of a DHT segment, by class and destination."""
    tables = {}
    while dht:
        size = sum(dht[1:17])
        assert dht[0] not in tables and len(dht) >= 17 + size
        tables[dht[0]] = HuffmanTable(b"\0" + dht[1:17], dht[17 : 17 + size])
        dht = dht[17 + size :]
    return tables


def optimal(counts: Counts) -> HuffmanTable:
    """The table of a scan with these AC symbols alone."""
    ((place, table),) = parsed(optimal_huffman(packed(AC_0=counts)).dht).items()
    assert place == 0x10
    return table


def lengths(table: HuffmanTable) -> dict[int, int]:
    each = [length for length in range(1, 17) for _ in range(table.bits[length])]
    assert len(each) == len(table.values) == len(set(table.values))
    return dict(zip(table.values, each, strict=True))


def cost(counts: Counts, table: HuffmanTable) -> int:
    found = lengths(table)
    return sum(count * found[symbol] for symbol, count in counts.items())


def assert_legal(table: HuffmanTable) -> None:
    """A prefix code of at most 16 bits whose longest code is not all ones (T.81 C, K.2)."""
    assert len(table.bits) == 17 and table.bits[0] == 0
    space = sum(table.bits[k] << (16 - k) for k in range(1, 17))
    longest = max(k for k in range(1, 17) if table.bits[k])
    assert space <= (1 << 16) - (1 << (16 - longest))


def huffman_cost(counts: Counts) -> tuple[int, int]:
    """Bits of an optimal code of any length, with one code reserved; and the longest code."""
    heap = [(0, 0)] + [(count, 0) for count in counts.values()]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        (one, depth), (other, depth_2) = heapq.heappop(heap), heapq.heappop(heap)
        total += one + other
        heapq.heappush(heap, (one + other, 1 + max(depth, depth_2)))
    return total, heap[0][1]


def annex_k(counts: Counts) -> dict[int, int]:
    """Code sizes of Figures K.1 to K.4: a quadratic search, the reserved symbol counted as one."""
    frequency, size, others = (
        {256: 1, **counts},
        dict.fromkeys([256, *counts], 0),
        {s: [s] for s in [256, *counts]},
    )
    while len(frequency) > 1:
        one = min(frequency, key=lambda s: (frequency[s], -s))
        other = min((s for s in frequency if s != one), key=lambda s: (frequency[s], -s))
        frequency[one] += frequency.pop(other)
        others[one] += others.pop(other)
        for symbol in others[one]:
            size[symbol] += 1
    bits = [0] * 300
    for length in size.values():
        bits[length] += 1
    for i in range(299, 16, -1):
        while bits[i] > 0:
            j = i - 2
            while bits[j] == 0:
                j -= 1
            bits[i] -= 2
            bits[i - 1] += 1
            bits[j + 1] += 2
            bits[j] -= 1
    bits[max(i for i in range(17) if bits[i])] -= 1
    sizes = iter([i for i in range(17) for _ in range(bits[i])])
    return {symbol: next(sizes) for symbol in sorted(counts, key=lambda s: (size[s], s))}


@settings(deadline=None)
@given(counts=counts_of)
def test_optimal_table(counts: Counts) -> None:
    table = optimal(counts)
    assert set(table.values) == set(counts)
    assert_legal(table)
    best, longest = huffman_cost(counts)
    reference = sum(counts[symbol] * size for symbol, size in annex_k(counts).items())
    if longest <= 16:
        assert cost(counts, table) == best <= reference
    else:  # folding depends on how ties were broken
        assert best <= cost(counts, table) <= 1.02 * reference


def test_frequent_symbols_have_the_short_codes() -> None:
    counts = {symbol: 1 + (symbol * 77) % 251 for symbol in range(200)}
    table = optimal(counts)
    found = lengths(table)
    for one in counts:
        for other in counts:
            assert counts[one] <= counts[other] or found[one] <= found[other]


@pytest.mark.parametrize("symbols", [2, 15, 16, 17, 18, 30, 60])
def test_skewed_counts_stay_within_16_bits(symbols: int) -> None:
    """Fibonacci numbers make the deepest trees there are."""
    fibonacci = [1, 1]
    while len(fibonacci) < symbols:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    counts = dict(enumerate(fibonacci[:symbols]))
    table = optimal(counts)
    assert_legal(table)
    assert (huffman_cost(counts)[1] > 16) == (symbols > 16)
    assert cost(counts, table) <= 1.01 * sum(
        counts[symbol] * size for symbol, size in annex_k(counts).items()
    )


@pytest.mark.parametrize("symbols", [1, 2, 3, 128, 255, 256])
def test_any_number_of_equal_symbols(symbols: int) -> None:
    counts = dict.fromkeys(range(symbols), 7)
    table = optimal(counts)
    assert_legal(table)
    assert cost(counts, table) == huffman_cost(counts)[0]


def test_no_symbols_no_tables() -> None:
    assert optimal_huffman(packed()).dht == b""


# --- one table or two ---

dc_counts = st.dictionaries(st.integers(0, 11), st.integers(1, 200), min_size=1)


@settings(max_examples=300, deadline=None)
@given(first=st.just({}) | counts_of | dc_counts, second=counts_of | dc_counts)
def test_components_share_a_table_only_where_the_file_gets_smaller(first: Counts, second: Counts) -> None:
    def bits(counts: Counts) -> int:
        table = optimal(counts)
        return cost(counts, table) + 8 * (17 + len(table.values))

    chosen = optimal_huffman(packed(AC_0=first, AC_1=second))
    both = {symbol: first.get(symbol, 0) + second.get(symbol, 0) for symbol in {**first, **second}}
    together, apart = bits(both), (bits(first) if first else 0) + bits(second)
    if first and abs(together - apart) > 0:
        assert (chosen.destinations[1][1] == 0) == (together < apart)
    tables = parsed(chosen.dht)
    found = 0
    for code, counts in enumerate((first, second)):
        found += cost(counts, tables[0x10 | chosen.destinations[code][1]]) if counts else 0
    assert found + sum(8 * (17 + len(table.values)) for table in tables.values()) == min(together, apart)


def test_dc_and_ac_are_chosen_apart() -> None:
    alike, other = {0: 90, 1: 5, 2: 3}, dict.fromkeys(range(100, 180), 1000)
    chosen = optimal_huffman(packed(DC_0=alike, DC_1=alike, AC_0=alike, AC_1=other))
    assert chosen.destinations == ((0, 0), (0, 1))
    assert list(parsed(chosen.dht)) == [0x00, 0x10, 0x11]
    chosen = optimal_huffman(packed(DC_0={0: 9000, 1: 50}, DC_1={5: 9000, 6: 50}, AC_0=alike, AC_1=alike))
    assert chosen.destinations == ((0, 0), (1, 0))
    assert list(parsed(chosen.dht)) == [0x00, 0x01, 0x10]


# --- codes ---


def canonical(table: HuffmanTable) -> dict[int, tuple[int, int]]:
    """Code and its length by symbol (T.81 C.2)."""
    codes, code, previous = {}, 0, 0
    for symbol, length in lengths(table).items():
        code <<= length - previous
        codes[symbol] = code, length
        code, previous = code + 1, length
    return codes


def extra_bits(kind: int, symbol: int) -> int:
    """Bits that follow a symbol: the magnitude's (F.1.2), or those of a run of ends of bands (G.1.2.2)."""
    if kind == 1 and symbol & 15 == 0:
        return 0 if symbol == 0xF0 else symbol >> 4
    return symbol & 15


ac_symbols = (
    [run << 4 | size for run in range(16) for size in range(1, 11)] + [0xF0] + [n << 4 for n in range(12)]
)


@settings(deadline=None)
@given(
    dc=dc_counts,
    ac=st.dictionaries(st.sampled_from(ac_symbols), st.integers(0, 40).map(lambda n: 1 << n), min_size=1),
)
def test_lookup_holds_the_canonical_codes(dc: Counts, ac: Counts) -> None:
    chosen = optimal_huffman(packed(DC_0=dc, AC_0=ac, DC_1=dc, AC_1={0: 3}))
    tables = parsed(chosen.dht)
    for code, dc_used, ac_used in ((0, dc, ac), (1, dc, {0: 3})):
        for kind, counts in ((0, dc_used), (1, ac_used)):
            codes = canonical(tables[kind << 4 | chosen.destinations[code][kind]])
            for symbol in counts:
                bits, length = codes[symbol]
                extra = extra_bits(kind, symbol)
                entry = int(chosen.lut[(2 * kind + code) << 8 | symbol])
                assert (entry >> 5, entry & 31) == (bits << extra, length + extra)


def test_raw_bits_have_no_code() -> None:
    for tables in (optimal_huffman(packed(DC_0={0: 1, RAW + 3: 99})), standard_huffman(2)):
        assert [int(tables.lut[RAW + n]) for n in range(1, 16)] == list(range(1, 16))
        assert not any(
            value >= RAW
            for place, table in parsed(tables.dht).items()
            for value in table.values
            if place < 0x10
        )


# --- the standard tables ---


def dht_segments(data: bytes) -> Iterator[bytes]:
    """Contents of the DHT segments before the scan."""
    at = 2
    while data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1] == 0xC4:
            yield data[at + 4 : at + 2 + size]
        at += 2 + size


def test_standard_tables_are_those_that_pillow_writes(photo: Image.Image) -> None:
    for image, codes in ((photo, 2), (photo.convert("L"), 1)):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        expected = parsed(b"".join(dht_segments(buffer.getvalue())))
        assert len(expected) == 2 * codes
        assert parsed(standard_huffman(codes).dht) == expected
        assert parsed(b"".join(dht_segments(encode(image, optimize=False)))) == expected
    assert parsed(standard_huffman(2).dht) == dict(
        zip((0x00, 0x01, 0x10, 0x11), STANDARD_HUFFMAN, strict=True)
    )
    for table in STANDARD_HUFFMAN:
        assert_legal(table)


def test_optimal_tables_are_one_segment_and_hold_no_unused_symbol(photo: Image.Image) -> None:
    (dht,) = dht_segments(encode(photo))
    for table in parsed(dht).values():
        assert_legal(table)
    (dht,) = dht_segments(encode(Image.new("L", (64, 64), 128)))
    assert {place: set(table.values) for place, table in parsed(dht).items()} == {0x00: {0}, 0x10: {0}}
