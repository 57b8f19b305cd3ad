"""Encode an array to the bytes of a JPEG file, at several qualities.

python examples/encode_bytes.py photo.png
"""

import sys

import numpy as np
from PIL import Image

from dnnjpeg import encode

pixels = np.asarray(Image.open(sys.argv[1]).convert("RGB"))  # uint8, height x width x 3
for quality in (20, 50, 75):
    data = encode(pixels, "universal", quality)
    print(f"quality {quality}: {len(data):,} bytes")
