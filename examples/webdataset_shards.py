"""Write tar shards with webdataset, the pictures through dnnjpeg.

python examples/webdataset_shards.py pictures shards
"""

import sys
from pathlib import Path

from PIL import Image
from webdataset import ShardWriter

from dnnjpeg.plugins.datasets import webdataset_encoder

source, target = map(Path, sys.argv[1:])
target.mkdir(exist_ok=True)
encoder = webdataset_encoder("universal", quality=75)
with ShardWriter(str(target / "%06d.tar"), maxcount=5, encoder=encoder, verbose=0) as writer:
    for number, path in enumerate(sorted(source.iterdir())):
        with Image.open(path) as image:
            writer.write({"__key__": path.stem, "jpg": image, "cls": number % 10})
