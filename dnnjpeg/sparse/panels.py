"""How our dense kernels divide a layer: panels of filters, tiles of outputs, and blocks of inputs."""

from torch import Tensor

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.processors import cache_size
from dnnjpeg.sparse.lists import LANES

# outputs of a tile by the filters of a panel: as many sums as there are registers for
OUTPUTS = {LANES: 12, 2 * LANES: 14} if host_has("avx512f") else {LANES: 6}
BLOCK = 24 << 10  # bytes, the least of a block
NEAR = 256 << 10  # bytes of weights that stay in the second cache until the next call, or nearly
UNROLLED = 2  # inputs of each output, a turn of the inner loop: with more, weights take the registers of sums


def panel_of(filters: int) -> int:
    """The filters of a panel."""
    return max(panel for panel in OUTPUTS if panel == LANES or filters % panel == 0)


def tiled(width: int, panel: int) -> int:
    """The outputs of a tile for rows of this width: few tiles that overlap little.

    To begin and to end a tile takes as long as half an output. With half of the most, a sum is not ready when
    the next product is.
    """
    most = OUTPUTS[panel]
    if width <= most:
        return width
    return min(range(most, most // 2, -1), key=lambda count: -(-width // count) * (2 * count + 1))


def block_bytes(least: int, weights: Tensor) -> int:
    """Bytes of input for which all filters pass, before the next block of the input.

    There are as many as the weights have, so that the weights pass seldom. There are at least `least`, and at
    most half of the second cache.
    """
    return max(least, min(4 * weights.numel(), cache_size(2) // 2))


def pace(weights: Tensor, panel: int, tiles: int) -> int:
    """The pace of `multiply` for weights, the same for so many tiles. Those that stay near need none."""
    return -(-UNROLLED * panel * 4 // tiles) if 4 * weights.numel() > NEAR else 0
