"""How many bytes a point of a table saves, and how sure that is, on pictures that both were measured on."""

from collections.abc import Sequence

import numpy as np

from dnnjpeg.evaluate.statistics import Estimate, means
from dnnjpeg.learn.objective import Losses
from dnnjpeg.learn.points import StandardCurve


def bytes_change(
    qualities: Sequence[float], standard: Sequence[Losses], point: Losses, luck: float
) -> Estimate:
    """Bytes of a point against the standard table at equal loss, in per cent: -10 is a tenth fewer.

    standard: the standard table at these qualities. luck: by what share the point loses less on these
    pictures than it would on others (`Selection.luck`).
    The interval is a bootstrap over the pictures. It does not know that the pictures have chosen the point.
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
