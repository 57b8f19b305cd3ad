"""The tables of T.81 Annex K, and libjpeg's rule that scales them with quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Steps = tuple[int, ...]

# fmt: off
STANDARD_LUMA = (  # T.81 Table K.1
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)
STANDARD_CHROMA = (  # T.81 Table K.2
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
)
# fmt: on


def ijg_factor(quality: float) -> float:
    """libjpeg's scale of its tables at a quality 1..100, in per cent (jpeg_quality_scaling).

    It is 5000 at quality 1, 100 at 50, 0 at 100, and linear between whole qualities.
    """
    low = int(quality)
    factor = 5000 // low if low < 50 else 200 - 2 * low
    return factor if low == quality else factor + (quality - low) * (ijg_factor(low + 1) - factor)


def ijg_scale(base: Sequence[int], quality: float, largest: int = 255) -> Steps:
    """`base` steps scaled to a quality 1..100, as by libjpeg's jpeg_add_quant_table.

    largest: upper limit of the steps: 255 with libjpeg's force_baseline, 32767 without.
    """
    factor = ijg_factor(quality)
    return tuple(min(max(int((step * factor + 50) // 100), 1), largest) for step in base)


@lru_cache(maxsize=256)
def nearest_quality(steps: Steps, base: Steps, near: int = 100) -> tuple[int, bool]:
    """The whole quality whose `ijg_scale(base, quality)` is closest to `steps`, and whether it is equal.

    The distance is the squared difference of logarithms. If several qualities are equally close, the one next
    to `near` is taken: all chroma steps are 255 at qualities 1 to 3. Steps may be 16-bit, as in cjpeg's files
    of low quality.
    """
    largest = 255 if max(steps) <= 255 else 32767
    logs = [math.log(max(step, 1)) for step in steps]

    def distance(quality: int) -> float:
        return sum(
            (a - math.log(b)) ** 2 for a, b in zip(logs, ijg_scale(base, quality, largest), strict=True)
        )

    best = min(range(1, 101), key=lambda quality: (distance(quality), abs(quality - near)))
    return best, steps == ijg_scale(base, best, largest)


@dataclass(frozen=True)
class HuffmanTable:
    """A Huffman table, as in T.81 C.1.

    bits: bits[k] is the number of codes of length k, for k = 1..16. bits[0] is not used.
    values: the symbols in the order of their codes.
    """

    bits: bytes
    values: bytes


_DC_VALUES = bytes(range(12))
_LONG_TAIL = "".join(f"{run:x}{size:x}" for run in range(16) for size in range(1, 11))


def _standard_ac(bits: tuple[int, ...], first: str) -> HuffmanTable:
    """A standard AC table. The symbols after `first` are all others, in rising order."""
    listed = bytes.fromhex(first)
    return HuffmanTable(bytes(bits), listed + bytes(v for v in bytes.fromhex(_LONG_TAIL) if v not in listed))


STANDARD_HUFFMAN = (
    HuffmanTable(bytes([0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), _DC_VALUES),
    HuffmanTable(bytes([0, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]), _DC_VALUES),
    _standard_ac(
        (0, 0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125),
        "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282",
    ),
    _standard_ac(
        (0, 0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119),
        "000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125f1",
    ),
)
"""DC luminance, DC chrominance, AC luminance, AC chrominance: T.81 Tables K.3 to K.6."""
