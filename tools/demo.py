"""`dnnjpeg demo`: draw pictures, encode them, and compare the bytes with Pillow's."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .paths import NamedPath

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

TABLE, QUALITY, COUNT = "universal", 75, 12


def draw(width: int, height: int, seed: int = 0) -> "Image.Image":
    """Draw an RGB picture that JPEG treats like a photograph. The same arguments give the same picture.

    It has textured discs of many sizes, one in front of the other, so there are edges at every scale.
    """
    import numpy as np
    from PIL import Image

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


def _texture(rng: "np.random.Generator", width: int, height: int) -> "NDArray[np.float64]":
    """Noise with mean 0 and variance 1. Its amplitude falls with frequency as in photographs."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.3, (height, width))
    return noise / noise.std()


@click.command(short_help="Draw pictures, encode them, compare with Pillow.")
@click.argument("folder", default="demo", type=NamedPath(file_okay=False))
def demo(folder: Path) -> None:
    """Draw a dozen pictures, encode them, and compare the bytes with Pillow's.

    The pictures go to FOLDER/pictures, the JPEG files to FOLDER/jpeg. FOLDER is "demo" unless you name
    another one.
    """
    import io

    from dnnjpeg import encoder
    from dnnjpeg.files.atomic import write_atomic
    from dnnjpeg.plugins.pillow import refuse_takeover

    try:
        refuse_takeover()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for name in ("pictures", "jpeg"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not encoder.is_warm():
        click.echo("Compiling the codec for this processor, once. This takes some seconds.", err=True)
    ours = pillows = 0
    for i in range(COUNT):
        picture = draw(*((480, 640) if i % 3 == 2 else (640, 480)), seed=i)
        picture.save(folder / "pictures" / f"{i:02}.png")
        data = encoder.encode(picture, TABLE, QUALITY)
        write_atomic(folder / "jpeg" / f"{i:02}.jpg", data)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY, optimize=True)
        ours, pillows = ours + len(data), pillows + len(file.getvalue())
    click.echo(
        f"Drew {COUNT} pictures into {folder / 'pictures'}.\n"
        f"Encoded them into {folder / 'jpeg'}: table '{TABLE}', quality {QUALITY}, {ours:,} bytes.\n"
        f"Pillow at quality {QUALITY} with optimize=True: {pillows:,} bytes.\n"
        f"The change is {100 * (ours / pillows - 1):+.1f} %. Drawn pictures are no photographs: measure your "
        "own pictures and your own network with `dnnjpeg evaluate`."
    )
