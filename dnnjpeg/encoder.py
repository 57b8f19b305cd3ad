"""The encoder: pixels, or coefficients, to the bytes of a JPEG file."""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from numbers import Integral
from typing import Any

import numpy as np

from dnnjpeg.adaptive import YARDSTICK, adapted_quality
from dnnjpeg.checks import brief, check_array, check_integer, check_items, check_quality, is_number
from dnnjpeg.codec.coding import IMAGE_ONLY, INTERCHANGE, TABLES_ONLY, Coding
from dnnjpeg.codec.frame import MAX_SIDE, Frame, beyond_decoders
from dnnjpeg.codec.picture import MIN_BLOCKS, picture_planes, picture_scan
from dnnjpeg.codec.pixels import Pixels, as_pixels, mode_components
from dnnjpeg.codec.planes import hold_planes, zigzag_planes
from dnnjpeg.codec.quantize import Quantizer, quantizer_of
from dnnjpeg.codec.rows import encode_rows
from dnnjpeg.jpeg import markers
from dnnjpeg.jpeg.markers import NATURAL
from dnnjpeg.jpeg.signature import signature_segment
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.machine.kernel_cache import SUFFIX, kernel_folder
from dnnjpeg.table.fields import check_steps, spread
from dnnjpeg.table.library import chosen_table, load_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

DEFAULT_QUALITY = 75  # of a table, unless told otherwise
_PILLOW_SUBSAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


def encode(
    image: Any,
    table: str | os.PathLike[str] | Table | OperatingPoint | None = None,
    quality: float | None = None,
    *,
    model: str | None = None,
    mode: str | None = None,
    adaptive: bool = False,
    quantizer: str | None = None,
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
    streamtype: int = INTERCHANGE,
    threads: int = 1,
) -> bytes:
    """Encode a picture as a JPEG file that any decoder reads, and return its bytes.

    image: PIL image (1, L, RGB, RGBX, YCbCr, CMYK), or uint8 array, height x width [x channels]. Sides are
        1..65,535. Most decoders stop at 65,500: larger sides give a warning.
    table: name of an installed table, path of a JSON file, Table, or OperatingPoint. None: the table of
        `model`, else "standard".
    quality: 1..100. The network loses about as much as with a standard JPEG of this quality. None: 75, or
        the quality of the OperatingPoint.
    model: name of an installed table, in place of `table`.
    mode: channels of an array: "L", "RGB", "BGR", "YCbCr", "RGBX", "BGRX", "CMYK". None: L or RGB, by the
        shape.
    adaptive: complex pictures get a lower quality, simple ones a higher one; `quality` is the average for
        pictures of about the size that networks see. Takes twice as long.
    quantizer: "nearest", "probabilistic" (draws each index i from exp(-κ (c/q - i)²)), or None: probabilistic
        if the point has a hardness.
    hardness: κ, in place of the point's: a number, 64 numbers (None: nearest), or a list of these by table.
    seed: 0..2^63 - 1, for the probabilistic quantizer. One seed gives one file, on every machine.
    subsampling: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1", or 0, 1, 2 for the first three. None: the
        point's.
    progressive: True, False, or "auto" for the smaller file.
    optimize: True (default): Huffman tables made for the picture. False: the standard ones, which a
        progressive file cannot have.
    restart_blocks, restart_rows: a restart marker after so many MCUs, or rows of MCUs (which wins). 0: none.
    exif, xmp, icc_profile, comment: metadata, as bytes. dpi: dots per inch, across and down.
    jfif: write APP0 even without dpi. signature: name table and quality in a few bytes (APP9).
    streamtype: 0: a whole file. 1: tables only. 2: the picture without tables (T.81 B.5). The last two use
        the standard Huffman tables.
    threads: for one large picture. The bytes do not depend on it.

    Raises TypeError for a picture or option of the wrong type, ValueError for a value out of range, OSError
    for a PIL image in a mode that JPEG does not have.
    """
    table = chosen_table(table, model)
    pixels = as_pixels(image, mode)
    if adaptive and streamtype != INTERCHANGE:
        raise ValueError(
            f"adaptive steps are each picture's own, and streamtype={brief(streamtype)} shares them"
        )
    quality = own_quality(adaptive, table, quality, lambda: bits_at_yardstick(pixels, threads))
    point, name = operating_point(table, quality)
    point = hardened(point, hardness, quantizer)
    threads = check_integer(threads, "threads", 1, 1024)
    options = (
        point, pixels.width, pixels.height, pixels.mode, quantizer, seed, subsampling, progressive, optimize,
        streamtype, restart_blocks, restart_rows,
    )  # fmt: skip
    try:
        coding, chosen, max_index = _prepared(*options)
    except TypeError:  # one of them cannot be remembered: this says what is wrong with it
        coding, chosen, max_index = _prepared.__wrapped__(*options)
    if pixels is not image:  # given by a user
        _warn_of_sides(pixels.width, pixels.height)
    if streamtype == TABLES_ONLY:
        return coding.tables_only
    head = metadata_segments(coding.frame, exif, xmp, icc_profile, comment, dpi, jfif)
    if signature:
        head += signature_segment(name, point.quality)
    if coding.progressive is False and max_index is None:
        scan = picture_scan(pixels, coding.frame, chosen, seed, coding.interval, threads, coding.known_tables)
        return coding.baseline(head, scan)
    planes = picture_planes(pixels, coding.frame, chosen, seed, threads)
    if max_index is not None:
        hold_planes(coding.frame, planes, max_index)
    return coding.smallest(head, planes)


