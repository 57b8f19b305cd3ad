"""Write quantized DCT indices as a JPEG file, and check what a decoder makes of them.

python examples/write_coefficients.py stripes.jpg
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dnnjpeg import write_coefficients

rows, columns = 4, 6  # blocks of 8 x 8 pixels
indices = np.zeros((rows, columns, 8, 8), np.int16)  # natural order, not zigzag
indices[..., 0, 0] = 10 * np.arange(columns) - 30  # DC: one brightness a column of blocks
steps = [16] * 64
data = write_coefficients([indices], [steps], width=8 * columns, height=8 * rows)
Path(sys.argv[1]).write_bytes(data)

decoded = np.asarray(Image.open(sys.argv[1]))
expected = 128 + indices[0, :, 0, 0] * 16 / 8  # index x step / 8, around the middle of 0..255
print("decoded", decoded[0, ::8].tolist(), "expected", expected.tolist())
