"""A quality for each picture: coarser steps where there is much to code, finer ones where there is little, or
where networks were seen to lose more than usually.
"""

import math

from dnnjpeg.jpeg.standard import ijg_factor

YARDSTICK = 20
"""Quality of the file by which a picture is judged: standard table, 4:2:0."""
USUAL_BITS = 0.58
"""A pixel, at the yardstick with the standard Huffman codes, of a picture whose quality stays: geometric mean
of 500 of ImageNet, 224 x 224."""
EXPONENT = 0.5
"""Of those tried on them, 0.3 to 1, with the tables of three networks, none was better throughout."""
DOUBT = 0.06
"""Nat, added to a divergence at the yardstick: whether a small one is 0.01 or 0.001 says little of how the
picture will be read in another file, or by another network."""
USUAL_DIVERGENCE = 0.43
"""With the doubt; the geometric mean over 700 pictures of ImageNet and four networks is 0.41."""
DIVERGENCE_EXPONENT = 0.6
"""Where networks that were asked gain about the most on these, and so do others (benchmarks/law.py)."""
BRINK = 250.0
"""Per cent of the standard steps, those of quality 20. Beyond them, what is lost grows ever faster with the
steps, also where it was little at the yardstick."""


def adapted_quality(quality: float, bits: float, divergence: float | None = None) -> int:
    """The whole quality 1..100 of a picture that takes so many bits a pixel at the yardstick, and in which
    networks there read other than in the original by so much, nat.

    quality: 1..100, of the usual picture. By libjpeg's law, steps grow with the square root of the bits, and
    shrink with a power of the divergence, less so beyond the brink.
    """
    factor = ijg_factor(quality)
    if divergence is not None:
        factor *= _restrained(
            factor, -DIVERGENCE_EXPONENT * math.log((divergence + DOUBT) / USUAL_DIVERGENCE)
        )
    factor *= (bits / USUAL_BITS) ** EXPONENT
    return min(max(round(5000 / factor if factor > 100 else 100 - factor / 2), 1), 100)


def _restrained(factor: float, change: float) -> float:
    """e^x, where x + (factor/BRINK)^4 (e^4x - 1)/4 = change: well below the brink x is the change, well above
    it the smaller by its fourth power.

    By Newton's method from above, for the left side is convex.
    """
    steep = (factor / BRINK) ** 4
    x = change / (1 + steep)
    for _ in range(20):
        x -= (x + steep * math.expm1(4 * x) / 4 - change) / (1 + steep * math.exp(4 * x))
    return math.exp(x)
