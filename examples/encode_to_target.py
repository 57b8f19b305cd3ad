"""Encode a picture as small as a network allows: it must still name the same class.

python examples/encode_to_target.py photo.png photo.jpg torchvision:resnet18
"""

import sys
from pathlib import Path

from PIL import Image

from dnnjpeg import encode_to_target, load_network

source, target, spec = sys.argv[1:]
network = load_network(spec)
image = Image.open(source).convert("RGB")
(found,) = encode_to_target([image], "universal", networks=[network], keep="top1")
Path(target).write_bytes(found.data)
print(f"quality {found.quality:g}, {len(found.data):,} bytes")
