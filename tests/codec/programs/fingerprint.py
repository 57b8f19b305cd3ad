"""Print the hashes of some files, one by one; usage: fingerprint.py HARDNESS, 64 numbers or null as JSON."""

import hashlib
import json
import sys
from typing import Any

import numpy as np

from dnnjpeg import encode

rng = np.random.default_rng(7)
wave = np.sin(np.arange(150)[:, None, None] / [9, 13, 21, 4] + np.arange(211)[None, :, None] / 17)
picture = np.clip(128 + 90 * wave + rng.normal(0, 9, wave.shape), 0, 255).astype(np.uint8)
quantizers: list[dict[str, Any]] = [{}, {"hardness": 0.35}, {"hardness": 6}, {"hardness": 40}]
quantizers.append({"hardness": json.loads(sys.argv[1])})
for quantizer in quantizers:
    for data in (
        encode(picture, mode="CMYK", **quantizer),
        encode(picture, mode="BGRX", quality=100, subsampling="4:1:1", **quantizer),
        encode(picture[:, :, :3], quality=93, optimize=False, **quantizer),
        encode(picture[:, :, :3], mode="YCbCr", subsampling="4:4:4", progressive=True, **quantizer),
        encode(picture[:, :, 0], restart_blocks=5, threads=2, **quantizer),
    ):
        print(hashlib.sha256(data).hexdigest()[:16])
