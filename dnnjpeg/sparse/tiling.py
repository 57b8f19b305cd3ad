"""Tilings: how a layer is divided for the ring kernel, and which tilings are worth trying."""

from collections.abc import Iterator
from itertools import product
from reprlib import repr as brief
from typing import NamedTuple

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.processors import cache_size
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES

SPARSE = {
    "ring-numbered": "ring, numbered",
    "ring-patterns": "ring, patterns",
}  # methods, as tables have them
BLOCKS = (16, 32, 64, 128)
FILTERS = (1, 2, 3, 4, 6, 8, 12, 16)
REGISTERS = {"AVX-512": 28, "AVX2": 7}  # sums of 16 numbers that are held beside what else is in use
TALLEST = 5  # kernels with more rows gain nothing from having them all in the ring


class Tiling(NamedTuple):
    """How a layer is divided for the ring kernel."""

    patterns: bool  # the form of a list: channels told by patterns of bits, or by a number each
    block: int  # CB, channels of a list, of `BLOCKS`
    filters: int  # NB, filters in registers by 16, of `FILTERS`
    ring_rows: int = 1  # kernel rows in the ring: 1 or Kh
    turned: bool = False  # rows and columns change places, so that the kernel's rows are its columns

    @property
    def method(self) -> str:
        """Its method, a key of `SPARSE`."""
        return "ring-patterns" if self.patterns else "ring-numbered"

    def can_feed(self, onward: "Tiling") -> bool:
        """Whether a layer with this tiling can make lists for a layer with the tiling `onward`."""
        return self.turned == onward.turned and self.filters * LANES % onward.block == 0


def registers() -> int:
    """The entry of `REGISTERS` for this processor."""
    return REGISTERS["AVX-512" if host_has("avx512f") else "AVX2"]


def tilings(geometry: Geometry, patterns: bool, zeros: float) -> list[Tiling]:
    """The tilings worth trying for a layer with this share of zeros, the most promising first."""
    worth = [
        tiling
        for tiling in _possible(geometry)
        if tiling.patterns is patterns and _is_worth(tiling, geometry, registers())
    ]
    return sorted(worth, key=lambda tiling: _cost(_seen(geometry, tiling), tiling, 1 - zeros))


def check_tiling(tiling: Tiling, geometry: Geometry, *, planned: bool = False) -> None:
    """Raise ValueError that names the field, if the kernels cannot compute a layer with a tiling.

    planned: also refuse tilings that `tilings` never tries. Their kernels may take hours to compile.
    """
    left = [
        one for one in _possible(geometry) if not planned or _is_worth(one, geometry, max(REGISTERS.values()))
    ]
    for field in ("patterns", "turned", "ring_rows", "filters", "block"):
        value, options = getattr(tiling, field), sorted({getattr(one, field) for one in left})
        if type(value) is not type(options[0]) or value not in options:
            raise ValueError(f"tiling.{field} is {brief(value)}, expected {' or '.join(map(str, options))}")
        left = [one for one in left if getattr(one, field) == value]


def _seen(geometry: Geometry, tiling: Tiling) -> Geometry:
    """The geometry that the kernel computes."""
    return geometry.turned() if tiling.turned else geometry


def _possible(geometry: Geometry) -> Iterator[Tiling]:
    """The tilings with which the kernels can compute a layer."""
    for patterns, turned, filters, block in product((False, True), (False, True), FILTERS, BLOCKS):
        tiling = Tiling(patterns, block, filters, 1, turned)
        seen = _seen(geometry, tiling)
        for ring_rows in {1, seen.kernel[0]} if seen.stride[0] == 1 else {1}:
            yield tiling._replace(ring_rows=ring_rows)


def _is_worth(tiling: Tiling, geometry: Geometry, registers: int) -> bool:
    """Whether a tiling is worth trying on a processor with so many registers (see `REGISTERS`)."""
    if tiling.turned and not geometry.kernel[1] == 1 < geometry.kernel[0]:
        return False
    seen = _seen(geometry, tiling)
    columns = -(-seen.kernel[1] // seen.stride[1])
    several = tiling.filters * tiling.ring_rows
    if several > 1 and (columns * several > registers or tiling.filters > -(-seen.filters // LANES)):
        return False
    if tiling.ring_rows > TALLEST:
        return False
    return tiling.block == min(BLOCKS) or tiling.block // 2 < seen.channels


def _cost(geometry: Geometry, tiling: Tiling, density: float) -> float:
    """Estimated cycles of one picture: reads from the first cache, and the overhead of lists."""
    (kernel_rows, width), (_, stride_x) = geometry.kernel, geometry.stride
    filters, ring_rows = tiling.filters, tiling.ring_rows
    block = min(tiling.block, -(-geometry.channels // LANES) * LANES)
    taps = width / stride_x * ring_rows  # multiplications of a non-zero, by vector of filters
    # a weight is used again when about all others of its slice have been
    spill = max(0.0, block * ring_rows * width * filters * LANES * 4 / (0.75 * cache_size(1)) - 1)
    latency = max(1.0, 4 / (taps * filters))  # a sum waits four cycles for itself
    weight = (1 + min(0.8, 0.3 * spill)) * latency
    column = density * min(geometry.channels, tiling.block) * (taps * filters * weight + 1)
    column += 4.5 * ring_rows * filters / stride_x + 4
    rows = geometry.output[0] if ring_rows == 1 else geometry.height * 1.02
    sweeps = rows * (kernel_rows / ring_rows) * -(-geometry.channels // tiling.block)
    sweeps *= -(-geometry.filters // (LANES * filters))
    return sweeps * (geometry.width * column + 30)
