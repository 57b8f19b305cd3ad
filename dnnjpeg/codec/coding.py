"""Make a file of a scan or of planes of coefficients: headers, and baseline or progressive scans."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.huffman import ScanTables, standard_huffman
from dnnjpeg.codec.plane_rows import Change, baseline_file, file_of_scan, requantized
from dnnjpeg.codec.planes import progressive_scans, restart_interval
from dnnjpeg.codec.read_scans import FoundScan
from dnnjpeg.codec.stream import Scan, with_headers
from dnnjpeg.jpeg import markers
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.options import EncodeOptions


@dataclass(frozen=True)
class Coding:
    """How the quantized coefficients of a picture become a file.

    quantization_tables: the tables that the components name, each once.
    """

    frame: Frame
    quantization_tables: tuple[Steps, ...]
    options: EncodeOptions

    @cached_property
    def interval(self) -> int:
        """MCUs from one restart marker to the next in a scan of all components; 0 is none."""
        return restart_interval(self.frame.mcus, self.options.restart_blocks, self.options.restart_rows)

    @cached_property
    def tables_only(self) -> bytes:
        """The abbreviated stream of tables (T.81 B.5)."""
        return (
            markers.SOI
            + markers.dqt(self.quantization_tables)
            + markers.dht(standard_huffman(self.frame.huffman_pairs).dht)
            + markers.EOI
        )

    @cached_property
    def known_huffman(self) -> ScanTables | None:
        """The Huffman tables of a baseline scan. None means that they are made for the picture."""
        own = not self.options.abbreviated and self.options.optimize is not False
        return None if own else standard_huffman(self.frame.huffman_pairs)

    def baseline(self, head: bytes, scan: Scan) -> bytes:
        """The file that holds one baseline scan. head: the segments of metadata, joined."""
        return self._file(head, False, [scan])

    def smallest(self, head: bytes, planes: np.ndarray, change: Change | None = None) -> bytes:
        """Make a file of all coefficients: baseline, progressive, or the smaller of the two.

        head: the segments of metadata, joined.
        planes: int16[blocks, 64] in zigzag order, laid out as `Frame.planes(True)` says.
        change: how to requantize the planes first. None leaves them as they are.
        """
        options, frame, files = self.options, self.frame, []
        if options.progressive and change:
            planes, change = requantized(frame, planes, change), None
        if options.progressive is not True:
            file_of = partial(self.baseline, head)
            files.append(baseline_file(frame, planes, self.interval, self.known_huffman, change, file_of))
        if options.progressive:
            scans = progressive_scans(frame, planes, options.restart_blocks, options.restart_rows)
            files.append(self._file(head, True, scans))
        return min(files, key=len)

    def of_scan(self, head: bytes, found: FoundScan, change: Change) -> bytes | None:
        """As `smallest`, of a scan that is decoded on the way. None where that is not possible, see
        `file_of_scan`.
        """
        if self.options.progressive:
            return None
        file_of = partial(self.baseline, head)
        return file_of_scan(self.frame, found, self.interval, self.known_huffman, change, file_of)

    def _file(self, head: bytes, progressive: bool, scans: Sequence[Scan]) -> bytes:
        front = self._fronts[progressive]
        coded = with_headers(self.frame, scans, not self.options.abbreviated)
        return b"".join((markers.SOI, head, front, *coded, markers.EOI))

    @cached_property
    def _fronts(self) -> tuple[bytes, bytes]:
        """The segments DQT and SOF, joined, of a baseline and of a progressive file."""
        frame = self.frame
        dqt = markers.dqt(self.quantization_tables) if not self.options.abbreviated else b""
        components = [(c.h, c.v, c.quantization_table) for c in frame.components]
        sequential = int(max(map(max, self.quantization_tables)) > 255)  # baseline has steps of 8 bits only
        baseline, progressive = (
            markers.sof(kind, frame.width, frame.height, components) for kind in (sequential, 2)
        )
        return dqt + baseline, dqt + progressive