def own_quality(adaptive: Any, table: Any, quality: float | None, bits: Callable[[], float]) -> float | None:
    """The quality, or with `adaptive` a picture's own; `bits`: those a pixel at the yardstick. Raises
    ValueError.
    """
    if adaptive not in (False, True):
        raise ValueError(f"adaptive is {brief(adaptive)}, expected True or False")
    if not adaptive:
        return quality
    if isinstance(table, OperatingPoint):
        raise ValueError("adaptive=True needs a Table, not an OperatingPoint")
    return adapted_quality(check_quality(DEFAULT_QUALITY if quality is None else quality), bits())


def bits_at_yardstick(pixels: Pixels, threads: int = 1) -> float:
    """What `adapted_quality` asks of a picture, in bits a pixel."""
    stream = encode(pixels, quality=YARDSTICK, optimize=False, streamtype=IMAGE_ONLY, threads=threads)
    return 8 * len(stream) / (pixels.width * pixels.height)


@lru_cache(maxsize=256, typed=True)
def _prepared(
    point: OperatingPoint,
    width: int,
    height: int,
    mode: str,
    quantizer: str | None,
    seed: int,
    subsampling: str | int | None,
    *options: Any,
) -> tuple[Coding, Quantizer, np.ndarray | None]:
    """What follows from the options of `encode` for pictures of one size, max_index as for `hold_planes`."""
    check_integer(seed, "seed", 0, 2**63 - 1)
    components = mode_components(mode)
    coding = _coding(
        width,
        height,
        components,
        point.tables if components == 3 else point.tables[:1],
        point.subsampling if subsampling is None else subsampling,
        *options,
    )
    return coding, quantizer_for(point, quantizer, components), max_index_for(point, components)


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
    streamtype: int = INTERCHANGE,
) -> bytes:
    """Quantized DCT indices as the bytes of a JPEG file; a decoder's coefficients are these, exactly.

    planes: 1 (gray), 3 (YCbCr) or 4 (inverted CMYK, never subsampled) integer arrays [rows, columns, 8, 8] or
        [rows, columns, 64] in natural order; rows and columns as the component has blocks:
        ceil(ceil(height v / vmax) / 8) and likewise across. DC -1024..1023, AC -1023..1023.
    tables: 1 to 3 quantization tables of 64 steps (or 8x8), whole numbers 1..255 in natural order; component
        c has the c-th, or the last.
    width, height: of the picture, 1..65,535, with a warning above 65,500.

    The other options are those of `encode`.

    Raises TypeError for planes that are not integers, ValueError for what does not fit.
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
    coding = _coding(
        width,
        height,
        len(planes),
        steps,
        subsampling,
        progressive,
        optimize,
        streamtype,
        restart_blocks,
        restart_rows,
    )
    blocks = zigzag_planes(coding.frame, planes)
    _warn_of_sides(width, height)
    if streamtype == TABLES_ONLY:
        return coding.tables_only
    return coding.smallest(
        metadata_segments(coding.frame, exif, xmp, icc_profile, comment, dpi, jfif), blocks
    )


def _warn_of_sides(width: int, height: int) -> None:
    if text := beyond_decoders(width, height):
        warnings.warn(f"the picture has {text}", stacklevel=3)


def _whole_steps(table: Any, name: str) -> Steps:
    """64 steps of a table of numbers, floats among them where they are whole."""
    values = check_array(table, name, "64 steps, or 8x8").ravel().tolist()
    return check_steps([int(v) if isinstance(v, float) and v.is_integer() else v for v in values], name)


def operating_point(
    table: str | os.PathLike[str] | Table | OperatingPoint, quality: float | None
) -> tuple[OperatingPoint, str]:
    """The operating point, and the name of the table it is from."""
    if isinstance(table, OperatingPoint):
        if quality is not None:
            raise ValueError(f"table is an OperatingPoint, its quality is {table.quality}: leave out quality")
        return table, "custom"
    if not isinstance(table, Table):
        if not isinstance(table, str | os.PathLike):
            raise TypeError(
                f"table is a {type(table).__name__}, expected a name, a path, a Table or an OperatingPoint"
            )
        table = load_table(table)
    return table.at(DEFAULT_QUALITY if quality is None else quality), table.name


def hardened(point: OperatingPoint, hardness: Any, quantizer: str | None) -> OperatingPoint:
    """The point with this hardness, unless it is None."""
    if hardness is None:
        return point
    if quantizer == "nearest":
        raise ValueError("hardness is given, but quantizer='nearest' has none: leave one of them out")
    return _hardened(point, hardness) if is_number(hardness) else replace(point, hardness=hardness)


@lru_cache(maxsize=64)
def _hardened(point: OperatingPoint, hardness: Any) -> OperatingPoint:
    """The point with one hardness throughout; remembered, for its steps are checked anew."""
    return replace(point, hardness=hardness)


def _by_component(tables: tuple[Any, ...], components: int) -> tuple[Any, ...]:
    """The last one serves all further components."""
    return (tables + tables[-1:] * 3)[:components]


def _coding(
    width: int,
    height: int,
    components: int,
    tables: tuple[Steps, ...],
    subsampling: str | int,
    *options: Any,
) -> Coding:
    """The options checked, and brought into one form."""
    name = subsampling_of(subsampling)
    sampling = SUBSAMPLINGS[name] if components == 3 else ((1, 1),) * components
    return coding_of(width, height, sampling, _by_component(tables, components), *options)


def subsampling_of(subsampling: Any) -> str:
    """A name of `SUBSAMPLINGS`, for it or for Pillow's number."""
    name = subsampling
    if is_number(subsampling, Integral):
        name = _PILLOW_SUBSAMPLINGS.get(int(subsampling))
    if not isinstance(name, str) or name not in SUBSAMPLINGS:
        raise ValueError(
            f"subsampling is {brief(subsampling)}, expected one of {', '.join(SUBSAMPLINGS)}, or 0, 1, 2"
        )
    return name


