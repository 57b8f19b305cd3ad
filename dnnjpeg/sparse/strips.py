"""A depthwise layer and its neighbours, computed a few rows at a time.

The layer before it, if there is one, makes the rows that the depthwise layer needs next, in a ring of rows.
The 1x1 layer after it reads what the depthwise layer has just made. So neither map leaves the second cache.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dnnjpeg.sparse.compiled import Compiled, Stripped
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.direct import Direct
from dnnjpeg.sparse.panels import OUTPUTS
from dnnjpeg.sparse.threads import Job

WORTH = 512 << 10  # bytes of both maps that do not stay in the second cache
ROWS = 256 << 10  # bytes of rows that do
WEIGHTS = 128 << 10  # bytes that stay there beside them


class Part(NamedTuple):
    """Some rows of a layer. Offsets in bytes are from the begin of what it reads and makes."""

    layer: int  # of the layers that are computed together
    job: Job
    threads: int
    source: int
    out: int
    residual: int


class Strips(NamedTuple):
    """How layers are computed together."""

    parts: list[Part]
    sizes: list[int]  # bytes of what all layers but the last make, as much as is kept


def together(kernels: Sequence[Compiled]) -> list[Stripped]:
    """The layers, from the first, that can be computed in strips: 3, 2 or none."""
    kinds = [type(kernel) for kernel in kernels[:3]]
    for count, wanted in ((3, [Direct, Depthwise, Direct]), (2, [Depthwise, Direct])):
        found = [kernel for kernel in kernels[:count] if isinstance(kernel, Stripped)]
        if kinds[:count] == wanted and found[-1].is_pointwise:
            return found
    return []


def strips(kernels: Sequence[Stripped], batch: int) -> Strips | None:
    """The strips of layers (see `together`), or None if their maps stay in the second cache."""
    depthwise, last = kernels[-2].geometry, kernels[-1].geometry
    made = 4 * depthwise.channels * depthwise.output[1]  # bytes of a row of the depthwise layer
    read = 4 * depthwise.channels * depthwise.width if len(kernels) == 3 else 0
    height, (kernel_rows, stride) = depthwise.output[0], (depthwise.kernel[0], depthwise.stride[0])
    weights = sum(4 * kernel.geometry.filters * kernel.geometry.taps for kernel in kernels)
    if (
        made * height + read * depthwise.height < WORTH
        or weights > WEIGHTS
        or last.width < max(OUTPUTS.values())
    ):
        return None
    rows = max(1, (ROWS - read * (kernel_rows - stride)) // (made + read * stride))
    rows = -(-height // -(-height // rows))
    kept = min(depthwise.height, (rows - 1) * stride + kernel_rows)
    ring = kept if len(kernels) == 3 else depthwise.height
    before, after, second = kernels[0], 4 * last.filters * last.width, len(kernels) - 2
    given = 4 * before.geometry.channels * before.geometry.height * before.geometry.width
    parts = []
    for image in range(batch):
        ready = 0
        for begin in range(0, height, rows):
            end = min(height, begin + rows)
            needed = min(depthwise.height, (end - 1) * stride - depthwise.padding[0] + kernel_rows)
            while len(kernels) == 3 and ready < needed:
                until = min(needed, (ready // ring + 1) * ring)
                job, offset = before.strip(ready, until)
                parts.append(Part(0, job, 1, image * given + offset, ready % ring * read, 0))
                ready = until
            job, offset = kernels[-2].strip(begin, end, ring)
            parts.append(Part(second, job, 1, offset + (0 if read else image * given), 0, 0))
            job, _ = kernels[-1].strip(0, end - begin)
            place = (image * height + begin) * after
            parts.append(Part(second + 1, job, 1, 0, place, place))
    return Strips(parts, [*([ring * read] if read else []), rows * made])
