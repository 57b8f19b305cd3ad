"""Encoding with the standard table, and what networks read in files, by torch and Pillow alone."""

import io
from typing import Any

import numpy as np
from PIL import Image

import dnnjpeg


def encode(image: Any, table: Any = "standard", quality: Any = None, **options: Any) -> bytes:
    return dnnjpeg.encode(image, table, quality, **options)


def encode_to_target(images: Any, table: Any = "standard", **options: Any) -> list[Any]:
    return dnnjpeg.encode_to_target(images, table, **options)


def read(network: Any, image: np.ndarray | bytes) -> np.ndarray:
    """Logits of a picture of 72 x 56: 56 -> 37, the centre 32, as a reader would do it without dnnjpeg."""
    import torch

    picture = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else Image.fromarray(image)
    side = 56 * 32 / 37
    box = ((72 - side) / 2, (56 - side) / 2, (72 + side) / 2, (56 + side) / 2)
    square = np.array(picture.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC, box))
    x = torch.from_numpy(square).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        return network.module((x - 0.5) / 0.25)[0].double().numpy()


def divergence(clean: np.ndarray, logits: np.ndarray) -> float:
    p, q = (np.exp(a - a.max()) / np.exp(a - a.max()).sum() for a in (clean, logits))
    return float((p * np.log(p / q)).sum())
