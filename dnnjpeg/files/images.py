"""Pictures on disk: finding them in folders, and reading a picture in a form that JPEG can hold."""

import os
import stat
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from PIL import Image, ImageOps

from dnnjpeg.files.paths import is_link

JPEG_EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif"))
# fmt: off
EXTENSIONS = JPEG_EXTENSIONS | frozenset((
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx", ".mpo", ".pbm",
    ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".sgi", ".tga", ".tif", ".tiff", ".webp",
))
# Raster formats only: Pillow would start Ghostscript for a PostScript file.
FORMATS = (
    "JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF", "TGA", "QOI", "PCX", "SGI",
)
# fmt: on

# Tags of a TIFF's first directory that describe the picture, not the file: description, make, model,
# resolution and its unit, software, date, artist, copyright, and the directories for Exif and GPS.
_TIFF_TAGS = (0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298)
_TIFF_DIRECTORIES = (0x8769, 0x8825)
SRGB = tuple("sRGB IEC61966-2.1".encode(coding) for coding in ("ascii", "utf-16-be"))


@dataclass(frozen=True)
class Picture:
    """Pixels in a mode of JPEG, and their metadata."""

    image: Image.Image  # mode 1, L, RGB, RGBX, YCbCr or CMYK
    format: str  # Pillow's name of the source's format
    lone: bool  # False: the file has further pictures (stereo, preview, gain map)
    metadata: dict[str, Any]  # exif, xmp, icc_profile, comment, dpi, if present: arguments of `encode`


def _raise(error: OSError) -> NoReturn:
    raise error


def walk(
    folder: str | os.PathLike[str],
    *,
    extensions: Container[str] = EXTENSIONS,
    recursive: bool = True,
    follow_links: bool = True,
    skip: str | os.PathLike[str] | None = None,
    on_error: Callable[[OSError], object] = _raise,
) -> Iterator[Path]:
    """Yield the picture files of a folder in the order of their names, then those of its subfolders.

    extensions: extensions of picture files, in lower case, with the dot.
    recursive: enter subfolders.
    follow_links: follow symbolic links. Links to folders come last.
    skip: a folder that is left out.
    on_error: called with the OSError of a folder that cannot be read. By default the error is raised.

    Names that begin with a dot are left out. Each folder is entered once, even if several links lead to it; a
    folder below `folder` is entered by its own name.
    """
    barred = os.path.realpath(skip) if skip is not None else None
    seen: set[tuple[int, int]] = set()
    tops = deque([Path(folder)])
    while tops:
        top = tops.popleft()
        if not _is_new(top, seen):
            continue
        for parent, folders, files in os.walk(top, onerror=on_error):
            here = Path(parent)
            for name in sorted(files):
                path = here / name
                wanted = path.suffix.lower() in extensions and not name.startswith(".")
                if wanted and (follow_links or not is_link(path)):
                    yield path
            below = [here / name for name in sorted(folders) if recursive and not name.startswith(".")]
            below = [path for path in below if barred is None or os.path.realpath(path) != barred]
            tops += [path for path in below if follow_links and is_link(path)]
            folders[:] = [path.name for path in below if not is_link(path) and _is_new(path, seen)]


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is not in `seen`. Adds it."""
    try:
        found = folder.stat()
    except OSError:  # reading the folder gives this error again
        return True
    identity = found.st_dev, found.st_ino
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def open_picture(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    metadata: Literal["keep", "strip"] = "keep",
    background: tuple[int, int, int] | None = None,
) -> Picture:
    """Read a picture for encoding as JPEG.

    source: a path, or an open binary file.
    metadata: "keep" returns EXIF (with its orientation), XMP, the ICC profile, the comment and the resolution
        unchanged. "strip" drops all that does not change how the picture looks. It applies the orientation to
        the pixels. It keeps the ICC profile unless it is sRGB, which is what a JPEG without a profile means.
    background: colour under transparent pixels, three numbers 0..255, in the picture's own colour space.

    Pixels:
    - Bilevel, grey, RGB, YCbCr and CMYK pictures keep their mode. A palette becomes RGB.
    - 16-bit grey is scaled to 8 bits and rounded to the nearest; white stays white. Pillow reads 16-bit
      colour as 8 bits, the high bytes.
    - An opaque alpha channel is dropped. A transparent one needs a `background`.
    - A file with several frames is refused. A JPEG may hold further pictures after the first (phones, stereo
      cameras): the first is read, and `lone` is False.

    Raises OSError if the file cannot be read as a whole picture. Raises ValueError if JPEG cannot hold the
    picture, or if `metadata` is another word.
    """
    if metadata not in ("keep", "strip"):
        raise ValueError(f"metadata is {metadata!r}, expected 'keep' or 'strip'")
    if isinstance(source, str | os.PathLike) and not stat.S_ISREG(Path(source).stat().st_mode):
        raise OSError("not a regular file")
    try:
        with Image.open(source, formats=FORMATS) as image:
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            image.load()
            kept = _metadata(image, metadata)
            if metadata == "strip":
                _turn_upright(image)
    except Image.UnidentifiedImageError:
        raise OSError(
            "not a picture, or damaged in its first bytes, or in a format that dnnjpeg does not read"
        ) from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers trip over broken data in many ways
        raise OSError(f"cannot be read: {str(error) or type(error).__name__}") from error
    if frames > 1:
        raise ValueError(f"holds {frames} frames and a JPEG holds one: split it first")
    pixels = _pixels(image, background)
    if pixels.mode == "RGB" and kept.get("icc_profile", b"")[16:20] == b"GRAY":
        del kept["icc_profile"]  # a profile for grey says nothing about colours
    return Picture(pixels, image.format or "", image.format != "MPO" and "mp" not in image.info, kept)


def _turn_upright(image: Image.Image) -> None:
    # EXIF that cannot be read turns no picture, here or in a viewer.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _pixels(image: Image.Image, background: tuple[int, int, int] | None) -> Image.Image:
    if image.mode.startswith("I"):
        return _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        opaque, alpha = image.convert(image.mode[:-1]), image.getchannel("A")
        if alpha.getextrema() == (255, 255):
            return opaque
        if background is None:
            raise ValueError("has transparent pixels, which JPEG cannot hold: give a background colour")
        if len(set(background)) > 1:
            opaque = opaque.convert("RGB")
        ground = Image.new(opaque.mode, opaque.size, background if opaque.mode == "RGB" else background[0])
        return Image.composite(opaque, ground, alpha)
    if image.mode == "P":
        return image.convert("RGB")
    if image.mode not in ("1", "L", "RGB", "RGBX", "YCbCr", "CMYK"):
        raise ValueError(f"has pixels of mode {image.mode}, which JPEG lacks: convert to RGB or grey first")
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits as 8 bits: v · 255 / white, rounded to the nearest."""
    import numpy as np

    tiff = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format != "PPM":  # Pillow scales PPM to 16 bits
        raise ValueError("has 32-bit integers, whose white is unknown: scale to 16 or 8 bits first")
    if "transparency" in image.info:
        raise ValueError("has a transparent value in 16-bit grey: convert to 8 bits first")
    if tiff.get(0x0106) == 0:
        raise ValueError("has 16-bit grey with 0 for white: convert to 8 bits first")
    white = 4095 if tiff.get(0x0102) == (12,) else 65535
    lookup = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    grey = np.asarray(image)
    scaled = np.empty(grey.shape, np.uint8)
    for row in range(0, len(grey), 64):  # in bands, because numpy takes 8 bytes for each index
        scaled[row : row + 64] = lookup[grey[row : row + 64]]
    return Image.fromarray(scaled)


