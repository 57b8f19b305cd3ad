"""cv2's JPEG writers with dnnjpeg's tables: the same arguments and return values. cv2 is not needed.

>>> ok, data = imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75], model="resnet50")
>>> imwrite("x.jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 75], model="resnet50")

``params`` is a flat sequence of keys and integers:

IMWRITE_JPEG_QUALITY: clamped to 0..100 (0 writes 1); the default is 95.
IMWRITE_JPEG_LUMA_QUALITY: replaces it, 0..100; the default -1 does not.
IMWRITE_JPEG_CHROMA_QUALITY: of the chroma tables, 0..100; the default -1 is luma's. If luma and chroma
    differ, chroma is not subsampled, unless there is a sampling factor. (cv2 ignores this key without the
    luma key, and ignores the sampling factor beside both.)
IMWRITE_JPEG_SAMPLING_FACTOR: an IMWRITE_JPEG_SAMPLING_FACTOR_*; the default is the table's own.
IMWRITE_JPEG_PROGRESSIVE: 0 (default) or 1.
IMWRITE_JPEG_OPTIMIZE: 0 writes the standard Huffman tables; 1, optimal ones, is the default here.
IMWRITE_JPEG_RST_INTERVAL: MCUs from one restart marker to the next, 0 (none, the default) to 65535.

cv2 loses data or ignores an option without a word. These functions raise instead: TypeError for pixels other
than uint8; ValueError for an unknown key, value, shape or extension; OSError for a file that cannot be
written (FileNotFoundError for a missing folder), for which cv2.imwrite returns False.

`takeover` replaces cv2's own functions, for programs that call these.
"""

import operator
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnnjpeg.checks import brief

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dnnjpeg.table.point import OperatingPoint
    from dnnjpeg.table.table import Table

    from .takeover import Takeover, Writers

__all__ = ["imencode", "imwrite", "restore", "takeover"]

_QUALITY, _PROGRESSIVE, _OPTIMIZE, _RST_INTERVAL, _LUMA, _CHROMA, _SAMPLING_FACTOR = range(1, 8)
_SUBSAMPLINGS = {
    0x411111: "4:1:1",
    0x221111: "4:2:0",
    0x211111: "4:2:2",
    0x121111: "4:4:0",
    0x111111: "4:4:4",
}
_KEYS = {  # the values each may have, and how to say so
    _QUALITY: (range(101), "0..100"),
    _PROGRESSIVE: (range(2), "0 or 1"),
    _OPTIMIZE: (range(2), "0 or 1"),
    _RST_INTERVAL: (range(65536), "0..65535"),
    _LUMA: (range(-1, 101), "-1..100"),
    _CHROMA: (range(-1, 101), "-1..100"),
    _SAMPLING_FACTOR: (_SUBSAMPLINGS, "an IMWRITE_JPEG_SAMPLING_FACTOR_*"),
}
_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")
_NAMES = ("ext", "filename")  # how cv2 calls the first argument
_MODES = {1: "L", 3: "BGR", 4: "BGRX"}


def imencode(
    ext: str,
    img: "NDArray[np.uint8]",
    params: Iterable[int] | None = None,
    *,
    model: str | None = None,
    table: "str | os.PathLike[str] | Table | OperatingPoint | None" = None,
    adaptive: bool = False,
    hardness: Any = None,
    seed: int = 0,
    threads: int = 1,
) -> "tuple[bool, NDArray[np.uint8]]":
    """Encode a picture as JPEG. Returns True, and the file as a uint8 array of shape (n,).

    ext: ".jpg", ".jpeg", ".jpe" or ".jfif".
    img: uint8. HxW or HxWx1 is gray, HxWx3 is BGR, and HxWx4 is BGRA, whose alpha is dropped as by cv2.
    params: keys and integers, see the module.
    model: name of an installed table. table: a table, its path, or an OperatingPoint, which has its quality.
        Give one of the two; without either, the table is "universal".
    adaptive, hardness, seed, threads: as in `dnnjpeg.encode`.

    Raises TypeError and ValueError as the module says.
    """
    import numpy as np

    from dnnjpeg.encoder import encode
    from dnnjpeg.table.library import chosen_table
    from dnnjpeg.table.point import OperatingPoint

    if not isinstance(ext, str) or ext.lower() not in _EXTENSIONS:
        raise ValueError(f"the extension is {brief(ext)}, expected one of {', '.join(_EXTENSIONS)}")
    if not isinstance(img, np.ndarray):
        raise TypeError(f"img is of type {type(img).__name__}, expected a numpy array")
    channels = 1 if img.ndim == 2 else img.shape[-1] if img.ndim == 3 else 0
    if channels not in _MODES:
        raise ValueError(f"img has the shape {img.shape}, expected HxW, HxWx1, HxWx3 or HxWx4")
    source = chosen_table(table, model)

    values = _read(params)
    luma = values.get(_LUMA, -1)
    luma = max(values.get(_QUALITY, 95) if luma == -1 else luma, 1)
    chroma = values.get(_CHROMA, -1)
    chroma = luma if chroma == -1 else max(chroma, 1)
    quality: int | None = luma
    if isinstance(source, OperatingPoint):
        if values.keys() & {_QUALITY, _LUMA, _CHROMA}:
            raise ValueError(
                f"table is an OperatingPoint, its quality is {source.quality}: leave it out of params"
            )
        quality = None
    elif luma != chroma:
        source, quality = _point(source, luma, chroma), None
    subsampling = "4:4:4" if luma != chroma else None
    data = encode(
        img,
        source,
        quality,
        mode=_MODES[channels],
        adaptive=adaptive,
        hardness=hardness,
        seed=seed,
        subsampling=_SUBSAMPLINGS.get(values.get(_SAMPLING_FACTOR, 0), subsampling),
        progressive=values.get(_PROGRESSIVE, 0) == 1,
        optimize=values.get(_OPTIMIZE, 1) == 1,
        restart_blocks=values.get(_RST_INTERVAL, 0),
        threads=threads,
    )
    return True, np.frombuffer(bytearray(data), np.uint8)  # may be written to, as cv2's


