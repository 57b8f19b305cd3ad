"""Pages and signs with known text: drawn over photographs, and degraded as scans are.

A page has some lines of small text on paper, with a photograph in it or faintly behind it. A sign has a few
larger words on plates in a photograph. Then the picture is turned a little, blurred, unevenly lit, and made
noisy. Each is drawn from its number alone. Even and odd numbers have different fonts, photographs and
words.
"""

import math
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dnnjpeg.tools.demo import draw as draw_photo

WIDTH, HEIGHT = 384, 256
_FAMILIES = "DejaVu|Liberation|FreeSans|FreeSerif|FreeMono|Nimbus|URW|C059|P052"

Corner = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of text, and its box: corners top left, bottom left, bottom right, top right."""

    text: str
    box: tuple[Corner, Corner, Corner, Corner]


@dataclass(frozen=True)
class Page:
    """A picture, uint8 HEIGHT x WIDTH x 3, with the lines in it."""

    pixels: NDArray[np.uint8]
    lines: list[Line]


def page(number: int) -> Page:
    """Draw a page or sign."""
    rng = np.random.default_rng([number, 25])
    image, texts = (_sign if rng.random() < 0.3 else _paper)(rng, number % 2)
    angle = math.radians(rng.normal(0, 0.7))
    turned = image.rotate(math.degrees(angle), Image.Resampling.BICUBIC, fillcolor=image.getpixel((2, 2)))
    cos, sin = math.cos(angle), math.sin(angle)

    def move(x: float, y: float) -> Corner:
        x, y = x - WIDTH / 2, y - HEIGHT / 2
        return cos * x + sin * y + WIDTH / 2, cos * y - sin * x + HEIGHT / 2

    lines = []
    for text, (left, top, right, bottom) in texts:
        box = move(left, top), move(left, bottom), move(right, bottom), move(right, top)
        if all(0 <= x < WIDTH and 0 <= y < HEIGHT for x, y in box):
            lines.append(Line(text, box))
    return Page(_scanned(turned, rng), lines)


def cut(pixels: NDArray[np.uint8], line: Line, height: int) -> NDArray[np.uint8]:
    """A line, straightened and resized to a height."""
    (x0, y0), (x1, y1), _, (x3, y3) = line.box
    width = math.hypot(x3 - x0, y3 - y0) * height / math.hypot(x1 - x0, y1 - y0)
    corners = [value for corner in line.box for value in corner]
    size = max(round(width), 8), height
    image = Image.fromarray(pixels).transform(size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _paper(rng: np.random.Generator, half: int) -> tuple[Image.Image, list[Any]]:
    tone = rng.integers(215, 256, 3)
    image = Image.new("RGB", (WIDTH, HEIGHT), tuple(tone.tolist()))
    photo = _photo(rng, half)
    top = 8
    if rng.random() < 0.4:
        image = Image.blend(image, photo, rng.uniform(0.08, 0.3))
    elif rng.random() < 0.6:
        side = int(rng.integers(60, 110))
        image.paste(photo.resize((WIDTH - 40, side)), (20, 10))
        top = side + 16
    ink = tuple(rng.integers(0, 110, 3).tolist())
    size = int(rng.integers(9, 17))
    font, lines, y = _font(rng, half, size), [], float(top)
    while y + 1.6 * size < HEIGHT - 6:
        text = _words(rng, half, int(rng.integers(14, 34)))
        x = float(rng.integers(14, 26))
        lines += _write(image, text, x, y, font, ink)
        y += size * rng.uniform(1.5, 2.1)
        if len(lines) == 6:
            break
    return image, lines


def _sign(rng: np.random.Generator, half: int) -> tuple[Image.Image, list[Any]]:
    image, lines = _photo(rng, half), []
    for part in range(int(rng.integers(1, 4))):
        size = int(rng.integers(14, 26))
        font, text = _font(rng, half, size), _words(rng, half, int(rng.integers(6, 16)))
        y = 16 + 80 * part + float(rng.integers(0, 30))
        x = float(rng.integers(16, 60))
        left, top, right, bottom = font.getbbox(text)
        plate = tuple(rng.integers(0, 256, 3).tolist())
        dark = sum(plate) < 380
        ink = tuple(rng.integers(170, 256, 3).tolist() if dark else rng.integers(0, 80, 3).tolist())
        ImageDraw.Draw(image).rectangle((x + left - 8, y + top - 6, x + right + 8, y + bottom + 6), plate)
        lines += _write(image, text, x, y, font, ink)
    return image, lines


def _write(image: Image.Image, text: str, x: float, y: float, font: Any, ink: Any) -> list[Any]:
    left, top, right, bottom = font.getbbox(text)
    if x + right > WIDTH - 8:
        return []
    ImageDraw.Draw(image).text((x, y), text, ink, font)
    return [(text, (x + left - 2, y + top - 2, x + right + 2, y + bottom + 2))]


def _scanned(image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8))), np.float64)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light = 1 + rng.uniform(-0.12, 0.12) * x + rng.uniform(-0.12, 0.12) * y
    values = 128 + (values * light[..., None] - 128) * rng.uniform(0.7, 1)
    grain = rng.normal(0, rng.uniform(1, 4), (HEIGHT, WIDTH, 1)) + rng.normal(0, 1, (HEIGHT, WIDTH, 3))
    return np.clip(values + grain, 0, 255).round().astype(np.uint8)


def _photo(rng: np.random.Generator, half: int) -> Image.Image:
    files = _photographs(half)
    if not files:
        return draw_photo(WIDTH, HEIGHT, int(rng.integers(1000)) * 2 + half)
    image = Image.open(files[int(rng.integers(len(files)))]).convert("RGB")
    scale = max(WIDTH / image.width, HEIGHT / image.height)
    image = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)))
    return image.crop((0, 0, WIDTH, HEIGHT))


@cache
def _photographs(half: int) -> Sequence[Path]:
    root = os.environ.get("DNNJPEG_DATA")
    return sorted((Path(root) / "data" / "photos" / "web").iterdir())[half::2] if root else []


def _font(rng: np.random.Generator, half: int, size: int) -> Any:
    files = fonts()[half::2]
    return ImageFont.truetype(files[int(rng.integers(len(files)))], size)


@cache
def fonts() -> list[str]:
    """The files of Debian's text fonts that are installed."""
    listed = subprocess.run(["fc-list", ":lang=en", "file"], capture_output=True, text=True, check=True)
    files = sorted({line.rstrip(": ") for line in listed.stdout.splitlines()})
    found = [file for file in files if re.search(rf"/({_FAMILIES})[^/]*\.(ttf|otf)$", file)]
    if not found:
        raise SystemExit("no fonts: apt-get install fontconfig fonts-dejavu fonts-liberation")
    return found


@cache
def _vocabulary(half: int) -> list[str]:
    words = Path(__file__).with_name("words.txt").read_text().split()
    return words[half::2]


def _words(rng: np.random.Generator, half: int, length: int) -> str:
    """Words, prices, dates and numbers, of about this many characters."""
    words, vocabulary = [], _vocabulary(half)
    while sum(map(len, words)) + len(words) < length:
        kind = rng.random()
        if kind < 0.75:
            word = vocabulary[int(rng.integers(len(vocabulary)))]
            words.append(word if rng.random() < 0.6 else word.capitalize() if kind < 0.6 else word.upper())
        elif kind < 0.85:
            words.append(f"{rng.integers(1, 1000)}.{rng.integers(0, 100):02}")
        elif kind < 0.92:
            words.append(f"{rng.integers(1, 29):02}/{rng.integers(1, 13):02}/{rng.integers(1990, 2030)}")
        else:
            words.append(str(rng.integers(1, 100_000)))
    return " ".join(words)
