"""Draw pictures that behave as photographs do under JPEG: noise at all scales, shapes with edges, grain.

python benchmarks/draw.py pictures
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image


def draw(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture; the same for the same arguments.

    Textured discs of many sizes, one in front of another: there are edges at every scale, as in the world.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    light, tint = _texture(rng, width, height), _texture(rng, width, height)
    picture = 120 + 45 * light[..., None] + tint[..., None] * rng.normal(0, 12, 3)
    for size in np.sort(rng.pareto(1.5, 40))[::-1]:
        radius = 0.03 * (1 + min(size, 8)) * max(width, height)
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        texture = np.roll(light, rng.integers(0, (height, width)), axis=(0, 1))[inside] * rng.uniform(2, 25)
        picture[inside] = rng.uniform(20, 235) + rng.normal(0, 25, 3) + texture[:, None]
    picture += rng.normal(0, 1.5, (height, width, 1))  # grain
    return Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8))


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of mean 0 and variance 1 whose amplitude falls with frequency as in photographs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.3, (height, width))
    return noise / noise.std()


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=12, show_default=True)
def main(folder: Path, count: int) -> None:
    """Draw PNG pictures of 640x480, every third one upright, into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        draw(*((480, 640) if i % 3 == 2 else (640, 480)), seed=i).save(folder / f"{i:02}.png")
    click.echo(f"{count} pictures drawn into {folder}")


if __name__ == "__main__":
    main()
