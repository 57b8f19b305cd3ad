"""Encode to a target: the smallest file that meets a criterion, or the best file within a size."""

import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dnnjpeg.checks import brief, check_integer, check_items, check_positive
from dnnjpeg.options import EncodeOptions, options_of
from dnnjpeg.table.library import load_table, standard_table, table_for
from dnnjpeg.table.table import Table
from dnnjpeg.target.search import Encoded, OnFound, Search, cheapest, climb, together
from dnnjpeg.target.sources import PRUNED, Source, sources
from dnnjpeg.transcoder import Decoded

if TYPE_CHECKING:
    from dnnjpeg.networks.criterion import Judges, Reading
    from dnnjpeg.networks.network import Network


def encode_to_target(
    images: Sequence[Any],
    table: str | Table | None = None,
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
    """Encode each picture as small as a criterion allows, or as well as a limit of its size allows.

    images: list of PIL images, or of uint8 arrays, height x width [x 3, RGB], or of JPEG files as bytes.
        JPEG files are transcoded from their own coefficients, and keep their metadata.
    table: name of an installed table, path of a JSON file, or Table. None: the installed table that was
        learned for the networks, else "universal".
    networks: networks from `load_network`, or their names. Give `keep`, too.
    keep: what all networks must still read in each file. Except for price and quality, networks that
        were not asked may read something else.
        "same": the same answer, of a classifier the first class.
        "accuracy=X%": as same, in at least X % of the pictures. The costliest others get the median quality.
        "distance=X": less than X of the task's distance between the outputs for file and original.
        "top1", "top5", "divergence=X": for classifiers: the same class first, the same five classes first,
            the same probabilities, with less than X nat of divergence.
        "price=X": minimise distance + X x bytes, for example 1e-4.
        "quality=X": for classifiers: the average quality. Pictures that the networks find hard to read get a
            higher one, which also helps networks that were not asked.
    target_bytes, target_bpp: in place of networks, the largest size of the whole file, in bytes or in bits
        per pixel. The highest whole quality within this size is used.
    prune: after same, top1, top5, distance or divergence, also drop the coefficients that the networks need
        least. This saves about half of the bytes, and removes most of what other networks, and people, see.
        Indices are rounded to the nearest.
    subsampling: None tries 4:2:0 and 4:4:4 with networks. With a limit or a quality, None is the table's.
    metadata: exif, xmp, icc_profile, comment and dpi of each picture, as arguments of `encode`. The comment
        gets a line with the criterion and the networks, unless the option `signature` is False.
    size: side of the square that networks see. None: the largest input of the networks. Original and decoded
        file are turned as their EXIF says, and cropped to this square as `dnnjpeg.files.view.View` does. All
        networks get the same square. A network with a smaller input, or with a resize of its own, crops and
        resizes this square, not the whole picture. Networks whose `fit` is "letterbox" or "whole" get the
        whole picture.
    threads: number of pictures that are encoded at the same time. Networks use torch's own threads.
    on_found: called with the number of a picture and its file, as soon as the file is known.
    options: other options of `encode`. `adaptive` and `abbreviated` are refused, with `prune` also the
        options of the probabilistic quantizer.

    With networks, Pillow decodes the candidates of all pictures, and networks read them in one batch. They
    are read from the smallest file up, until one meets the criterion. If none does, candidates of the
    standard table are read in the same way. With a price, every sixth candidate is read, then those around
    the best. With a quality, one file is read.

    Returns an `Encoded` for each picture. Its `met` is False if no candidate meets the target.

    Raises ValueError for a wrong target, and all errors of `encode`, `load_network` and `Network.read`.
    """
    given = sum(value is not None for value in (keep, target_bytes, target_bpp))
    if given != 1:
        raise ValueError(f"expected exactly one of keep, target_bytes and target_bpp, {given} are given")
    networks = check_items(networks, "networks", "a list of networks")
    if (keep is None) != (not networks):
        raise ValueError("networks and keep go together: give both or neither")
    if prune and keep is None:
        raise ValueError("prune is True, which needs networks: give networks and keep")
    how, common = options_of(options)
    _check_options(how, prune)
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise TypeError("images is one picture, expected a list of them")
    images = check_items(images, "images", "a list of pictures")
    if prune and any(isinstance(image, bytes | Decoded) for image in images):
        raise ValueError("prune is True, and images has JPEG files: decode them to pixels first")
    readers = [_network(one) for one in networks]
    if not isinstance(table, Table):
        table = load_table(table_for(one.digest for one in readers) if table is None else table)
    pictures = sources(images, table, how, common, metadata)
    with ThreadPoolExecutor(check_integer(threads, "threads", 1, 1024)) as pool:
        if keep is not None:
            return _smallest(pictures, readers, keep, prune, subsampling, size, pool, on_found)
        limits = [_limit(one.image.size, target_bytes, target_bpp) for one in pictures]
        return _told(pool.map(partial(_largest, subsampling=subsampling), pictures, limits), on_found)


def _network(network: "Network | str") -> "Network":
    if not isinstance(network, str):
        return network
    from dnnjpeg.networks.load import load_network

    return load_network(network)


def _told(files: Iterable[Encoded], on_found: OnFound | None) -> list[Encoded]:
    found = []
    for i, file in enumerate(files):
        found.append(file)
        if on_found is not None:
            on_found(i, file)
    return found


def _check_options(options: EncodeOptions, prune: bool) -> None:
    """Refuse options of `encode` that have no meaning with a target."""
    if options.adaptive:
        raise ValueError(
            "adaptive is True, but with a target each picture has its own quality: leave out adaptive"
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


def _limit(size: tuple[int, int], target_bytes: int | None, target_bpp: float | None) -> int:
    """The limit in bytes for a picture of this width and height."""
    if target_bpp is None:
        return check_integer(target_bytes, "target_bytes", 1, 2**63 - 1)
    limit = check_positive(target_bpp, "target_bpp") * size[0] * size[1] / 8
    return int(min(limit, sys.maxsize))  # the product may be infinite


def _largest(picture: Source, limit: int, subsampling: str | None) -> Encoded:
    """The file with the highest quality within `limit`, by bisection, as sizes rise with quality."""
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
    pictures: Sequence[Source],
    networks: "Sequence[Network]",
    keep: str,
    prune: bool,
    subsampling: str | None,
    size: int | None,
    pool: ThreadPoolExecutor,
    on_found: OnFound | None,
) -> list[Encoded]:
    from dnnjpeg.networks.criterion import Criterion, Judges, note_of, view
    from dnnjpeg.networks.tasks import Classification

    criterion = Criterion.parse(keep)
    if prune and (not criterion.is_bound or criterion.share < 1):
        raise ValueError(
            f"prune needs keep same, top1, top5, distance=X or divergence=X, and keep is {brief(keep)}"
        )
    for network in networks:
        criterion.check(network)
        if prune:
            network.need_gradients("prune", "leave out prune")
            if criterion.same and not isinstance(network.task, Classification):
                raise ValueError(
                    f"prune needs a distance, and keep is {brief(keep)} for the task {network.task.name}: "
                    "use keep distance=X"
                )
    if all(network.preprocess.fit == "crop" for network in networks):
        size = size or max(network.preprocess.size for network in networks)
    elif size is not None or prune:
        raise ValueError(
            f"{'size' if size else 'prune'} needs networks that crop, and one of them reads whole pictures: "
            "leave it out"
        )
    show = partial(view, size=size)
    note = note_of(criterion, networks)
    if not pictures:
        return []
    judges = Judges(networks, criterion, list(pool.map(lambda one: show(one.shown()), pictures)))

    def ask(which: Sequence[int], candidates: Iterable[Encoded], by_all: bool = False) -> "Sequence[Reading]":
        seen = list(pool.map(lambda one: show(Image.open(io.BytesIO(one.data))), candidates))
        return judges.read(which, seen, by_all=by_all)

    def search(one: Source) -> Search:
        if criterion.quality:
            return one.judged(criterion.quality, subsampling, note)
        if criterion.price:
            return cheapest(one.candidates(subsampling, note), criterion.price)
        # where no file of the table will do, one of the standard table may: its finest steps are all 1
        spare = [] if one.table is standard_table() else [replace(one, table=standard_table())]
        return climb(chain.from_iterable(source.candidates(subsampling, note) for source in (one, *spare)))

    searches = [search(one) for one in pictures]
    if criterion.share < 1:
        return _told(
            _relaxed(
                together(searches, ask, pool), pictures, criterion.share, note, partial(ask, by_all=True)
            ),
            on_found,
        )
    if not prune:
        return together(searches, ask, pool, on_found)
    assert size is not None
    return _told(_prune(pictures, together(searches, ask, pool), note, judges, size, pool, ask), on_found)


def _relaxed(
    found: list[Encoded],
    pictures: Sequence[Source],
    share: float,
    note: str,
    ask: Callable[[Sequence[int], Iterable[Encoded]], "Sequence[Reading]"],
) -> list[Encoded]:
    """Let some files break the criterion, but keep it in a `share` of them.

    The files that may break it get the median quality of all files. They are those that save most bytes by
    this.
    """
    usual = sorted(found, key=lambda one: one.quality)[len(found) // 2]
    spare = int((1 - share) * len(found) + 1e-9)
    costly = [i for i, one in enumerate(found) if one.quality > usual.quality]
    lesser = {i: pictures[i].encode(usual.quality, found[i].subsampling, note) for i in costly}
    savings = {
        i: len(found[i].data) - len(lesser[i].data) + (0 if found[i].met else sys.maxsize) for i in lesser
    }
    chosen = sorted(savings, key=lambda i: -savings[i])[:spare]
    if chosen:
        for i, reading in zip(chosen, ask(chosen, [lesser[i] for i in chosen]), strict=True):
            found[i] = lesser[i].read_as(reading, found[i].tried + 1)
    return found


def _prune(
    pictures: Sequence[Source],
    found: Sequence[Encoded],
    note: str,
    judges: "Judges",
    size: int,
    pool: ThreadPoolExecutor,
    ask: "Callable[[Sequence[int], Iterable[Encoded]], Sequence[Reading]]",
) -> list[Encoded]:
    """The files, with fewer coefficients where some could be dropped.

    From coarse steps, the fewest bytes are left, but often no file meets the criterion. Then finer steps are
    tried.
    """
    from dnnjpeg.target.pruning import prune

    smallest, tried = list(found), [one.tried for one in found]
    left = [i for i, picture in enumerate(pictures) if picture.image.mode != "CMYK"]
    for start in PRUNED:
        qualities = {i: min(found[i].quality, start) for i in left}
        todo = {i: pictures[i].prunable(q, found[i].subsampling, note) for i, q in qualities.items()}
        files = prune(todo, judges, size, pool)
        pruned = {
            i: replace(found[i], data=data, quality=qualities[i], met=True, pruned=True)
            for i, data in files.items()
            if data and not (found[i].met and len(data) >= len(found[i].data))
        }
        readings = dict(zip(pruned, ask(list(pruned), pruned.values()), strict=True))
        for i in left:
            tried[i] += todo[i].tried + (i in readings)
            if i in readings and readings[i].met:
                smallest[i] = pruned[i].read_as(readings[i], tried[i])
        left = [i for i in left if not smallest[i].pruned and found[i].quality > start]
    return [replace(one, tried=count) for one, count in zip(smallest, tried, strict=True)]