def _metadata(image: Image.Image, metadata: str) -> dict[str, Any]:
    profile = image.info.get("icc_profile") or b""
    if metadata == "strip":
        return {"icc_profile": profile} if profile and not any(name in profile for name in SRGB) else {}
    found = {
        "exif": _exif(image),
        "xmp": image.info.get("xmp"),
        "icc_profile": profile,
        # In other formats the comment is the encoder's name.
        "comment": image.info.get("comment") if image.format in ("JPEG", "MPO", "GIF") else None,
        "dpi": _dpi(image),
    }
    return {name: value for name, value in found.items() if value}


def _exif(image: Image.Image) -> bytes:
    if image.format == "TIFF":  # Pillow has already applied the orientation to the pixels
        exif, kept = image.getexif(), Image.Exif()
        kept.update({tag: exif[tag] for tag in _TIFF_TAGS if tag in exif})
        for tag in _TIFF_DIRECTORIES:
            if entries := exif.get_ifd(tag):
                kept.get_ifd(tag).update(entries)
        return kept.tobytes() if len(kept) else b""
    if "Raw profile type exif" in image.info and "exif" not in image.info:  # ImageMagick's PNGs
        return image.getexif().tobytes()
    return image.info.get("exif") or b""


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    if image.format in ("JPEG", "MPO") and image.info.get("jfif_unit") not in (1, 2):
        return None  # Pillow took it from the EXIF, which is kept, or invented it
    pair = image.info.get("dpi") or (0, 0)
    dpi = float(pair[0]), float(pair[1])
    return dpi if all(1 < x <= 65535 for x in dpi) else None  # Pillow gives 1 for a TIFF without resolution