def coding_of(
    width: int,
    height: int,
    sampling: tuple[tuple[int, int], ...],
    tables: tuple[Steps, ...],
    progressive: bool | str,
    optimize: bool | None,
    streamtype: int,
    restart_blocks: int,
    restart_rows: int,
) -> Coding:
    """Of components with such sampling factors and tables; the options of `encode` checked."""
    if progressive not in (False, True, "auto"):
        raise ValueError(f"progressive is {brief(progressive)}, expected True, False or 'auto'")
    if optimize not in (None, False, True):
        raise ValueError(f"optimize is {brief(optimize)}, expected True, False or None")
    used = tuple(dict.fromkeys(tables))  # equal tables are written once
    return Coding(
        Frame(width, height, sampling, tuple(used.index(table) for table in tables)),
        used,
        progressive if progressive == "auto" else bool(progressive),
        None if optimize is None else bool(optimize),
        check_integer(streamtype, "streamtype", 0, 2),
        check_integer(restart_blocks, "restart_blocks", 0, 65535),
        check_integer(restart_rows, "restart_rows", 0, 65535),
    )


def quantizer_for(point: OperatingPoint, name: str | None, components: int) -> Quantizer:
    if name not in (None, "nearest", "probabilistic"):
        raise ValueError(f"quantizer is {brief(name)}, expected 'nearest' or 'probabilistic'")
    return _make_quantizer(point, name, components)


