"""The options of a save by Pillow: names, defaults filled in, and what they mean to the codec."""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

if TYPE_CHECKING:
    from PIL.JpegImagePlugin import JpegImageFile

    from dnnjpeg.table.point import OperatingPoint

FORMAT = "DNNJPEG"

# What chooses the quantization tables: one of them at a time.
SOURCES = frozenset({"model", "table", "qtables"})
# What `pillow` reads one by one.
_READ = frozenset(
    {"quality", "subsampling", "optimize", "progressive", "progression", "dpi", "exif", "comment"}
    | {"streamtype"}
)
# Passed on as they are, under the codec's name.
PASSED = {
    "restart_marker_blocks": "restart_blocks",
    "restart_marker_rows": "restart_rows",
    "xmp": "xmp",
    "icc_profile": "icc_profile",
    "adaptive": "adaptive",
    "hardness": "hardness",
    "seed": "seed",
    "threads": "threads",
    "jfif": "jfif",
    "signature": "signature",
}
# Options of Pillow's that are an error here, with the reason.
REFUSED = {
    "smooth": "the encoder does not blur its input; filter the picture beforehand",
    "keep_rgb": "the quantization tables are made for YCbCr; use Pillow's own JPEG writer",
    "extra": "raw segments could break the file; use exif, xmp, icc_profile or comment",
    "append_images": "a JPEG file holds one picture; save each to a file of its own",
}
OPTIONS = SOURCES.union(_READ, PASSED, REFUSED)
# Options that Pillow's own JPEG writer does not have.
OWN = frozenset({"model", "table", "adaptive", "hardness", "seed", "threads", "jfif", "signature"})


def check_names(options: Iterable[str]) -> None:
    """Raise TypeError for an option that does not exist, with the nearest one that does."""
    for name in options:
        if name not in OPTIONS:
            import difflib

            near = difflib.get_close_matches(name, OPTIONS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(OPTIONS))}"
            raise TypeError(f"{FORMAT} has no option {name!r}; {hint}")


def merge(defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options of one save: ``options``, and ``defaults`` for those that are not given.

    An option that is None counts as not given; a comment of None stays. A quality by name becomes qtables and
    subsampling. If ``options`` choose a table, the defaults that choose one are dropped.
    """
    from dnnjpeg.table.point import OperatingPoint

    options = _spell_out(options)
    replaced = set(options)
    if any(options.get(name) is not None for name in SOURCES):
        replaced |= SOURCES
        has_quality = options.get("qtables") is not None or isinstance(options.get("table"), OperatingPoint)
        if has_quality or isinstance(defaults.get("quality"), str):
            replaced.add("quality")
    kept = _spell_out({name: value for name, value in defaults.items() if name not in replaced})
    merged = kept | options
    return {name: value for name, value in merged.items() if value is not None or name == "comment"}


def _spell_out(options: dict[str, Any]) -> dict[str, Any]:
    """Replace a quality by name ("web_high", "keep") by the qtables and subsampling that it stands for."""
    name = options.get("quality")
    if not isinstance(name, str):
        return options
    from PIL.JpegPresets import presets

    if name != "keep" and name not in presets:
        from dnnjpeg.checks import brief

        raise ValueError(f"quality is {brief(name)}, expected 1..100, 'keep' or one of {', '.join(presets)}")
    rest = {key: value for key, value in options.items() if key != "quality"}
    for key in ("qtables", "subsampling"):
        value = rest.get(key)
        if value is not None and not (isinstance(value, str) and value == name):
            raise ValueError(f"quality={name!r} chooses the {key} too: leave out {key}")
        rest[key] = name
    return rest


def table_and_quality(image: Image.Image, options: dict[str, Any]) -> tuple[Any, float | None]:
    """The table and the quality that `dnnjpeg.encode` gets. ValueError if two options choose a table."""
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
    """The operating point with the tables of ``qtables``. A quality scales them by the IJG formula."""
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
    """The subsampling that `dnnjpeg.encode` gets; None leaves it to the table."""
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
    """The dpi that `dnnjpeg.encode` gets; None if both numbers round to 0."""
    with suppress(TypeError, ValueError, OverflowError):  # the codec says what is wrong
        if tuple(map(round, dpi)) == (0, 0):
            return None
    return dpi


def _jpeg(image: Image.Image) -> "JpegImageFile":
    if image.format != "JPEG":
        raise ValueError("Cannot use 'keep' when original image is not a JPEG")
    return cast("JpegImageFile", image)
