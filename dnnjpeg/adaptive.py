"""Choose a quality for each picture: complex pictures get a lower quality, simple ones a higher one.

Pictures in which networks have lost more than usual get a higher quality, too.
"""

import math

from dnnjpeg.jpeg.standard import ijg_factor

YARDSTICK = 20
"""The quality of the file by which a picture is judged. The file has the standard table and 4:2:0."""
USUAL_BITS = 0.58
"""Bits per pixel at the yardstick of a picture whose quality stays as it is, with the standard Huffman codes.
The geometric mean of 500 pictures of ImageNet, 224 x 224."""
EXPONENT = 0.5
"""The exponent of the bits. 0.3 to 1 were tried on these pictures with the tables of three networks, and none
was better for all networks."""
DOUBT = 0.06
"""This is added to a divergence at the yardstick, in nat. Whether a small divergence is 0.01 or 0.001 says
little about how the picture will be read in another file, or by another network."""
USUAL_DIVERGENCE = 0.43
"""The divergence of a picture whose quality stays as it is, in nat, with the doubt. The geometric mean over
700 pictures of ImageNet and four networks is 0.41."""
DIVERGENCE_EXPONENT = 0.6
"""The exponent of the divergence. On these pictures, it gives about the largest gain for networks that were
asked, and for others (benchmarks/law.py)."""
BRINK = 250.0
"""The steps of quality 20, in per cent of those of quality 50. With larger steps, the loss grows faster and
faster, also in pictures that lost little at the yardstick."""


def adapted_quality(quality: float, bits: float, divergence: float | None = None) -> int:
    """The quality of a picture, a whole number 1..100.

    quality: the quality of the usual picture, 1..100.
    bits: bits per pixel of the picture's file at the yardstick.
    divergence: divergence of what networks read in this file from what they read in the original, in nat.
        None if no network has read it.

    The steps grow with the square root of the bits. They shrink with a power of the divergence, and less
    beyond the brink. libjpeg's law turns steps into a quality.
    """
    factor = ijg_factor(quality)
    if divergence is not None:
        factor *= _restrained(
            factor, -DIVERGENCE_EXPONENT * math.log((divergence + DOUBT) / USUAL_DIVERGENCE)
        )
    factor *= (bits / USUAL_BITS) ** EXPONENT
    return min(max(round(5000 / factor if factor > 100 else 100 - factor / 2), 1), 100)


def _restrained(factor: float, change: float) -> float:
    """Limit a change of the steps beyond the brink. Returns a factor for the steps.

    factor: the steps before the change, in per cent of those of quality 50.
    change: the logarithm of the factor without a limit.

    The result is e^x with x + (factor/BRINK)^4 (e^4x - 1)/4 = change. Far below the brink, x is the change.
    Far above it, x is about change / (factor/BRINK)^4. The left side is convex, so Newton's method finds x.
    """
    steep = (factor / BRINK) ** 4
    x = change / (1 + steep)
    for _ in range(20):
        x -= (x + steep * math.expm1(4 * x) / 4 - change) / (1 + steep * math.exp(4 * x))
    return math.exp(x)
