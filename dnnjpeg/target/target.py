"""Encoding to a target: the smallest file in which given networks still read what they read in the original,
or the best file of at most a given size.
"""

import heapq
import io
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dnnjpeg.adaptive import YARDSTICK, adapted_quality
from dnnjpeg.checks import brief, check_integer, check_items, check_positive
from dnnjpeg.codec.pixels import as_pixels, mode_components
from dnnjpeg.encoder import bits_at_yardstick, encode, encode_pixels, write_coefficients
from dnnjpeg.jpeg.markers import comment
from dnnjpeg.jpeg.signature import NOTE
from dnnjpeg.options import EncodeOptions, Metadata, options_of
from dnnjpeg.table.library import load_table
from dnnjpeg.table.table import Table
from dnnjpeg.target.search import Encoded, OnFound, Search, cheapest, climb, together
from dnnjpeg.transcoder import Decoded

if TYPE_CHECKING:
    from dnnjpeg.networks.criterion import Judges
    from dnnjpeg.networks.load import Network
    from dnnjpeg.target.pruning import Prunable

QUALITIES = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 25, 28, 31, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80,
    85, 90, 95, 98, 100,
)  # fmt: skip
"""Those that are tried for networks: each makes a file about 8 % larger than the one before."""
SUBSAMPLINGS = ("4:2:0", "4:4:4")
PRUNED = 16  # the largest quality
_OF_CODING = ("progressive", "optimize", "restart_blocks", "restart_rows")


def encode_to_target(
    images: Sequence[Any],
    table: str | Table = "standard",
    *,
    networks: "Sequence[Network | str]" = (),
    keep: str | None = None,
    target_bytes: int | None = None,
    target_bpp: float | None = None,
    prune: bool = False,
    subsampling: str | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
    size: int | None = None,
    threads: int = 1,
    on_found: OnFound | None = None,
    **options: Any,
) -> list[Encoded]:
    """Encode each picture as small as a criterion allows, or as good as a limit of its size allows.

    images: list of PIL images, or of uint8 arrays, height x width [x 3, RGB], or of JPEG files as bytes.
        JPEG files are transcoded from their own coefficients, and keep their metadata.
    table: name of an installed table, path of a JSON file, or Table.
    networks, keep: networks (from `load_network`, or their names), and what all of them must still read.
        "top1": the same class first. "top5": the same five classes first, in any order. "divergence=X": the
        same probabilities, with less than X nat of divergence. "price=X": minimise divergence + X x bytes,
        for example 1e-4. "quality=X": the average quality; pictures that the networks find hard to read get a
        higher one, which helps networks that were not asked too. With the others, networks that were not
        asked may read something else.
    target_bytes, target_bpp: in place of networks, the largest size of the whole file, in bytes or in bits
        per pixel. The highest whole quality within it is taken.
    prune: after top1, top5 or divergence, also drop the coefficients that the networks need least. This saves
        about half of the bytes, and removes most of what other networks, and people, see. Indices are rounded
        to the nearest.
    subsampling: None tries 4:2:0 and 4:4:4 with networks; with a limit or a quality it is the table's.
    metadata: exif, xmp, icc_profile, comment and dpi of each picture, as `encode` takes them. The comment
        gets a line with the criterion and the networks, unless the option `signature` is False.
    size: side of the squares that networks see. None: the largest that one of the networks takes. Original
        and decoded file are turned as their EXIF says, and cropped as `dnnjpeg.files.view.View` does.
    threads: pictures encoded side by side. Networks use torch's own threads.
    on_found: called with the number of a picture and its file, as soon as the file is known.
    options: other options of `encode`, without adaptive and abbreviated, and with prune without those of the
        probabilistic quantizer.

    With networks, the candidates of all pictures are decoded by Pillow and read in one batch. Of the
    candidates, from the smallest up, every sixth is read, until one meets the criterion; then the five before
    it. A larger file is not always read better than a smaller one, so a better file can be missed. With a
    price, the candidates around the best are read. With a quality, one file is read.

    Raises ValueError for a wrong target, and what `encode`, `load_network` and `Network.read` raise.
    """
    given = sum(value is not None for value in (keep, target_bytes, target_bpp))
    if given != 1:
        raise ValueError(f"{given} of keep, target_bytes and target_bpp are given, expected one")
    networks = check_items(networks, "networks", "a list of networks")
    if (keep is None) != (not networks):
        raise ValueError("networks and keep go together: who reads, and what must still be read")
    if prune and keep is None:
        raise ValueError("prune is True, but there are no networks to say what can be dropped")
    how, common = options_of(options)
    _check_options(how, prune)
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise TypeError("images is one picture, expected a list of them")
    images = check_items(images, "images", "a list of pictures")
    if not isinstance(table, Table):
        table = load_table(table)
    pictures = [
        _picture(image, table, how, replace(common, **own), prune)
        for image, own in zip(images, _by_image(metadata, len(images)), strict=True)
    ]
    with ThreadPoolExecutor(check_integer(threads, "threads", 1, 1024)) as pool:
        if keep is not None:
            return _smallest(pictures, networks, keep, prune, subsampling, size, pool, on_found)
        limits = [_limit(one.image.size, target_bytes, target_bpp) for one in pictures]
        return _told(pool.map(partial(_largest, subsampling=subsampling), pictures, limits), on_found)


