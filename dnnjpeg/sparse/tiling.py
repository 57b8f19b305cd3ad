"""How a layer is cut for the ring kernel, and which ways of cutting it are worth trying."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from dnnjpeg.machine.jit import host_has
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.lists import LANES

SPARSE = {
    "ring-numbered": "ring, numbered",
    "ring-patterns": "ring, patterns",
}  # methods, as tables have them
TALLEST = 5  # kernels with more rows gain nothing from having them all in the ring


class Tiling(NamedTuple):
    """How a layer is cut."""

    patterns: bool  # the form of a list: channels told by patterns of bits, or by a number each
    block: int  # CB, channels of a list: 16, 32, 64 or 128
    filters: int  # NB, filters in registers by 16
    ring_rows: int = 1  # kernel rows in the ring: 1 or Kh
    turned: bool = False  # rows and columns change places, so that the kernel's rows are its columns

    @property
    def method(self) -> str:
        """The name of it in `SPARSE`."""
        return "ring-patterns" if self.patterns else "ring-numbered"

    def can_feed(self, onward: "Tiling") -> bool:
        """Whether a layer's output can be handed on as lists for another's tiling."""
        return self.turned == onward.turned and self.filters * LANES % onward.block == 0


def registers() -> int:
    """Sums of 16 numbers that the processor holds beside what else is in use."""
    return 28 if host_has("avx512f") or host_has("avx512bw") else 7


@cache
def first_cache() -> int:
    """Bytes of the processor's first cache for data; a guess where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index0/size").read_text()
        return int(text.strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 32 << 10


def tilings(geometry: Geometry, patterns: bool, zeros: float) -> list[Tiling]:
    """Those worth trying for a layer with this share of zeros, the likeliest first."""
    found = _tilings(geometry, patterns, zeros)
    if geometry.kernel[1] == 1 < geometry.kernel[0]:
        turned = _tilings(geometry.turned(), patterns, zeros)
        found += [(cost, tiling._replace(turned=True)) for cost, tiling in turned]
    found.sort(key=lambda pair: pair[0])
    return [tiling for _, tiling in found]


def _tilings(geometry: Geometry, patterns: bool, zeros: float) -> list[tuple[float, Tiling]]:
    """With their costs."""
    (kernel_rows, width), (stride_y, stride_x) = geometry.kernel, geometry.stride
    columns = -(-width // stride_x)
    blocks = -(-geometry.filters // LANES)
    found: list[tuple[float, Tiling]] = []
    for ring_rows in {1, kernel_rows} if stride_y == 1 and kernel_rows <= TALLEST else {1}:
        for filters in (1, 2, 3, 4, 6, 8, 12, 16):
            sums = columns * ring_rows * filters
            if filters * ring_rows > 1 and (sums > registers() or filters > blocks):
                continue
            for block in (16, 32, 64, 128):
                if block // 2 >= geometry.channels and block > 16:
                    continue
                tiling = Tiling(patterns, block, filters, ring_rows)
                found.append((_cost(geometry, tiling, 1 - zeros), tiling))
    return found


def _cost(geometry: Geometry, tiling: Tiling, density: float) -> float:
    """Estimated cycles of one picture: what is read from the first cache, and what every list costs."""
    (kernel_rows, width), (_, stride_x) = geometry.kernel, geometry.stride
    filters, ring_rows = tiling.filters, tiling.ring_rows
    block = min(tiling.block, -(-geometry.channels // LANES) * LANES)
    taps = width / stride_x * ring_rows  # multiplications of a non-zero, by vector of filters
    # a weight is used again when about all others of its slice have been
    spill = max(0.0, block * ring_rows * width * filters * LANES * 4 / (0.75 * first_cache()) - 1)
    latency = max(1.0, 4 / (taps * filters))  # a sum waits four cycles for itself
    weight = (1 + min(0.8, 0.3 * spill)) * latency
    column = density * min(geometry.channels, tiling.block) * (taps * filters * weight + 1)
    column += 4.5 * ring_rows * filters / stride_x + 4
    rows = geometry.output[0] if ring_rows == 1 else geometry.height * 1.02
    sweeps = rows * (kernel_rows / ring_rows) * -(-geometry.channels // tiling.block)
    sweeps *= -(-geometry.filters // (LANES * filters))
    return sweeps * (geometry.width * column + 30)
