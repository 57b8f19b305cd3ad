"""Pillow-backed stand-in with the real signature; to be replaced by the codec."""

import io
from typing import Any

import numpy as np
from PIL import Image


def encode(
    image: Any, table: Any = "standard", quality: float = 75, *, mode: str | None = None, quantizer: str | None = None,
    hardness: Any = None, seed: int = 0, subsampling: str | int | None = None, progressive: bool | str = False,
    optimize: bool | None = None, restart_blocks: int = 0, restart_rows: int = 0, exif: bytes = b"", xmp: bytes = b"",
    icc_profile: bytes = b"", comment: bytes = b"", dpi: tuple[float, float] | None = None, jfif: bool = False,
    signature: bool = True, streamtype: int = 0, threads: int = 1,
) -> bytes:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise TypeError(f"image is an array of {image.dtype}, expected uint8")
        if image.size == 0:
            raise ValueError("image is empty")
        mode = mode or {2: "L", 3: "RGB"}[image.ndim]
        if mode.startswith("BGR"):
            image, mode = image[..., 2::-1], "RGB"
        image = Image.fromarray(np.ascontiguousarray(image)).convert(mode if mode != "RGBX" else "RGB")
    if image.mode not in ("1", "L", "RGB", "RGBX", "YCbCr", "CMYK"):
        raise OSError(f"cannot write mode {image.mode} as JPEG")
    if 0 in image.size:
        raise ValueError("image is empty")
    buffer = io.BytesIO()
    sub = {None: -1, "4:4:4": 0, "4:2:2": 1, "4:2:0": 2}.get(subsampling, subsampling)
    image.save(
        buffer, "JPEG", quality=round(quality), subsampling=sub if sub in (0, 1, 2) else -1, progressive=bool(progressive),
        optimize=optimize is not False, restart_marker_blocks=restart_blocks, restart_marker_rows=restart_rows,
        exif=exif, xmp=xmp or None, icc_profile=icc_profile, comment=comment, dpi=dpi or (0, 0), streamtype=streamtype,
    )
    return buffer.getvalue()
