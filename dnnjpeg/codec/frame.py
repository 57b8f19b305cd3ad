"""The geometry of a picture in blocks (T.81 A.1, A.2), and the arrays that kernels read of it."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np

from dnnjpeg.codec.dct import LANES
from dnnjpeg.codec.scan import PLANE, STRIDE

MAX_SIDE = 65535
_DECODERS_SIDE = 65500  # libjpeg's JPEG_MAX_DIMENSION


def beyond_decoders(width: int, height: int) -> str:
    """A warning about a picture of a size, in pixels, that JPEG can hold and most decoders refuse. Empty for
    other sizes.
    """
    if max(width, height) <= _DECODERS_SIDE:
        return ""
    return f"{width:,} x {height:,} pixels, and most decoders stop at {_DECODERS_SIDE:,} a side"


@dataclass(frozen=True)
class FrameComponent:
    """One component of a frame.

    h, v: sampling factors, 1..4.
    columns, rows: the number of blocks across and down that hold picture.
    quantization_table: number of its quantization table, 0..3.
    huffman_table: number of its DC table, and of its AC table: 0, or 1 for chroma.
    """

    h: int
    v: int
    columns: int
    rows: int
    quantization_table: int
    huffman_table: int


@dataclass(frozen=True, eq=False)
class Frame:
    """The size of a picture, and its components.

    width, height: in pixels, 1..65,535.
    sampling: the sampling factors (h, v) of each component.
    quantization_tables: the number of the quantization table of each component.

    Raises ValueError for another width or height.
    """

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]
    quantization_tables: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(f"{name} is {side}, expected 1..{MAX_SIDE}, which is what JPEG can hold")

    @cached_property
    def h(self) -> int:
        """The largest horizontal sampling factor."""
        return max(h for h, _ in self.sampling)

    @cached_property
    def v(self) -> int:
        """The largest vertical sampling factor."""
        return max(v for _, v in self.sampling)

    @cached_property
    def mcus(self) -> int:
        """Number of MCUs in a row."""
        return -(-self.width // (8 * self.h))

    @cached_property
    def mcu_rows(self) -> int:
        """Number of rows of MCUs."""
        return -(-self.height // (8 * self.v))

    @cached_property
    def components(self) -> tuple[FrameComponent, ...]:
        colour = len(self.sampling) == 3  # one component is luma, four are CMYK and alike
        return tuple(
            FrameComponent(
                h,
                v,
                ceil(ceil(self.width * h / self.h) / 8),
                ceil(ceil(self.height * v / self.v) / 8),
                self.quantization_tables[c],
                int(colour and c > 0),
            )
            for c, (h, v) in enumerate(self.sampling)
        )

    @cached_property
    def huffman_pairs(self) -> int:
        """The number of pairs of Huffman tables, DC and AC: 2 if there is chroma, else 1."""
        return 1 + max(component.huffman_table for component in self.components)

    @cached_property
    def every(self) -> tuple[int, ...]:
        """The numbers of all components."""
        return tuple(range(len(self.sampling)))

    @cached_property
    def blocks(self) -> int:
        """Number of blocks in an MCU."""
        return sum(h * v for h, v in self.sampling)

    @cached_property
    def _planes(self) -> dict[int, tuple[np.ndarray, int]]:
        return {}

    def planes(self, whole_picture: bool) -> tuple[np.ndarray, int]:
        """How planes of coefficients are laid out: int64[components, 7] with the fields that `scan` names,
        and the number of blocks of all planes.

        whole_picture: True for planes of the whole picture, False for planes of one row of MCUs.
        """
        return self.row_planes(self.mcu_rows if whole_picture else 1)

    def row_planes(self, mcu_rows: int) -> tuple[np.ndarray, int]:
        """As `planes`, for planes of some rows of MCUs."""
        if mcu_rows not in self._planes:
            self._planes[mcu_rows] = self._lay_out(mcu_rows)
        return self._planes[mcu_rows]

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """By component, in `planes(True)`: blocks between rows, and the first block."""
        return tuple((row[STRIDE], row[PLANE]) for row in self.planes(True)[0].tolist())

    def _lay_out(self, mcu_rows: int) -> tuple[np.ndarray, int]:
        rows, blocks = [], 0
        for part in self.components:
            # batches of blocks are written whole
            stride = -(-self.mcus * part.h // LANES) * LANES
            rows.append((part.h, part.v, part.columns, part.rows, stride, blocks, part.huffman_table))
            blocks += stride * part.v * mcu_rows
        return np.array(rows, np.int64), blocks
