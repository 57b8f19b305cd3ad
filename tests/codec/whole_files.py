"""Small whole files that tests damage."""

import numpy as np

from dnnjpeg import encode, read_coefficients

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
GOOD = encode(PICTURE, signature=False)
PROGRESSIVE = encode(PICTURE, signature=False, progressive=True)

for data in (GOOD, PROGRESSIVE):  # the reader is compiled before anything is timed
    read_coefficients(data)
