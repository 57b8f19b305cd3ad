"""A quality for each picture: coarser steps where there is much to code, finer ones where there is little."""

from dnnjpeg.standard import ijg_factor

YARDSTICK = 20
"""Quality at which a picture's bits are counted: standard table, 4:2:0, standard Huffman codes."""
USUAL_BITS = 0.58
"""A pixel, so counted, of a picture whose quality stays: geometric mean of 500 of ImageNet, 224 x 224."""
EXPONENT = 0.5
"""Of those tried on them, 0.3 to 1, with the tables of three networks, none was better throughout."""


def adapted_quality(quality: float, bits: float) -> int:
    """The whole quality 1..100 of a picture that takes so many bits a pixel at the yardstick.

    quality: 1..100, of the usual picture. By libjpeg's law, steps grow with the square root of the bits.
    """
    factor = ijg_factor(quality) * (bits / USUAL_BITS) ** EXPONENT
    return min(max(round(5000 / factor if factor > 100 else 100 - factor / 2), 1), 100)
