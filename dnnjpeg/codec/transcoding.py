"""What JPEG files of one kind are transcoded with, made from an operating point and options."""

from functools import lru_cache

from dnnjpeg.codec.coding import Coding
from dnnjpeg.codec.frame import Frame
from dnnjpeg.codec.laws import laws_of
from dnnjpeg.codec.plane_rows import Change
from dnnjpeg.codec.prepare import coding_of
from dnnjpeg.codec.read_scans import MAX_MCU_BLOCKS
from dnnjpeg.codec.requantize import Sampling
from dnnjpeg.jpeg.standard import Steps
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.point import OperatingPoint


@lru_cache(maxsize=256)
def prepared_transcoding(
    point: OperatingPoint, options: EncodeOptions, frame: Frame, colour: str, known: tuple[Steps, ...]
) -> tuple[Coding, Change]:
    """What all sources of one size share, with these tables: how they are coded, and what is done to them."""
    asked = options.subsampling or point.subsampling
    sampling = reduced_sampling(frame.sampling, colour, asked)
    tables, laws = laws_of(point, asked, options.hardness, colour, known, frame.sampling, sampling)
    return coding_of(frame.width, frame.height, sampling, tables, options), Change(frame, laws, options.seed)


def reduced_sampling(have: Sampling, colour: str, name: str) -> Sampling:
    """The factors of chroma that has been brought to a subsampling, or has stayed as it was."""
    if len(have) != 3 or colour != "YCbCr":
        return writable_sampling(have)
    (h, v), (across, down), other = have
    if other != (across, down) or h % across or v % down:
        return writable_sampling(have)
    across, down = h // across, v // down
    wide, high = SUBSAMPLINGS[name][0]
    if wide % across == high % down == 0:
        across, down = wide, high
    return writable_sampling(((across, down), (1, 1), (1, 1)))


def writable_sampling(sampling: Sampling) -> Sampling:
    """Return the factors. Raises ValueError if an MCU would have too many blocks (T.81 B.2.3)."""
    blocks = sum(h * v for h, v in sampling)
    if blocks > MAX_MCU_BLOCKS:
        raise ValueError(
            f"the sampling {', '.join(f'{h}x{v}' for h, v in sampling)} makes {blocks} blocks an MCU, "
            f"expected at most {MAX_MCU_BLOCKS}: it cannot be written in one scan"
        )
    return sampling
