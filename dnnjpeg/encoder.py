"""The encoder: pixels, or coefficients, to the bytes of a JPEG file."""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dnnjpeg.adaptive import YARDSTICK, adapted_quality
from dnnjpeg.checks import brief, check_array, check_integer, check_items, check_quality
from dnnjpeg.codec.frame import MAX_SIDE, beyond_decoders
from dnnjpeg.codec.picture import MIN_BLOCKS, picture_file, picture_planes
from dnnjpeg.codec.pixels import Pixels, as_image, as_pixels, mode_components
from dnnjpeg.codec.planes import zigzag_planes
from dnnjpeg.codec.prepare import (
    DEFAULT_QUALITY,
    by_component,
    coding_of,
    for_all,
    operating_point,
    prepared,
    sampling_of,
)
from dnnjpeg.codec.rows import encode_rows
from dnnjpeg.jpeg.signature import adaptation, signature_segment
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.machine.jit import is_compiled
from dnnjpeg.networks.reader import installed_reader
from dnnjpeg.options import (
    DEFAULTS,
    NO_METADATA,
    EncodeOptions,
    Metadata,
    metadata_from,
    options_from,
    subsampling_of,
)
from dnnjpeg.table.fields import check_steps
from dnnjpeg.table.library import chosen_table, standard_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table


def encode(
    image: Any,
    table: str | os.PathLike[str] | Table | OperatingPoint | None = None,
    quality: float | None = None,
    *,
    model: str | None = None,
    mode: str | None = None,
    adaptive: bool | str = False,
    hardness: Any = None,
    seed: int = 0,
    subsampling: str | int | None = None,
    progressive: bool | str = False,
    optimize: bool | None = None,
    restart_blocks: int = 0,
    restart_rows: int = 0,
    exif: bytes = b"",
    xmp: bytes = b"",
    icc_profile: bytes = b"",
    comment: bytes = b"",
    dpi: tuple[float, float] | None = None,
    jfif: bool = False,
    signature: bool = True,
    abbreviated: bool = False,
    threads: int = 1,
) -> bytes:
    """Encode a picture as a JPEG file that any decoder reads, and return its bytes.

    image: PIL image (1, L, RGB, RGBX, YCbCr, CMYK), or uint8 array, height x width [x channels]. Sides are
        1..65,535. Most decoders stop at 65,500: larger sides give a warning.
    table: name of an installed table, path of a JSON file, Table, or OperatingPoint. None: the table of
        `model`, else "universal".
    quality: 1..100. The network loses about as much as with a standard JPEG of this quality. None: 75, or
        the quality of the OperatingPoint.
    model: name of an installed table, in place of `table`.
    mode: channels of an array: "L", "RGB", "BGR", "YCbCr", "RGBX", "BGRX", "CMYK". None: L or RGB, by the
        shape.
    adaptive: each picture gets its own quality, and `quality` is the average for pictures of about the size
        that networks see. True: complex pictures get a lower quality, simple ones a higher one. Takes twice
        as long. "read": pictures that are hard to read get a higher quality, too. The reader, a small
        classifier, reads a coarse file of each (pip install 'dnnjpeg[reader]').
    hardness: κ >= 0.01 of the probabilistic quantizer, which draws each index i from exp(-κ (c/q - i)²), or
        inf, which rounds to the nearest index. A number, 64 numbers, or a list of these by table. None: the
        point's, and the nearest index if it has none.
    seed: 0..2^63 - 1, for the probabilistic quantizer. One seed gives one file, on every machine.
    subsampling: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", or 0, 1, 2 for the first three. None: the
        point's.
    progressive: True, False, or "auto" for the smaller file.
    optimize: True (default): Huffman tables made for the picture. False: the standard ones, which a
        progressive file cannot have.
    restart_blocks, restart_rows: a restart marker after so many MCUs, or rows of MCUs (which wins). 0: none.
    exif, xmp, icc_profile, comment: metadata, as bytes. dpi: dots per inch, across and down.
    jfif: write APP0 even without dpi. signature: name table and quality in a few bytes (APP9).
    abbreviated: leave out the tables (T.81 B.5), which `tables_only` gives. Huffman tables are the standard
        ones.
    threads: for one large picture. The bytes do not depend on it.

    Raises TypeError for a picture or option of the wrong type, ValueError for a value out of range, OSError
    for a PIL image in a mode that JPEG does not have.
    """
    options = options_from(
        adaptive, hardness, seed, subsampling, progressive, optimize, restart_blocks, restart_rows, signature,
        abbreviated,
    )  # fmt: skip
    metadata = metadata_from(exif, xmp, icc_profile, comment, dpi, jfif)
    pixels = as_pixels(image, mode)
    data = encode_pixels(pixels, chosen_table(table, model), quality, options, metadata, threads)
    _warn_of_sides(pixels.width, pixels.height)
    return data


