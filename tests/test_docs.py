"""What README.md and the site say is true: examples run in their order, figures and plots are those of the
benchmarks, links lead somewhere. `.ci/run` carries the README's commands out and builds the site.

Blocks of `sh` and `python` are run; `bash` marks commands that need what a test does not have.
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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {
    str(page.relative_to(ROOT)): re.findall(
        r"^```(sh|python)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE
    )
    for page in PAGES
}
INSTALLS = [code for _, code in BLOCKS["README.md"] if code.startswith("pip install")]


def test_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_two_commands_install() -> None:
    """`.ci/run` carries them out."""
    assert INSTALLS == ["pip install .\ndnnjpeg demo\n", "pip install -e '.[all]'\npytest\n"]


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_examples(page: str, photo: Image.Image, tmp_path: Path) -> None:
    if any("torch" in code or "JPEGLayer" in code for _, code in BLOCKS[page]):
        pytest.importorskip("torch")
    photos = tmp_path / "photos" / "below"
    photos.mkdir(parents=True)
    photo.save(tmp_path / "photo.png")
    photo.save(photos / "one.jpg", quality=98)
    demo = tmp_path / "demo" / "pictures"  # as `dnnjpeg demo` draws them
    demo.mkdir(parents=True)
    photo.save(demo / "00.png")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, code in BLOCKS[page]:
        if "pip install" not in code:
            run = ["bash", "-euc"] if language == "sh" else [sys.executable, "-W", "error", "-c"]
            done = subprocess.run(
                [*run, code], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{code}\n{done.stderr}"

    for written in tmp_path.rglob("*.jpg"):
        with Image.open(written) as image:
            image.load()
            assert image.format == "JPEG"
            assert image.size in (photo.size, (24, 16))
    if (tmp_path / "flat.json").exists():
        assert load_table(tmp_path / "flat.json").at(60).luma == (20,) * 64


SHOWN = {
    "README.md": [
        ("ruler.py", "--show", "--at", "50"),
        ("ruler.py", "--show", "--at", "50", "--name", "ruler_read"),
        ("encode.py", "--summary"),
    ],
    "docs/results/tables.md": [
        ("ruler.py", "--show"),
        ("ruler.py", "--show", "--name", "ruler_crops"),
        ("ruler.py", "--show", "--name", "ruler_slopes"),
        ("ruler.py", "--show", "--by-network", "--name", "ruler_bound"),
        ("ruler.py", "--show", "--name", "ruler_read"),
        ("ruler.py", "--show", "--name", "ruler_j4d"),
        ("cifar.py",),
    ],
    "docs/results/networks.md": [
        ("ruler.py", "--show", "--by-network"),
        ("ruler.py", "--show", "--by-network", "--name", "ruler_left_out"),
        ("ruler.py", "--show", "--name", "ruler_left_out"),
        ("ruler.py", "--show", "--by-network", "--name", "ruler_crops"),
    ],
    "docs/results/targets.md": [
        ("target.py", "--show", "--name", "target_top1"),
        ("target.py", "--show", "--name", "target_pruned"),
        ("target.py", "--show", "--name", "target_price"),
        ("target.py", "--show", "--name", "target_price_together"),
        ("target.py", "--show", "--name", "target_quality"),
    ],
    "docs/results/training.md": [
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_20"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_20_two"),
        ("jpegdl.py", "show", "--name", "jpegdl_ten"),
        ("jpegdl.py", "show", "--name", "jpegdl_ten_earlier"),
        ("finetune.py", "show"),
    ],
    "docs/results/training-controls.md": [
        ("jpegdl.py", "show"),
        ("jpegdl.py", "show", "--name", "jpegdl_120"),
        ("jpegdl.py", "show", "--name", "jpegdl_120_again"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_60"),
        ("jpegdl.py", "show", "--name", "jpegdl_cifar_60_close"),
        ("jpegdl.py", "show", "--name", "jpegdl_flowers_close"),
    ],
    "docs/results/sparse.md": [("sparse.py", "show")],
    "docs/results/speed.md": [
        ("encode.py", "--show"),
        ("encode.py", "--show", "--name", "encode-xeon"),
        ("encode.py", "--show", "--name", "encode-xeon-avx2"),
        ("encode.py", "--show", "--name", "encode-znver3"),
        ("tables.py", "startup"),
        ("tables.py", "memory"),
    ],
    "docs/internals/kernels.md": [("stages.py", "--show")],
    "docs/results/tasks.md": [("text.py", "show"), ("retrieval.py", "show")],
    "docs/results/rate.md": [("tables.py", "rate")],
    "docs/guides/transcode.md": [
        ("tables.py", "transcode_speed"),
        ("tables.py", "transcode_speed-xeon"),
        ("tables.py", "transcode_folder"),
    ],
    "docs/guides/cluster.md": [("tables.py", name) for name in ("cluster", "cores", "requests", "plan")],
}


@pytest.mark.parametrize(("page", "show"), [(page, show) for page, shown in SHOWN.items() for show in shown])
def test_figures_are_what_was_measured(page: str, show: tuple[str, ...]) -> None:
    script, *options = show
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    text = (ROOT / page).read_text()
    assert table
    assert all(part in text for part in table.split("\n\n"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_it_names_are_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|srcset=\"([^\"]+)\"|img src=\"([^\"]+)\"", text):
        (name,) = filter(None, target)
        if not name.startswith("http"):
            assert (page.parent / name).exists(), name
    for name in re.findall(r"`((?:python )?benchmarks/[\w/.-]+)", text):
        assert (ROOT / name.removeprefix("python ").rstrip(".")).exists(), name


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def test_plots_are_drawn_from_the_results(tmp_path: Path) -> None:
    """All numbers of the drawings agree to a tenth of a point."""
    matplotlib = pytest.importorskip("matplotlib")
    for script in ("plots.py", "drawings.py"):
        command = [sys.executable, str(ROOT / "benchmarks" / script), "-o", str(tmp_path)]
        subprocess.run(command, capture_output=True, check=True)
    drawn = sorted(tmp_path.glob("*.svg"))
    assets = ROOT / "docs" / "assets"
    assert [path.name for path in drawn] == [path.name for path in sorted(assets.glob("*-*.svg"))]
    for path in drawn:
        one, other = (file.read_text() for file in (path, assets / path.name))
        if f"Matplotlib v{matplotlib.__version__}" not in other:
            pytest.skip(f"{path.name} was drawn by another version of matplotlib")
        one, other = (re.sub(r"[a-z]?[0-9a-f]{10,}", "", text) for text in (one, other))  # names of parts
        assert NUMBER.sub("0", one) == NUMBER.sub("0", other)
        found, expected = (list(map(float, NUMBER.findall(text))) for text in (one, other))
        assert found == pytest.approx(expected, abs=0.1)
