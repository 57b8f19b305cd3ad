"""Encode many pictures: in threads, or one by one inside data libraries."""

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnnjpeg.table.point import OperatingPoint
    from dnnjpeg.table.table import Table


def encode_batch(
    pictures: Iterable[Any],
    table: "str | os.PathLike[str] | Table | OperatingPoint | None" = None,
    quality: float | None = None,
    *,
    threads: int | None = None,
    **options: Any,
) -> list[bytes]:
    """Encode pictures in threads. They run side by side: the encoder releases the interpreter lock.

    pictures: a uint8 tensor [N, C, H, W]; a uint8 array [N, H, W] or [N, H, W, C]; or a list of tensors
        [C, H, W], arrays and PIL images, in any mixture. Tensors have 1 or 3 channels.
    table, quality, options: as in `dnnjpeg.encode`.
    threads: the largest number of threads. None: one for each processor.

    The files are those of `dnnjpeg.encode`, in the order of the pictures. The first error is raised, with a
    note that says which picture it is about.
    """
    from dnnjpeg.checks import check_integer
    from dnnjpeg.encoder import encode
    from dnnjpeg.machine.processors import processors

    if threads is None:
        threads = processors()

    def encode_one(numbered: tuple[int, Any]) -> bytes:
        i, picture = numbered
        try:
            return encode(as_picture(picture), table, quality, **options)
        except Exception as error:
            error.add_note(f"This is about pictures[{i}].")
            raise

    with ThreadPoolExecutor(check_integer(threads, "threads", 1, 1024)) as pool:
        return list(pool.map(encode_one, enumerate(pictures)))


def as_picture(picture: Any) -> Any:
    """Turn a tensor [C, H, W] into an array for `dnnjpeg.encode`. Return anything else unchanged.

    Raises TypeError for a tensor that is not uint8, and ValueError for another shape.
    """
    if not hasattr(picture, "requires_grad"):
        return picture
    if str(picture.dtype) != "torch.uint8":
        raise TypeError(f"the tensor is of {picture.dtype}, expected torch.uint8")
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"the tensor has the shape {list(picture.shape)}, expected [1 or 3, H, W]")
    array = picture.detach().cpu().numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)


class FileEncoder:
    """Encodes pictures, or picture files, with one table and quality. It can be pickled.

    options: options of both `dnnjpeg.encode` and `dnnjpeg.transcode`. A wrong option raises at once.
    """

    def __init__(
        self,
        table: "str | os.PathLike[str] | Table | OperatingPoint | None" = None,
        quality: float | None = None,
        **options: Any,
    ) -> None:
        import numpy as np

        from dnnjpeg.table.library import DEFAULT_TABLE, load_table

        if options.get("model") is None and (table is None or isinstance(table, str | os.PathLike)):
            table = load_table(DEFAULT_TABLE if table is None else table)
        # Libraries keep results by a digest of this object's pickle: it must hold all that files depend on.
        self._version = version("dnnjpeg")
        self._how: dict[str, Any] = {"table": table, "quality": quality, **options}
        self.encode(self.encode(np.zeros((8, 8, 3), np.uint8)))

    def encode(self, picture: Any) -> bytes:
        """Encode a picture.

        picture: an array, a tensor [C, H, W] or a PIL image; or the bytes of a picture file, whose metadata
            are kept. A JPEG file is made smaller from its own coefficients, see `dnnjpeg.transcode`.
        """
        from dnnjpeg.encoder import encode
        from dnnjpeg.files.images import open_picture
        from dnnjpeg.jpeg.segments import is_jpeg
        from dnnjpeg.transcoder import Unsupported, transcode

        if not isinstance(picture, bytes | bytearray | memoryview):
            return encode(as_picture(picture), **self._how)
        data = bytes(picture)
        if is_jpeg(data):
            try:
                return transcode(data, **self._how)
            except Unsupported:
                pass
        opened = open_picture(io.BytesIO(data))
        return encode(opened.image, **opened.metadata, **self._how)