def encode_pixels(
    pixels: Pixels,
    table: str | os.PathLike[str] | Table | OperatingPoint,
    quality: float | None,
    options: EncodeOptions,
    metadata: Metadata = NO_METADATA,
    threads: int = 1,
) -> bytes:
    """Do what `encode` does, with options that are checked already."""
    threads = check_integer(threads, "threads", 1, 1024)
    adapted = ""
    if options.adaptive:
        quality, adapted = own_quality(
            table, quality, options.adaptive,
            partial(bits_at_yardstick, pixels, threads), partial(_lost_at_yardstick, pixels, metadata),
        )  # fmt: skip
    point, name = operating_point(table, quality)
    head = metadata.segments(mode_components(pixels.mode))
    if options.signature:
        head += signature_segment(name, point.quality, adapted)
    return _file(pixels, point, options, head, threads)


def own_quality(
    table: Any,
    quality: float | None,
    adaptive: bool | str,
    bits: Callable[[], float],
    lost: Callable[[], float],
) -> tuple[float, str]:
    """The quality that a picture gets with `adaptive`, see `adapted_quality`, and the adaptation for its
    signature.

    bits: returns the bits per pixel at the yardstick.
    lost: returns the divergence that the reader has found, in nat. Only called for "read".

    Raises ValueError if the table is an OperatingPoint, or for a wrong quality.
    """
    if isinstance(table, OperatingPoint):
        raise ValueError(f"adaptive={adaptive!r} needs a Table, not an OperatingPoint")
    usual = check_quality(DEFAULT_QUALITY if quality is None else quality)
    own = adapted_quality(usual, bits(), lost() if adaptive == "read" else None)
    return own, adaptation(adaptive, usual)


def bits_at_yardstick(pixels: Pixels, threads: int = 1) -> float:
    """The bits per pixel of a picture's file at the yardstick, see `adapted_quality`."""
    file = _file(pixels, standard_table().at(YARDSTICK), AT_YARDSTICK, YARDSTICK_HEAD, threads)
    return 8 * len(file) / (pixels.width * pixels.height)


def file_at_yardstick(pixels: Pixels, metadata: Metadata) -> bytes:
    """Make the coarse file that the reader reads. It has only the metadata that may give the orientation."""
    turn = Metadata(exif=metadata.exif, xmp=metadata.xmp)
    return encode_pixels(pixels, standard_table(), YARDSTICK, DEFAULTS, turn)


def _lost_at_yardstick(pixels: Pixels, metadata: Metadata) -> float:
    original = as_image(pixels)
    original.info.update(exif=metadata.exif, xmp=metadata.xmp)
    return installed_reader().divergence(original, file_at_yardstick(pixels, metadata))


AT_YARDSTICK = EncodeOptions(optimize=False, abbreviated=True)
YARDSTICK_HEAD = signature_segment("standard", YARDSTICK)  # the law was fitted to files that had it


def _file(pixels: Pixels, point: OperatingPoint, options: EncodeOptions, head: bytes, threads: int) -> bytes:
    coding, work = prepared(point, options, pixels.width, pixels.height, pixels.mode)
    if options.progressive:
        return coding.smallest(head, picture_planes(pixels, work, threads))
    return picture_file(pixels, work, threads, coding.known_huffman, partial(coding.baseline, head))


def tables_only(
    table: str | os.PathLike[str] | Table | OperatingPoint | None = None,
    quality: float | None = None,
    *,
    model: str | None = None,
    components: int = 3,
) -> bytes:
    """The tables of abbreviated pictures (T.81 B.5): a stream of quantization tables and the standard Huffman
    tables, without a picture.

    table, quality, model: as in `encode`, and the same as for the pictures.
    components: of the pictures: 1 (gray), 3 (colour) or 4 (CMYK).

    Raises TypeError and ValueError as `encode` does.
    """
    if components not in (1, 3, 4):
        raise ValueError(f"components is {brief(components)}, expected 1, 3 or 4")
    point, _ = operating_point(chosen_table(table, model), quality)
    sampling = sampling_of(components, point.subsampling)
    return coding_of(8, 8, sampling, for_all(point.tables, components), DEFAULTS).tables_only


