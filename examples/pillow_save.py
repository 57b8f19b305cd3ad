"""Save a picture with Pillow, through dnnjpeg.

python examples/pillow_save.py photo.png photo.jpg
"""

import sys
from pathlib import Path

from PIL import Image

import dnnjpeg  # makes format="DNNJPEG" known to Pillow, in this process

source, target = sys.argv[1:]
Image.open(source).convert("RGB").save(target, format="DNNJPEG", model="universal", quality=75)
print(dnnjpeg.inspect(Path(target).read_bytes()).made_by)
