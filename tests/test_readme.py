"""What README.md says is true: its examples run in their order, its figures are those of the benchmarks.
So are those of the page that it hands on to.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dnnjpeg import load_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
INSTALLS = [code for _, code in BLOCKS if code.startswith("python3 -m venv")]


def test_two_commands_install() -> None:
    """`.ci/run` carries them out."""
    assert len(INSTALLS) == 2
    assert all(code.count("\n") == 1 for code in INSTALLS)


def test_examples(photo: Image.Image, tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "below"
    photos.mkdir(parents=True)
    photo.save(tmp_path / "photo.png")
    photo.save(photos / "one.jpg", quality=98)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, code in BLOCKS:
        if code not in INSTALLS:
            run = ["bash", "-euc"] if language == "sh" else [sys.executable, "-W", "error", "-c"]
            done = subprocess.run(
                [*run, code], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{code}\n{done.stderr}"

    written = ["photo.jpg", "sampled.jpg", "out/below/one.jpg", "flat/below/one.jpg", "photos/below/one.jpg"]
    for name in written:
        with Image.open(tmp_path / name) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", photo.size)
    assert load_table(tmp_path / "flat.json").at(60).luma == (20,) * 64
    assert (tmp_path / "flat.txt").read_text().count("20 20 20 20 20 20 20 20") == 8


SHOWN = {
    "README.md": [
        ("encode.py", "--show"),
        ("ruler.py", "--show"),
        ("ruler.py", "--show", "--name", "ruler_crops"),
        ("cifar.py",),
        ("sparse.py", "show"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_20"),
        ("jpegdl.py", "show", "--name", "jpegdl_ten"),
        ("finetune.py", "show"),
        ("target.py", "--show", "--name", "target_650"),
        ("target.py", "--show", "--name", "target_price"),
        ("target.py", "--show", "--name", "target_price_together"),
        ("target.py", "--show", "--name", "target_price_left_out"),
        ("target.py", "--show", "--name", "target_quality"),
        ("target.py", "--show", "--name", "target_quality_standard"),
    ],
    "benchmarks/ruler.md": [
        ("ruler.py", "--show", "--by-network"),
        ("ruler.py", "--show", "--by-network", "--name", "ruler_left_out"),
        ("ruler.py", "--show", "--by-network", "--name", "ruler_crops"),
    ],
    "benchmarks/jpegdl.md": [
        ("jpegdl.py", "show"),
        ("jpegdl.py", "show", "--name", "jpegdl_120"),
        ("jpegdl.py", "show", "--name", "jpegdl_120_again"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_60"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_60_close"),
        ("jpegdl.py", "show", "--name", "jpegdl_flowers_close"),
    ],
}


@pytest.mark.parametrize(("page", "show"), [(page, show) for page, shown in SHOWN.items() for show in shown])
def test_figures_are_what_was_measured(page: str, show: tuple[str, ...]) -> None:
    script, *options = show
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    text = (ROOT / page).read_text()
    assert all(part in text for part in table.split("\n\n"))


@pytest.mark.parametrize("page", SHOWN)
def test_files_that_it_links_to_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).is_file(), target