@lru_cache(maxsize=64)
def _make_quantizer(point: OperatingPoint, name: str | None, components: int) -> Quantizer:
    kappas = tuple(map(spread, point.hardness))
    known = any(k is not None for table in kappas for k in table)
    if name == "probabilistic" and not known:
        raise ValueError("quantizer is 'probabilistic', but the table has no hardness: pass hardness=")
    tables, kappas = (_for_all(rows, components) for rows in (point.divisors, kappas))
    return quantizer_of(tables, kappas if known and name != "nearest" else None)


def max_index_for(point: OperatingPoint, components: int) -> np.ndarray | None:
    if all(limit is None for limit in point.max_index):
        return None
    none = np.iinfo(np.int16).max
    rows = [[none if limit is None else limit for limit in spread(entry)] for entry in point.max_index]
    return np.array(_for_all(tuple(rows), components), np.int16)[:, NATURAL]


def _for_all(rows: tuple[Any, ...], components: int) -> tuple[Any, ...]:
    """By component; gray and CMYK have what is for luma alone."""
    return _by_component(rows if components == 3 else rows[:1], components)


def metadata_segments(
    frame: Frame,
    exif: bytes,
    xmp: bytes,
    icc_profile: bytes,
    comment: bytes,
    dpi: tuple[float, float] | None,
    jfif: bool,
) -> bytes:
    if exif == xmp == icc_profile == comment == b"" and dpi is None and not jfif and len(frame.sampling) < 4:
        return b""
    for name, value in (("exif", exif), ("xmp", xmp), ("icc_profile", icc_profile), ("comment", comment)):
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is a {type(value).__name__}, expected bytes")
    density = None
    if dpi is not None:
        numbers = check_items(dpi, "dpi", "two numbers 1..65535")
        if len(numbers) != 2 or not all(
            is_number(n) and math.isfinite(n) and 1 <= round(n) <= 65535 for n in numbers
        ):
            raise ValueError(f"dpi is {brief(dpi)}, expected two numbers 1..65535")
        density = (round(numbers[0]), round(numbers[1]))
    return b"".join(
        (
            markers.jfif(density) if jfif or density else b"",
            markers.exif(exif),
            markers.xmp(xmp),
            markers.icc(icc_profile),
            markers.adobe() if len(frame.sampling) == 4 else b"",
            markers.comment(comment),
        )
    )


def is_warm() -> bool:
    """Whether the kernels are compiled, in this process or in the cache of an earlier one."""
    folder = kernel_folder()
    return bool(encode_rows.signatures) or bool(folder and any(folder.glob(f"rows.encode_rows*{SUFFIX}")))


def warmup() -> None:
    """Compile every kernel, or load it from the cache."""
    picture = np.zeros((8, 8, 3), np.uint8)
    encode(picture, threads=1)
    encode(picture, progressive="auto")
    encode(np.zeros((8 * MIN_BLOCKS // 16, 8 * 32), np.uint8), threads=2)
    encode(picture, optimize=False)
