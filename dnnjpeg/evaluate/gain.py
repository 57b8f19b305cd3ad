"""The bytes that a point of a table saves against the standard table, with an interval."""

from collections.abc import Sequence

import numpy as np

from dnnjpeg.evaluate.statistics import Estimate, means
from dnnjpeg.learn.objective import Losses
from dnnjpeg.learn.points import StandardCurve


def bytes_change(
    qualities: Sequence[float], standard: Sequence[Losses], point: Losses, luck: float
) -> Estimate:
    """Change of the bytes from the standard table to a point at equal loss, in per cent. -10: a tenth fewer.

    standard: losses of the standard table at these qualities.
    point: losses of the point, on the same pictures.
    luck: the loss on other pictures is expected to be larger by this share (`Selection.luck`).

    The interval is a bootstrap over the pictures. It does not include that the pictures have chosen the
    point.
    """
    count = len(standard)
    table = means(
        [*(one.bytes for one in standard), *(one.loss for one in standard), point.bytes, point.loss]
    )
    changes = np.full(len(table), np.nan)
    for i, row in enumerate(table):
        try:
            curve = StandardCurve.of(qualities, row[:count], row[count : 2 * count])
        except ValueError:
            continue  # pictures on which the loss does not fall with quality
        loss = np.clip(row[-1] * (1 + luck), curve.loss[-1], curve.loss[0])
        quality = curve.quality(float(loss))
        if quality is not None:
            changes[i] = 100 * (row[-2] / curve.bytes_at(quality) - 1)
    return Estimate.of(changes)
