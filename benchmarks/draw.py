"""Draw pictures that behave as photographs do under JPEG: noise at all scales, shapes with edges, grain.

python benchmarks/draw.py pictures
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image


def draw(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture; the same for the same arguments.

    Discs of many sizes in front of one another, each with a colour and a texture of its own: a picture of the
    world has edges at every scale too. The amplitude of textures falls as 1/frequency, as it does in photographs.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    texture = np.stack([_texture(rng, width, height) for _ in range(3)], axis=-1)
    light, *_ = colours = np.moveaxis(texture, -1, 0)
    picture = 120 + 45 * light[..., None] + 12 * np.stack([colours[1], colours[2], -colours[1]], axis=-1)
    for size in np.sort(rng.pareto(1.5, 40))[::-1]:
        radius = 0.03 * (1 + min(size, 8)) * max(width, height)
        inside = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
        shift = rng.integers(0, (height, width))
        grain = np.roll(light, shift, axis=(0, 1))[inside] * rng.uniform(2, 30)
        picture[inside] = rng.uniform(20, 235) + rng.normal(0, 25, 3) + grain[:, None]
    picture += rng.normal(0, 2, (height, width, 1))
    return Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8))


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of mean 0 and variance 1 whose amplitude falls as 1/frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency, (height, width))
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
