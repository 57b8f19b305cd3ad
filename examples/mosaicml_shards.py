"""Write MosaicML's shards, the pictures through dnnjpeg. Readers need no dnnjpeg.

python examples/mosaicml_shards.py pictures shards
"""

import sys
from pathlib import Path

from PIL import Image
from streaming import MDSWriter

from dnnjpeg.plugins.datasets import mds_jpeg

with (
    mds_jpeg("universal", quality=75),
    MDSWriter(out=sys.argv[2], columns={"name": "str", "image": "jpeg"}) as writer,
):
    for path in sorted(Path(sys.argv[1]).iterdir()):
        with Image.open(path) as image:
            writer.write({"name": path.name, "image": image})
