"""The gallery shows what it says: Pillow's file of no more bytes, and its smallest that is read as well."""

import io
import re
from pathlib import Path

import pytest
from drawing import draw
from PIL import Image

import dnnjpeg


def test_a_picture_of_the_users_own(run, tmp_path) -> None:
    pytest.importorskip("torch")
    picture = Image.fromarray(draw(160, 120))
    picture.save(tmp_path / "mine.png")
    network = f"{Path(__file__).with_name('zoo.py')}:resnet18"
    page = run("gallery.py", tmp_path / "mine.png", "--network", network, "-o", tmp_path / "page").strip()
    text = Path(page).read_text()

    def pillow(quality: int) -> int:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        return len(file.getvalue())

    sizes = [int(n.replace(",", "")) for n in re.search(r"\| bytes \|(.*)", text)[1].split("|")[1:-1]]
    lost = [float(n) for n in re.search(r"\| divergence, nat \|(.*)", text)[1].split("|")[:-1]]
    equal_bytes, equal_reading = map(int, re.findall(r"\| Pillow, quality (\d+): ", text))
    assert sizes == [
        len(dnnjpeg.encode(picture, "universal", 30)),
        pillow(equal_bytes),
        pillow(equal_reading),
    ]
    assert sizes[1] <= sizes[0] < pillow(equal_bytes + 1)
    assert lost[0] == 0 < lost[1]
    assert lost[3] <= lost[1]
    images = re.findall(r"\((assets/gallery/mine-\w+\.png)\)", text)
    assert len(images) == 4
    for name in images:
        with Image.open(Path(page).parent / name) as image:
            assert image.size == (144, 144)
