"""Pillow writes through dnnjpeg: ``image.save("x.jpg", format="DNNJPEG", model="resnet50")``.

The file is an ordinary JPEG file. Pillow uses this writer only if you name the format; .jpg alone means
Pillow's own writer. Each process must import dnnjpeg, worker processes too.

Options of Pillow's JPEG writer, with the same meaning, limits and exceptions:

quality: 1 to 100 (0 writes 1; -1, the default, is 75); a preset such as "web_high"; or "keep". A preset and
    "keep" choose the quantization tables and the subsampling: leave out other options for these.
qtables: 1 to 4 tables of 64 steps 1..255, row-major, in a list or a dict; wizard text; a preset; or "keep". A
    quality beside them scales the steps by the IJG formula. A fourth table is not used.
subsampling: "4:4:4", "4:2:2", "4:2:0" or 0, 1, 2 for these; "4:4:0", "4:1:1" (which Pillow takes for 4:2:0);
    a preset; or "keep". -1, the default, is the table's own.
optimize: False writes the standard Huffman tables; the default is optimal ones.
progressive: True, False (default), or "auto", which keeps the smaller file.
exif, xmp, icc_profile, dpi, comment: as in Pillow. Only the comment is also taken from image.info; None
    leaves it out.
streamtype, restart_marker_blocks, restart_marker_rows: as in Pillow.
smooth, keep_rgb, extra, append_images: refused, with the reason. save_all: refused by Pillow itself, with a
    KeyError.

A CMYK picture is never subsampled, and its four components share one table: a preset's first, or that of
qtables.

Options of dnnjpeg alone:

model: name of an installed table (``dnnjpeg.list_tables()``); the default is "universal".
table: path of a table, a Table, or an OperatingPoint, which has its quality.
adaptive, hardness, seed, threads, jfif, signature: as in ``dnnjpeg.encode``.

An option that is None counts as not given; an unknown one is a TypeError. Nothing is written before the file
is whole.

If a picture was opened from a JPEG file by name, and its pixels have not changed, the file's own coefficients
are used, as by `dnnjpeg.transcode`: fewer bytes, and nothing is rounded twice. Steps that are coarser in the
file than in the table stay.

Pillow opens, and so empties, the target before it calls any writer. If the writer then raises an error,
Pillow removes a file that is new, but leaves an older one empty. To keep the old file until the new one is
complete: ``dnnjpeg.files.atomic.write_atomic(path, dnnjpeg.plugins.pillow.encode(image, model="resnet50"))``.

`takeover` replaces Pillow's own writer of format "JPEG", for programs that cannot be told another format.
"""

import io
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from .pillow_options import FORMAT, OPTIONS, OWN, check_names, merge

if TYPE_CHECKING:
    import os

    from dnnjpeg.table.point import OperatingPoint
    from dnnjpeg.table.table import Table

    from .takeover import Takeover, Writers

__all__ = ["encode", "register", "restore", "takeover"]

_defaults: dict[str, Any] = {}


def register(**defaults: Any) -> None:
    """Make format="DNNJPEG" known to Pillow in this process.

    defaults: options for every save that does not give them. A save that chooses its own table (model, table,
        qtables, or a quality by name) does not get the default table. ``register()`` drops all defaults.

    The defaults are tried on a small picture. If a save would raise an error for them, it is raised here, and
    the defaults from before stay.
    """
    global _defaults
    check_names(defaults)
    if defaults:
        from .pillow_save import encode_image

        jpeg = io.BytesIO()  # so that "keep" finds something to keep
        Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
        encode_image(Image.open(jpeg), merge({}, defaults))
    _defaults = defaults
    Image.register_save(FORMAT, _save)
    Image.register_mime(FORMAT, "image/jpeg")


def encode(image: Image.Image, /, **options: Any) -> bytes:
    """The bytes that ``image.save(target, format="DNNJPEG", **options)`` writes.

    image: of mode 1, L, RGB, RGBX, YCbCr or CMYK. A side has 1 to 65,535 pixels; above 65,500 there is a
        warning, because most decoders refuse the file.
    options: see the module.

    Raises TypeError if it is no PIL image or an option does not exist, ValueError for a wrong value or an
    empty image, and OSError for another mode.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"image is a {type(image).__name__}, expected a PIL image")
    from .pillow_save import encode_image

    check_names(options)
    return encode_image(image, merge(_defaults, options))


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    from dnnjpeg.files.atomic import write_all

    # It flushes: a full disk shows here, while Pillow can still remove the file.
    write_all(fp, encode(image, **image.encoderinfo))


def takeover(
    table: "str | os.PathLike[str] | Table | OperatingPoint | None" = None,
    quality: float | str = "given",
    **options: Any,
) -> "Takeover":
    """Replace Pillow's writer of format "JPEG" by dnnjpeg's, in this process and all its threads.

    In a ``with`` statement, it ends with the block, also by an exception. Otherwise it ends with `restore`.
    The latest take-over counts. When all have ended, Pillow has its own writer again.

    table: name of an installed table, path of one, a Table, or an OperatingPoint, which has its quality.
    quality: "given" is the caller's number, or 75 without one. A number replaces the caller's number.
    options: for what a save leaves out, as in `register`.

    A save that chooses its own quantization tables (qtables, or a quality by name) gets these, written by
    dnnjpeg. As in Pillow's writer, unknown options are ignored, and a side above 65,500 pixels is an error.
    ``optimize=False`` is ignored too: the files are smaller. What dnnjpeg refuses, Pillow's own writer
    writes; `Takeover` counts these files.

    Raises at once what a save with these options would raise.
    """
    from dnnjpeg.checks import check_quality
    from dnnjpeg.codec.frame import beyond_decoders
    from dnnjpeg.files.atomic import write_all
    from dnnjpeg.table.point import OperatingPoint

    from .pillow_save import encode_image
    from .takeover import GIVEN, Takeover

    has_quality = isinstance(table, OperatingPoint)
    if quality != GIVEN:
        if has_quality:
            raise ValueError(
                f"table is an OperatingPoint: its quality counts, so leave out quality={quality!r}"
            )
        quality = check_quality(quality)
    check_names(options)
    own = {"table": table, **options}

    def encode_instead(image: Image.Image, given: dict[str, Any]) -> bytes:
        if told := beyond_decoders(*image.size):
            raise ValueError(f"the picture has {told}")
        given = {name: value for name, value in given.items() if name in OPTIONS - OWN}
        if not given.get("optimize"):
            given.pop("optimize", None)
        if given.get("qtables") is None and not isinstance(given.get("quality"), str):
            if has_quality:
                given.pop("quality", None)
            elif quality != GIVEN:
                given["quality"] = quality
        return encode_image(image, merge(own, given))

    def write(own_writer: Any, image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
        data = taken.attempt(lambda: encode_instead(image, image.encoderinfo))
        if data is None:
            own_writer(image, fp, filename)
        else:
            write_all(fp, data)

    encode_instead(Image.new("RGB", (8, 8)), {})
    taken = Takeover(_writers())
    return taken.start(JPEG=write)


def restore() -> None:
    """End the latest `takeover` that has not ended. Raises RuntimeError if there is none."""
    from .takeover import restore_latest

    restore_latest(_writers())


def refuse_takeover() -> None:
    """Raise ValueError while Pillow's writer is taken over. Programs that measure that writer call this."""
    from .takeover import refuse_taken

    refuse_taken(_writers())


@cache
def _writers() -> "Writers":
    from PIL import JpegImagePlugin  # noqa: F401  # registers its writer now, and so not later

    from .takeover import Writers

    return Writers("Pillow", Image.SAVE)
