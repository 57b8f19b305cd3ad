"""What the options of Pillow's JPEG writer mean to the codec."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

    from dnnjpeg.table.point import OperatingPoint

# What chooses the quantization tables: one of them at a time.
SOURCES = frozenset({"model", "table", "qtables"})


def table_and_quality(image: Image.Image, options: dict[str, Any]) -> tuple[Any, float | None]:
    """What the codec takes as its table and its quality."""
    from dnnjpeg.table.library import chosen_table

    given = sorted(SOURCES & options.keys())
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} each choose the quantization tables: give one of them")
    quality = options.get("quality", -1)
    quality = None if quality == -1 else quality or 1
    if "qtables" in options:
        return _point(image, options["qtables"], quality), None
    return chosen_table(options.get("table"), options.get("model")), quality


def _point(image: Image.Image, qtables: Any, quality: float | None) -> "OperatingPoint":
    """The operating point that ``qtables`` stands for, scaled where a quality is given."""
    from PIL.JpegPresets import presets

    from dnnjpeg.checks import check_quality
    from dnnjpeg.jpeg.standard import ijg_scale
    from dnnjpeg.table.fields import check_tables
    from dnnjpeg.table.formats import parse_wizard
    from dnnjpeg.table.point import OperatingPoint

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


def codec_subsampling(image: Image.Image, subsampling: Any) -> Any:
    """What the codec takes as its subsampling."""
    from PIL.JpegPresets import presets

    from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

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


def codec_dpi(dpi: Any) -> Any:
    """What the codec takes as its dpi: none where both round to 0."""
    with suppress(TypeError, ValueError, OverflowError):  # the codec says what is wrong
        if tuple(map(round, dpi)) == (0, 0):
            return None
    return dpi


def _jpeg(image: Image.Image) -> "JpegImageFile":
    if image.format != "JPEG":
        raise ValueError("Cannot use 'keep' when original image is not a JPEG")
    return cast("JpegImageFile", image)
