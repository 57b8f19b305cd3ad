"""Preprocessing: the part of a picture that a network sees, and the scaling of its pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from reprlib import repr as brief
from typing import Any, Self

from dnnjpeg.checks import check_integer, check_items, check_keys, is_number
from dnnjpeg.files.view import FILTERS, FITS, View

_HOW = (
    'give the module an attribute preprocess = {"size": 224, "mean": (r, g, b), "std": (r, g, b)}, or '
    "torchvision's weights.transforms(), or an image processor of transformers"
)
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which image processors use


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of a network: a `View`, then (pixels / 255 - mean) / std for red, green and blue."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: int | None = None
    interpolation: str = "bicubic"
    fit: str = "crop"

    @property
    def view(self) -> View:
        """The view of stored pictures."""
        return View(self.size, self.resize, self.interpolation, self.fit)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Make it from a dict. Keys: `size`, `mean`, `std`; optional: `resize`, `interpolation`, `fit` (see
        `View`).

        Raises ValueError that names the field.
        """
        check_keys(value, "preprocess", ("size", "mean", "std"), ("resize", "interpolation", "fit"))
        mean, std = (_three(value[name], name) for name in ("mean", "std"))
        if not all(0 <= x <= 1 for x in mean):
            raise ValueError(f"mean is {mean}, expected 0..1, the mean of pixels / 255")
        if not all(x > 0 for x in std):
            raise ValueError(f"std is {std}, expected numbers above 0")
        size, resize = check_integer(value["size"], "size", 1, 65535), value.get("resize")
        if resize is not None:
            resize = check_integer(resize, "resize", size, 65535)
        interpolation = value.get("interpolation", "bicubic")
        if interpolation not in FILTERS:
            raise ValueError(f"interpolation is {interpolation!r}, expected {' or '.join(FILTERS)}")
        if (fit := value.get("fit", "crop")) not in FITS:
            raise ValueError(f"fit is {fit!r}, expected {', '.join(FITS)}")
        if fit != "crop" and resize is not None:
            raise ValueError(f"resize is {resize}, and fit is {fit!r}, which has no resize: leave out one")
        return cls(size, mean, std, resize, interpolation, fit)


def _three(value: Any, name: str) -> tuple[float, float, float]:
    numbers = check_items(value, name, "three numbers")
    if len(numbers) != 3 or not all(is_number(x) and math.isfinite(x) for x in numbers):
        raise ValueError(f"{name} is {brief(value)}, expected three numbers: red, green, blue")
    red, green, blue = map(float, numbers)
    return red, green, blue


def preprocess_of(module: Any, given: Any = None) -> Preprocess:
    """The preprocessing of a module: its attribute `preprocess`, or `given`, or that of timm or transformers.

    Raises ValueError that says what is missing.
    """
    own, config = getattr(module, "preprocess", None), getattr(module, "pretrained_cfg", None)
    for value in (own, given):
        if value is not None:
            return Preprocess.of(_fields(value))
    if isinstance(config, Mapping):
        return Preprocess.of(_of_timm(config))
    processor = _processor_beside(module)
    if processor is None:
        raise ValueError(_HOW)
    return Preprocess.of(_of_processor(processor))


def _fields(value: Any) -> Any:
    """A dict for `Preprocess.of`. Other values are returned unchanged, and `Preprocess.of` refuses them."""
    if hasattr(value, "image_mean"):
        return _of_processor(value)
    if all(hasattr(value, name) for name in ("crop_size", "resize_size", "mean", "std")):
        return {  # torchvision's ImageClassification
            "size": value.crop_size[0],
            "resize": value.resize_size[0],
            "interpolation": value.interpolation.value,
            "mean": value.mean,
            "std": value.std,
        }
    return value


def _of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    *_, height, width = config["input_size"]
    _check_square(width, height)
    known = {"size": height, "mean": config["mean"], "std": config["std"]}
    if "crop_pct" in config:
        known |= {"resize": math.floor(height / config["crop_pct"])}
    if "interpolation" in config:
        known |= {"interpolation": config["interpolation"]}
    return known


def _of_processor(processor: Any) -> dict[str, Any]:
    """A dict for `Preprocess.of` from an image processor of transformers."""
    factor = getattr(processor, "rescale_factor", 1 / 255)
    if not getattr(processor, "do_rescale", True) or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ValueError(f"its image processor scales pixels by {factor:g}, expected 1/255; or {_HOW}")
    size, crop = _sides(processor.size), _sides(getattr(processor, "crop_size", None))
    resize = min(size or crop or (0,))
    if crop_pct := getattr(processor, "crop_pct", None):  # ConvNeXT crops only small sizes
        shown, resize = (resize, resize), round(resize / crop_pct) if resize < 384 else resize
    else:
        shown = (crop if getattr(processor, "do_center_crop", False) else size) or (resize, resize)
    _check_square(shown[1], shown[0])
    normalises = getattr(processor, "do_normalize", True)
    return {
        "size": shown[0],
        "resize": max(resize, shown[0]),
        "mean": processor.image_mean if normalises else (0, 0, 0),
        "std": processor.image_std if normalises else (1, 1, 1),
        "interpolation": _RESAMPLE.get(getattr(processor, "resample", 3), "bicubic"),
    }


def _sides(size: Any) -> tuple[int, int] | None:
    """Height and width from a `size` or `crop_size` of transformers."""
    if size is None:
        return None
    if isinstance(size, int):
        return size, size
    side = size.get("shortest_edge")
    return (side, side) if side else (size["height"], size["width"])


def _check_square(width: int, height: int) -> None:
    if height != width:
        raise ValueError(f"it takes pictures of {width} x {height}, expected a square; or {_HOW}")


def _processor_beside(module: Any) -> Any:
    """The image processor stored with a model of transformers, or None."""
    name = getattr(getattr(module, "config", None), "_name_or_path", None)
    if not name:
        return None
    try:
        processors = import_module("transformers").AutoImageProcessor
        return processors.from_pretrained(name, local_files_only=True)
    except (ImportError, OSError, ValueError):
        return None
