"""The options of a save by Pillow: their names, and defaults filled in."""

from collections.abc import Iterable
from typing import Any

FORMAT = "DNNJPEG"

# What chooses the quantization tables: one of them at a time.
SOURCES = frozenset({"model", "table", "qtables"})
# What `pillow_save` reads one by one.
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
    options = _spell_out(options)
    replaced = set(options)
    if any(options.get(name) is not None for name in SOURCES):
        from dnnjpeg.table.point import OperatingPoint

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
