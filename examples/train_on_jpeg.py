"""Show a network its training pictures as it will read them later: through dnnjpeg, at changing quality.

python examples/train_on_jpeg.py photo.png
"""

import sys

import numpy as np
import torch
from PIL import Image

from dnnjpeg.plugins.transforms import JPEG

augment = torch.nn.Sequential(JPEG("universal", quality=(50, 95)))  # beside your other transforms
picture = torch.tensor(np.asarray(Image.open(sys.argv[1]).convert("RGB"))).permute(2, 0, 1)
for epoch in range(3):
    seen = augment(picture)
    change = (seen.float() - picture.float()).abs().mean()
    print(f"epoch {epoch}: changed by {change:.1f} of 255 on average")
