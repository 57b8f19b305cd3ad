"""Encode a batch on all processors.

python examples/encode_batch.py
"""

import numpy as np

from dnnjpeg.plugins.batches import encode_batch

batch = np.random.default_rng(0).integers(100, 156, (16, 64, 64, 3), np.uint8)  # or a tensor [N, C, H, W]
files = encode_batch(batch, "universal", quality=75)
print(f"{len(files)} files, {sum(map(len, files)):,} bytes")