def _told(files: Iterable[Encoded], on_found: OnFound | None) -> list[Encoded]:
    found = []
    for i, file in enumerate(files):
        found.append(file)
        if on_found is not None:
            on_found(i, file)
    return found


def _picture(image: Any, table: Table, options: EncodeOptions, metadata: Metadata, prune: bool) -> "_Picture":
    if isinstance(image, bytes):
        image = Decoded.read(image)
    if not isinstance(image, Decoded):
        return _Picture(_as_image(image), table, options, metadata)
    if prune:
        raise ValueError("prune is of pixels, and images has JPEG files: decode them first")
    return _File(Image.open(io.BytesIO(image.data)), table, options, metadata, image)


@dataclass(frozen=True)
class _Picture:
    image: Image.Image
    table: Table
    options: EncodeOptions
    metadata: Metadata

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = replace(self.options, subsampling=subsampling)
        metadata = replace(self.metadata, comment=self.comment(note, quality))
        data = encode_pixels(as_pixels(self.image, None), self.table, quality, options, metadata)
        return Encoded(data, quality, subsampling)

    def judged(self, quality: float, subsampling: str | None, note: str) -> Search:
        """By one file at the yardstick: see `adapted_quality`."""
        divergence = yield Encoded(self.at_yardstick(), YARDSTICK, None)
        bits = self.bits_at_yardstick()
        return self.encode(adapted_quality(quality, bits, divergence), subsampling, note)

    def at_yardstick(self) -> bytes:
        return encode(self.image, quality=YARDSTICK, **self.upright())

    def bits_at_yardstick(self) -> float:
        return bits_at_yardstick(as_pixels(self.image, None))

    def comment(self, note: str, quality: float) -> bytes:
        """What there is, and the note unless there is none or no signature."""
        own = self.metadata.comment
        if not note or not self.options.signature:
            return own
        return b"\n".join(filter(None, [own, NOTE + f"{note} at quality {quality:g}".encode()]))

    def prunable(self, found: Encoded, note: str) -> "Prunable":
        from dnnjpeg.target.pruning import Prunable

        quality = min(found.quality, PRUNED)
        point = self.table.at(quality)
        subsampling = found.subsampling or "4:4:4"  # grey
        comment = self.comment(note and f"{note}, pruned,", quality)
        how = {name: getattr(self.options, name) for name in _OF_CODING}
        write = partial(
            write_coefficients,
            tables=point.tables,
            width=self.image.width,
            height=self.image.height,
            subsampling=subsampling,
            **how,
            **vars(replace(self.metadata, comment=comment)),
        )
        orientation = self.shown().getexif().get(0x0112, 1)
        return Prunable(self.image, orientation, point, subsampling, write)

    def shown(self) -> Image.Image:
        """The picture with the orientation that its files will have."""
        image = self.image.convert("RGB")
        image.info.clear()
        image.info.update(self.upright())
        return image

    def upright(self) -> dict[str, Any]:
        """The metadata that may say which way up the picture is."""
        both = {"exif": self.metadata.exif, "xmp": self.metadata.xmp}
        return {name: value for name, value in both.items() if value}


@dataclass(frozen=True)
class _File(_Picture):
    """A JPEG file; all candidates are made of its coefficients."""

    decoded: Decoded

    def encode(self, quality: float, subsampling: str | None, note: str = "") -> Encoded:
        options = replace(self.options, subsampling=subsampling)
        head = self.decoded.head(False, signed=False) + comment(self.comment(note, quality))
        data = self.decoded.encode(self.table, quality, options, head)
        return Encoded(data, quality, subsampling)

    def at_yardstick(self) -> bytes:
        return self.decoded.encode("standard", YARDSTICK, head=self.decoded.head(False))

    def bits_at_yardstick(self) -> float:
        return self.decoded.bits_at_yardstick()

    def upright(self) -> dict[str, Any]:
        return {key: self.image.info[key] for key in ("exif", "xmp") if self.image.info.get(key)}


def _check_options(options: EncodeOptions, prune: bool) -> None:
    """Those that `encode` takes, but a target cannot honour."""
    if options.adaptive:
        raise ValueError(
            "adaptive is True, but a target leads to each picture's own quality: leave out adaptive"
        )
    if options.abbreviated:
        raise ValueError(
            "abbreviated is True, but a file without tables cannot be read: leave out abbreviated"
        )
    if prune:
        if options.hardness not in (None, math.inf):
            raise ValueError(
                f"hardness is {brief(options.hardness)}, but prune rounds to the nearest: leave out hardness"
            )
        if options.seed:
            raise ValueError(f"seed is {options.seed}, but prune rounds to the nearest: leave out seed")