def imwrite(
    filename: str | os.PathLike[str],
    img: "NDArray[np.uint8]",
    params: Iterable[int] | None = None,
    **options: Any,
) -> bool:
    """Write a picture to a JPEG file. Returns True. An existing file is replaced when the new one is
    complete.

    filename: its extension is one that `imencode` takes. All other arguments are those of `imencode`.

    Raises what `imencode` raises, and OSError for a file that cannot be written.
    """
    from dnnjpeg.files.atomic import write_atomic

    path = Path(os.fsdecode(filename))
    _, data = imencode(path.suffix, img, params, **options)
    write_atomic(path, data.tobytes())
    return True


def _read(params: Iterable[int] | None) -> dict[int, int]:
    """The values of `params` by key. Raises TypeError or ValueError for those that are not allowed."""
    try:
        flat = [operator.index(number) for number in (() if params is None else params)]
    except TypeError:
        raise TypeError(
            f"params is {brief(params)}, expected integers: key, value, key, value, ..."
        ) from None
    if len(flat) % 2:
        raise ValueError(f"params has {len(flat)} numbers, expected pairs of key and value")
    values = {}
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        if key not in _KEYS:
            raise ValueError(f"params has the key {key}, expected one of cv2's IMWRITE_JPEG_*, 1 to 7")
        allowed, expected = _KEYS[key]
        values[key] = min(max(value, 0), 100) if key == _QUALITY else value
        if values[key] not in allowed:
            raise ValueError(f"params has {value} for the key {key}, expected {expected}")
    return values


def _point(source: "str | os.PathLike[str] | Table", luma: int, chroma: int) -> "OperatingPoint":
    """The operating point with the luma of one quality of a table, and the chroma of another."""
    from dnnjpeg.table.library import load_table
    from dnnjpeg.table.point import OperatingPoint
    from dnnjpeg.table.table import Table

    table = source if isinstance(source, Table) else load_table(source)
    one, other = table.at(luma), table.at(chroma)
    mixed: dict[str, Any] = {
        name: (getattr(one, name)[0], *getattr(other, name)[1:])
        for name in ("hardness", "bin_width", "max_index")
    }
    return OperatingPoint(luma, one.subsampling, one.luma, other.chroma, **mixed)


def takeover(
    table: "str | os.PathLike[str] | Table | OperatingPoint | None" = None,
    quality: int | str = "given",
    **options: Any,
) -> "Takeover":
    """Replace ``cv2.imencode`` and ``cv2.imwrite`` for JPEG names, in this process and all its threads.

    As `dnnjpeg.plugins.pillow.takeover`, with these differences:

    - Without a number of the caller's, "given" is cv2's 95. A quality is a whole number.
    - options are those of `imencode`.
    - As in cv2, unknown keys are ignored. IMWRITE_JPEG_OPTIMIZE 0 is ignored too: the files are smaller.
    - What dnnjpeg refuses goes to cv2's own functions, such as float pixels or a missing folder.
    - A function that a program took before (``from cv2 import imwrite``) stays cv2's own.

    Raises ImportError without cv2, and at once what `imencode` would raise with these options.
    """
    import numpy as np

    from dnnjpeg.checks import check_integer
    from dnnjpeg.codec.frame import beyond_decoders
    from dnnjpeg.table.point import OperatingPoint

    from .takeover import GIVEN, Takeover

    has_quality = isinstance(table, OperatingPoint)
    number = None if quality == GIVEN else check_integer(quality, "quality", 1, 100)
    if has_quality and number is not None:
        raise ValueError(f"table is an OperatingPoint: its quality counts, so leave out quality={quality!r}")

    def instead(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, img: Any, params: Any = None) -> Any:
            if told := beyond_decoders(*img.shape[1::-1]):
                raise ValueError(f"the picture has {told}")
            flat = list(() if params is None else params)
            given = [(key, value) for key, value in zip(flat[::2], flat[1::2], strict=True) if key in _KEYS]
            given = [pair for pair in given if pair != (_OPTIMIZE, 0)]
            if has_quality or number is not None:
                given = [pair for pair in given if pair[0] not in (_QUALITY, _LUMA, _CHROMA)]
            if number is not None:
                given.append((_QUALITY, number))
            return function(first, img, [n for pair in given for n in pair], table=table, **options)

        def write(own: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
            name = args[0] if args else next((keywords[key] for key in _NAMES if key in keywords), None)
            if not str(name).lower().endswith(_EXTENSIONS):
                return own(*args, **keywords)
            named = {"first" if key in _NAMES else key: value for key, value in keywords.items()}
            done = taken.attempt(lambda: call(*args, **named))
            return own(*args, **keywords) if done is None else done

        return write

    imencode(".jpg", np.zeros((8, 8, 3), np.uint8), table=table, **options)
    taken = Takeover(_writers())
    return taken.start(imencode=instead(imencode), imwrite=instead(imwrite))


def restore() -> None:
    """End the latest `takeover` that has not ended. Raises RuntimeError if there is none."""
    from .takeover import restore_latest

    restore_latest(_writers())


@cache
def _writers() -> "Writers":
    import cv2

    from .takeover import Writers

    return Writers("OpenCV", vars(cv2))