def write_coefficients(
    planes: Sequence[Any],
    tables: Sequence[Any],
    width: int,
    height: int,
    *,
    subsampling: str | int = "4:4:4",
    progressive: bool | str = False,
    optimize: bool | None = None,
    restart_blocks: int = 0,
    restart_rows: int = 0,
    exif: bytes = b"",
    xmp: bytes = b"",
    icc_profile: bytes = b"",
    comment: bytes = b"",
    dpi: tuple[float, float] | None = None,
    jfif: bool = False,
    abbreviated: bool = False,
) -> bytes:
    """Write quantized DCT coefficients as a JPEG file, and return its bytes. A decoder reads the same
    numbers.

    planes: an integer array for each component, [rows, columns, 8, 8] or [rows, columns, 64] in natural
        order. 1 component is gray, 3 are YCbCr, and 4 are inverted CMYK, which is not subsampled. Rows and
        columns are numbers of blocks: ceil(ceil(height v / vmax) / 8) rows, with the sampling factors v, and
        columns in the same way. DC is -1024..1023, AC -1023..1023.
    tables: 1 to 3 quantization tables of 64 steps (or 8x8), whole numbers 1..255 in natural order. Component
        c gets table c, or the last one.
    width, height: size of the picture in pixels, 1..65,535. Above 65,500 there is a warning.

    The other options are those of `encode`.

    Raises TypeError if planes are not integers. Raises ValueError if a number is out of range, or if shapes
    do not fit the size.
    """
    width = check_integer(width, "width", 1, MAX_SIDE)
    height = check_integer(height, "height", 1, MAX_SIDE)
    planes = check_items(planes, "planes", "a list of 1, 3 or 4 arrays")
    tables = check_items(tables, "tables", "a list of 1 to 3 tables")
    if len(planes) not in (1, 3, 4):
        raise ValueError(f"planes has {len(planes)} components, expected 1, 3 or 4")
    steps = tuple(_whole_steps(table, f"tables[{i}]") for i, table in enumerate(tables))
    if not 1 <= len(steps) <= 3:
        raise ValueError(f"tables has {len(steps)} tables, expected 1 to 3")
    options = EncodeOptions(
        subsampling=subsampling_of(subsampling), progressive=progressive, optimize=optimize,
        restart_blocks=restart_blocks, restart_rows=restart_rows, abbreviated=abbreviated,
    )  # fmt: skip
    metadata = Metadata(exif, xmp, icc_profile, comment, dpi, jfif)
    count = len(planes)
    coding = coding_of(
        width, height, sampling_of(count, options.subsampling), by_component(steps, count), options
    )
    blocks = zigzag_planes(coding.frame, planes)
    _warn_of_sides(width, height)
    return coding.smallest(metadata.segments(count), blocks)


def _warn_of_sides(width: int, height: int) -> None:
    if text := beyond_decoders(width, height):
        warnings.warn(f"the picture has {text}", stacklevel=3)


def _whole_steps(table: Any, name: str) -> Steps:
    """Check for a table of 64 whole numbers. Floats are accepted if they are whole."""
    values = check_array(table, name, "64 steps, or 8x8").ravel().tolist()
    return check_steps([int(v) if isinstance(v, float) and v.is_integer() else v for v in values], name)


def is_warm() -> bool:
    """Whether the kernels are compiled, in this process or in the cache of an earlier one."""
    return is_compiled(encode_rows)


def warmup() -> None:
    """Compile every kernel, or load it from the cache."""
    picture = np.zeros((8, 8, 3), np.uint8)
    encode(picture, threads=1)
    busy = (97 * np.arange(8 * 8 * 3) % 256).astype(np.uint8).reshape(8, 8, 3)
    encode(busy, progressive="auto")  # with all kinds of scans
    encode(np.zeros((8 * MIN_BLOCKS // 16, 8 * 32), np.uint8), threads=2)
    encode(picture, optimize=False)
    encode(picture, hardness=15, threads=1)