def _by_image(metadata: Sequence[Mapping[str, Any]] | None, count: int) -> list[Mapping[str, Any]]:
    if metadata is None:
        return [{}] * count
    entries = check_items(metadata, "metadata", "a list of mappings, one for each image")
    if len(entries) != count:
        raise ValueError(f"metadata has {len(entries)} entries, expected one for each of {count} images")
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(f"metadata[{i}] is {brief(entry)}, expected a mapping, as {{'comment': b'...'}}")
    return entries


def _as_image(image: Any) -> Image.Image:
    as_pixels(image, None)  # raises for what is no picture
    if isinstance(image, np.ndarray):
        return Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    return image


def _limit(size: tuple[int, int], target_bytes: int | None, target_bpp: float | None) -> int:
    """In bytes, of a picture of this width and height."""
    if target_bpp is None:
        return check_integer(target_bytes, "target_bytes", 1, 2**63 - 1)
    limit = check_positive(target_bpp, "target_bpp") * size[0] * size[1] / 8
    return int(min(limit, sys.maxsize))  # the product may be infinite


def _largest(picture: _Picture, limit: int, subsampling: str | None) -> Encoded:
    """The file of the largest quality within `limit`, by bisection: sizes rise with quality."""
    low, high, best = 1, 100, None
    while low <= high:
        quality = (low + high) // 2
        found = picture.encode(quality, subsampling)
        if len(found.data) <= limit:
            low, best = quality + 1, found
        else:
            high = quality - 1
    return best or replace(found, met=False)


def _smallest(
    pictures: Sequence[_Picture],
    networks: "Sequence[Network | str]",
    keep: str,
    prune: bool,
    subsampling: str | None,
    size: int | None,
    pool: ThreadPoolExecutor,
    on_found: OnFound | None,
) -> list[Encoded]:
    from dnnjpeg.networks.criterion import Criterion, Judges, view
    from dnnjpeg.networks.load import load_network

    criterion = Criterion.parse(keep)
    if prune and not criterion.is_bound:
        raise ValueError(f"prune is for what must be kept: top1, top5 or divergence=X; keep is {brief(keep)}")
    readers = [load_network(network) if isinstance(network, str) else network for network in networks]
    size = size or max(reader.preprocess.size for reader in readers)
    show = partial(view, size=size)
    note = f"{criterion.text} of {', '.join(f'{reader.name} {reader.digest}' for reader in readers)}"
    if not pictures:
        return []
    judges = Judges(readers, criterion, list(pool.map(lambda one: show(one.shown()), pictures)))

    def ask(which: Sequence[int], candidates: Iterable[Encoded]) -> Sequence[float]:
        seen = list(pool.map(lambda one: show(Image.open(io.BytesIO(one.data))), candidates))
        return judges.judge(which, seen) if criterion.is_bound else judges.divergences(which, seen)

    def search(one: _Picture) -> Search:
        if criterion.quality:
            return one.judged(criterion.quality, subsampling, note)
        candidates = _candidates(one, subsampling, note)
        return cheapest(candidates, criterion.price) if criterion.price else climb(candidates)

    searches = [search(one) for one in pictures]
    if not prune:
        return together(searches, ask, pool, on_found)
    return _told(_prune(pictures, together(searches, ask, pool), note, judges, size, pool), on_found)


def _prune(
    pictures: Sequence[_Picture],
    found: Sequence[Encoded],
    note: str,
    judges: "Judges",
    size: int,
    pool: ThreadPoolExecutor,
) -> list[Encoded]:
    from dnnjpeg.target.pruning import prune

    todo = {
        i: picture.prunable(one, note)
        for i, (picture, one) in enumerate(zip(pictures, found, strict=True))
        if one.met and picture.image.mode != "CMYK"
    }
    pruned = prune(todo, judges, size, pool)
    return [
        replace(one, data=pruned[i], quality=min(one.quality, PRUNED), pruned=True)
        if 0 < len(pruned.get(i, b"")) < len(one.data)
        else one
        for i, one in enumerate(found)
    ]


def _candidates(picture: _Picture, subsampling: str | None, note: str) -> Iterator[Encoded]:
    """From the smallest file up; encoded as they are asked for."""
    coloured = mode_components(as_pixels(picture.image, None).mode) == 3
    names = SUBSAMPLINGS if subsampling is None and coloured else (subsampling,)
    series = (map(partial(picture.encode, subsampling=name, note=note), QUALITIES) for name in names)
    return heapq.merge(*series, key=lambda one: len(one.data))
