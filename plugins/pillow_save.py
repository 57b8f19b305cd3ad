"""One save by Pillow: what the options mean to the codec, and the bytes of the file.

This module is loaded at the first save, because it loads the codec.
"""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PIL import Image
from PIL.JpegPresets import presets

from dnnjpeg.checks import check_integer, check_quality
from dnnjpeg.codec.pixels import as_pixels, mode_components
from dnnjpeg.encoder import encode, tables_only
from dnnjpeg.jpeg.standard import ijg_scale
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.options import options_of
from dnnjpeg.table.fields import check_tables
from dnnjpeg.table.formats import parse_wizard
from dnnjpeg.table.library import chosen_table
from dnnjpeg.table.point import OperatingPoint

from .pillow_options import FORMAT, PASSED, REFUSED, SOURCES

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

    from dnnjpeg.transcoder import Decoded

_TABLES_ONLY, _IMAGE_ONLY = 1, 2  # of streamtype


def encode_image(image: Image.Image, options: dict[str, Any]) -> bytes:
    """The bytes of the file. options: what `merge` returns."""
    for name, reason in REFUSED.items():
        if options.get(name):
            raise ValueError(f"{FORMAT} refuses {name}: {reason}")
    table, quality = _table_and_quality(image, options)
    progressive = options.get("progressive") or options.get("progression") or False
    exif = options.get("exif", b"")
    comment = options["comment"] if "comment" in options else image.info.get("comment")
    chosen: dict[str, Any] = {
        "subsampling": _subsampling(image, options.get("subsampling", -1)),
        "optimize": options.get("optimize"),
        "progressive": progressive if isinstance(progressive, str) else bool(progressive),
        "dpi": _dpi(options.get("dpi")),
        "exif": exif.tobytes() if isinstance(exif, Image.Exif) else exif,
        "comment": comment.encode() if isinstance(comment, str) else comment or b"",
        **{theirs: options[ours] for ours, theirs in PASSED.items() if ours in options},
    }
    kind = check_integer(options.get("streamtype", 0), "streamtype", 0, 2)
    if kind == _TABLES_ONLY:
        components = mode_components(as_pixels(image, None).mode)
        return tables_only(table, quality, components=components)
    decoded = None if kind else _decoded(image)
    if decoded is not None and decoded.can_be(chosen["subsampling"]):
        chosen.pop("threads", None)
        how, metadata = options_of(chosen)
        return decoded.encode(table, quality, how, metadata.segments(len(decoded.source.frame.sampling)))
    return encode(image, table, quality, abbreviated=kind == _IMAGE_ONLY, **chosen)


def _decoded(image: Image.Image) -> "Decoded | None":
    """The coefficients of the JPEG file that the picture was opened from. None if there is no such file, or
    if the pixels are no longer those of the file.
    """
    name = getattr(image, "filename", "")
    if image.format != "JPEG" or not name or image.mode not in ("L", "RGB"):
        return None
    from dnnjpeg.transcoder import Decoded

    with suppress(OSError, ValueError):
        path = Path(os.fsdecode(name))
        if not path.is_file():  # a pipe gives its data only once
            return None
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as again:
            if again.format == "JPEG" and again.mode == image.mode and again.size == image.size:
                decoded = Decoded.read(data)
                usual = decoded.source.colour in ("gray", "YCbCr")
                return decoded if usual and again.tobytes() == image.tobytes() else None
    return None


def _table_and_quality(image: Image.Image, options: dict[str, Any]) -> tuple[Any, float | None]:
    """The table and the quality that `dnnjpeg.encode` gets. ValueError if two options choose a table."""
    given = sorted(SOURCES & options.keys())
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} each choose the quantization tables: give one of them")
    quality = options.get("quality", -1)
    quality = None if quality == -1 else quality or 1
    if "qtables" in options:
        return _point(image, options["qtables"], quality), None
    return chosen_table(options.get("table"), options.get("model")), quality


def _point(image: Image.Image, qtables: Any, quality: float | None) -> OperatingPoint:
    """The operating point with the tables of ``qtables``. A quality scales them by the IJG formula."""
    tables: Any
    if not isinstance(qtables, str):
        tables = check_tables(qtables, "qtables", "1 to 4 tables of 64 integers")
    elif qtables == "keep":
        kept = _jpeg(image)
        tables = [kept.quantization[selector] for *_, selector in kept.layer]
    elif qtables in presets:
        tables = cast("list[Any]", presets[qtables]["quantization"])[: 1 if image.mode == "CMYK" else None]
    else:
        tables = list(parse_wizard(qtables))
    if not 1 <= len(tables) <= 4:
        raise ValueError(f"qtables has {len(tables)} quantization tables, expected 1 to 4")
    point = OperatingPoint.from_tables(tables[:3])
    if image.mode == "CMYK" and len({*point.tables}) > 1:
        raise ValueError("qtables has different tables, but the four components of a CMYK picture share one")
    if quality is None:
        return point
    quality = check_quality(quality)
    return OperatingPoint.from_tables([ijg_scale(steps, quality) for steps in point.tables])


def _subsampling(image: Image.Image, subsampling: Any) -> Any:
    """The subsampling that `dnnjpeg.encode` gets; None leaves it to the table."""
    if subsampling == -1:
        return None
    if isinstance(subsampling, str) and subsampling in presets:
        return presets[subsampling]["subsampling"]
    if subsampling != "keep":
        return subsampling
    factors = [(across, down) for _, across, down, _ in _jpeg(image).layer]
    if len(factors) != 3:
        return None
    width, height = factors[1]
    for name, components in SUBSAMPLINGS.items():
        if factors == [(across * width, down * height) for across, down in components]:
            return name
    raise ValueError(f"cannot keep the sampling factors {factors}; known are {', '.join(SUBSAMPLINGS)}")


def _dpi(dpi: Any) -> Any:
    """The dpi that `dnnjpeg.encode` gets; None if both numbers round to 0."""
    if dpi is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):  # the codec says what is wrong
        if tuple(map(round, dpi)) == (0, 0):
            return None
    return dpi


def _jpeg(image: Image.Image) -> "JpegImageFile":
    if image.format != "JPEG":
        raise ValueError("Cannot use 'keep' when original image is not a JPEG")
    return cast("JpegImageFile", image)
