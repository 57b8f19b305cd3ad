"""A program that knows only Pillow's JPEG writer writes through dnnjpeg.

python examples/takeover.py photo.png photo.jpg
"""

import sys
from pathlib import Path

from PIL import Image

import dnnjpeg
from dnnjpeg.plugins.pillow import takeover


def foreign_program(source: str, target: str) -> None:
    Image.open(source).convert("RGB").save(target, quality=95)


with takeover("universal", quality=75) as taken:
    foreign_program(*sys.argv[1:])
print(dnnjpeg.inspect(Path(sys.argv[2]).read_bytes()).made_by)
print(f"{taken.written} by dnnjpeg, {taken.refused} by Pillow")
