"""Pictures that behave as photographs do."""

import numpy as np


def draw(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with edges and grain, HxWx3 uint8: behaves as a photograph does under JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / rng.uniform(8, 40) + y / rng.uniform(8, 40) + rng.uniform(0, 6)) for _ in range(3)]
    picture = 128 + 50 * np.stack(waves, axis=-1)
    for _ in range(6):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.05, 0.3) * max(width, height)
        picture[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.uniform(0, 255, 3)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).round().astype(np.uint8)
