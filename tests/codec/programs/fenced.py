"""Encode, or read, with every array between pages that must not be touched.

Usage: fenced.py pictures|coefficients|reading|transcoding begin|end.

The arrays, the picture's and the encoder's own, lie at the begin or at the end of their pages. A wrong access
ends the process; the last line printed is the case it was at.
"""

import ctypes
import itertools
import mmap
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from dnnjpeg import encode, read_coefficients, transcode, write_coefficients
from dnnjpeg.codec import reader
from dnnjpeg.codec.pixels import MODES
from dnnjpeg.machine import memory

AT_END = sys.argv[2] == "end"
PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def fenced(shape: Any, dtype: Any = float) -> np.ndarray:
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    pages = -(-size // PAGE)
    room = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
    for page in (0, pages + 1):
        if libc.mprotect(room.ctypes.data + page * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE + (pages * PAGE - size if AT_END else 0)
    return room[first : first + size].view(dtype).reshape(shape)


def fenced_empty(shape: Any, dtype: Any = float) -> np.ndarray:
    array = fenced(shape, dtype)
    array.view(np.uint8).reshape(-1)[:] = 0xA5  # what is not written must not matter
    return array


def fenced_block(size: int) -> tuple[np.ndarray, None]:
    return fenced_empty(size, np.uint8), None


def allocate_with(empty: Any, borrow: Any, give_back: Any, numpy_empty: Any, numpy_zeros: Any) -> None:
    ways = {"empty": empty, "borrow": borrow, "give_back": give_back}
    for name, module in sys.modules.items():
        if name.startswith("dnnjpeg.codec."):
            vars(module).update({way: ways[way] for way in ways if hasattr(module, way)})
    np.empty, np.zeros = numpy_empty, numpy_zeros
    reader.bytes_array = USUAL_BYTES if empty is USUAL[0] else fence


USUAL = memory.empty, memory.borrow, memory.give_back, np.empty, np.zeros
USUAL_BYTES = reader.bytes_array


def check(
    function: Callable[..., bytes], given: Any, *arguments: Any, same: Any = None, **options: Any
) -> None:
    """`function` within fences writes what it writes outside of them, for `given` or the equal `same`."""
    print(function.__name__, np.shape(given), arguments[1:], options, flush=True)
    expected = function(given if same is None else same, *arguments, **options)
    allocate_with(fenced_empty, fenced_block, lambda block: None, fenced_empty, fenced)
    try:
        found = function(given, *arguments, **options)
    finally:
        allocate_with(*USUAL)
    assert found == expected


def pictures(rng: np.random.Generator) -> None:
    for mode, channels in MODES.items():
        subsamplings = {1: ["4:4:4"], 3: ["4:4:4", "4:2:0", "4:1:1"], 4: ["4:4:4", "4:1:1"]}[channels]
        widths = [*range(1, 41), *range(62, 68), *range(126, 132)]
        for subsampling, width in itertools.product(subsamplings, widths):
            height = 1 + width % 3 if width % 7 else 17
            plain = rng.integers(0, 256, (height, width) + (channels,) * (channels > 1), np.uint8)
            picture = fenced(plain.shape, np.uint8)
            picture[:] = plain
            options: dict[str, Any] = {"mode": mode, "subsampling": subsampling}
            check(encode, picture, same=plain, **options)
            if AT_END:
                picture[:] = plain[::-1]
                check(encode, picture[::-1], same=plain, **options)
            if width % 5 == 0:
                options["hardness"] = 0.4
                check(encode, plain, **options)
                check(encode, plain, progressive=True, **options)
    big = rng.integers(0, 256, (200, 150, 3), np.uint8)
    for name, value in (("threads", 2), ("restart_rows", 1), ("restart_blocks", 1), ("optimize", False)):
        check(encode, big, quality=100, **{name: value})


def coefficients(rng: np.random.Generator) -> None:
    ones = [np.ones(64, int)]
    for width, height, count in itertools.product((1, 9, 130), (1, 65), (1, 3, 4)):
        shape = (-(-height // 8), -(-width // 8), 64)
        dense = [rng.integers(-1023, 1024, shape) for _ in range(count)]
        nothing = [np.zeros(shape, int) for _ in range(count)]
        last = [np.where(np.arange(64) == 63, 1023, 0) + plane for plane in nothing]
        for planes, restart, progressive in itertools.product((dense, nothing, last), (0, 1), (False, True)):
            options = {"restart_blocks": restart, "progressive": progressive}
            check(write_coefficients, planes, ones, width, height, **options)
        check(write_coefficients, dense, ones, width, height, optimize=False)
    known = [np.full((16, 16, 64), 1023)]  # nothing but correction bits
    check(write_coefficients, known, ones, 128, 128, progressive=True)


def read(data: bytes, salvage: bool) -> bytes:
    """Planes of what may be damaged, in bytes; or why there are none."""
    try:
        found = read_coefficients(data, salvage=salvage)
    except ValueError as error:
        return str(error).encode()
    return b"".join(plane.tobytes() for plane in found.planes)


def fence(data: bytes) -> np.ndarray:
    array = fenced(len(data), np.uint8)
    array[:] = np.frombuffer(data, np.uint8)
    array.flags.writeable = False  # as what it stands for
    return array


def reading(rng: np.random.Generator) -> None:
    ones = [np.ones(64, int)]
    for width, height, count in itertools.product((1, 130), (1, 65), (1, 3)):
        shape = (-(-height // 8), -(-width // 8), 64)
        dense = [rng.integers(-1023, 1024, shape) for _ in range(count)]
        some = [np.where(rng.random(shape) < 0.1, plane, 0) for plane in dense]
        for planes, restart, progressive in itertools.product((dense, some), (0, 1), (False, True)):
            data = write_coefficients(
                planes, ones, width, height, restart_blocks=restart, progressive=progressive
            )
            cuts = [data[:size] + b"\xff\xd9" for size in rng.integers(len(data) - 200, len(data), 3)]
            noise = bytearray(data)
            for place in rng.integers(data.rindex(b"\xff\xda"), len(data), 3):
                noise[place] = rng.integers(256)
            marks = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", data)]
            lost = [data[: marks[i]] + data[marks[i + 2] :] for i in range(0, len(marks) - 2, 40)]
            other = [data[: at + 1] + b"\x3c" + data[at + 2 :] for at in marks[-2:]]
            for one, salvage in itertools.product((data, *cuts, *lost, *other, bytes(noise)), (False, True)):
                check(read, one, salvage)


def transcoded(data: bytes, quality: int) -> bytes:
    """The file of what may be damaged; or why there is none."""
    try:
        return transcode(data, "standard", quality, subsampling="4:2:0", only_if_smaller=False)
    except ValueError as error:
        return str(error).encode()


def transcoding(rng: np.random.Generator) -> None:
    for width, height, subsampling in itertools.product(
        (1, 9, 40, 130), (1, 70), ("4:4:4", "4:2:0", "4:1:1")
    ):
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        data = encode(picture, quality=95, subsampling=subsampling)
        for asked, hardness in itertools.product(("4:4:4", "4:2:0", "4:2:2"), (None, 0.4, 20)):
            options = {"subsampling": asked, "hardness": hardness, "only_if_smaller": False}
            check(transcode, data, "standard", 60, **options)
        begin = data.rindex(b"\xff\xda")
        for _ in range(8):
            check(transcoded, data[: rng.integers(begin, len(data))] + b"\xff\xd9", 60)
            noise = bytearray(data)
            for place in rng.integers(begin, len(data), 3):
                noise[place] = rng.integers(256)
            check(transcoded, bytes(noise), 60)
        check(transcode, data, "standard", 60, progressive="auto", restart_rows=1)
        check(transcode, data, lossless=True)


USES = {
    "pictures": pictures, "coefficients": coefficients, "reading": reading, "transcoding": transcoding
}  # fmt: skip
USES[sys.argv[1]](np.random.default_rng(0))
