"""Train the steps of a JPEG layer, then write a file with them. The file decodes to what the layer gave.

python examples/jpeg_layer.py photo.png photo.jpg
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dnnjpeg import JPEGLayer

source, target = sys.argv[1:]
picture = np.array(Image.open(source).convert("RGB"))
pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()  # N x 3 x H x W, 0..255

layer = JPEGLayer(np.full((2, 64), 8.0), kappa=5)
optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
for _ in range(5):  # a real loss is that of a network, behind the layer
    loss = torch.nn.functional.mse_loss(layer(pixels), pixels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

layer.form = "file"  # integers, as files have them
with torch.no_grad():
    seen = layer(pixels)[0].permute(1, 2, 0).numpy()
data = layer.encode(picture)
Path(target).write_bytes(data)
decoded = np.asarray(Image.open(io.BytesIO(data)), float)
print(f"{len(data):,} bytes, largest difference of layer and decoder: {np.abs(decoded - seen).max():g}")
