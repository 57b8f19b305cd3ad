"""Every file in examples/ runs, on drawn pictures."""

import importlib.util
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

import dnnjpeg

EXAMPLES = Path(__file__).parents[1] / "examples"
NETWORK = f"{Path(__file__).with_name('readers.py')}:one"

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an example beside photo.png and the folder pictures; what it prints."""
    Image.fromarray(draw(160, 120)).save(tmp_path / "photo.png")
    (tmp_path / "pictures").mkdir()
    for seed in range(12):
        Image.fromarray(draw(64, 48, seed)).save(tmp_path / "pictures" / f"{seed:02}.png")

    def call(name: str, *arguments: str, warnings: str = "error", without: str = "") -> str:
        command = [sys.executable, "-W", warnings, str(EXAMPLES / name), *arguments]
        if without:  # a module of another library that does not load here, and is not needed
            code = (
                "import runpy, sys, types; sys.argv = sys.argv[2:]; "
                f"sys.modules[{without!r}] = types.ModuleType('none'); "
                "runpy.run_path(sys.argv[0], run_name='__main__')"
            )
            command = [sys.executable, "-W", warnings, "-c", code, "", *command[3:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_each_has_a_test() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_pillow(run: Run, tmp_path: Path) -> None:
    assert run("pillow_save.py", "photo.png", "photo.jpg") == "dnnjpeg universal 75\n"
    expected = dnnjpeg.encode(Image.open(tmp_path / "photo.png"), "universal", 75)
    assert (tmp_path / "photo.jpg").read_bytes() == expected


def test_opencv(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'dnnjpeg[opencv]'")
    told = run("opencv_write.py", "photo.png", "photo.jpg")
    image = Image.open(tmp_path / "photo.png")
    assert (tmp_path / "photo.jpg").read_bytes() == dnnjpeg.encode(image, "universal", 75)
    assert told == f"{len(dnnjpeg.encode(image, 'universal', 50)):,} bytes at quality 50\n"


def test_takeover(run: Run, tmp_path: Path) -> None:
    told = run("takeover.py", "photo.png", "photo.jpg")
    assert told == "dnnjpeg universal 75\n1 by dnnjpeg, 0 by Pillow\n"
    expected = dnnjpeg.encode(Image.open(tmp_path / "photo.png"), "universal", 75)
    assert (tmp_path / "photo.jpg").read_bytes() == expected


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    """What the folder pictures becomes."""
    return [dnnjpeg.encode(draw(64, 48, seed), "universal", 75) for seed in range(12)]


def needs(*names: str) -> None:
    """Other libraries, where they are not installed or do not load."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'dnnjpeg[integrations]'")


def test_webdataset(run: Run, tmp_path: Path, files: list[bytes]) -> None:
    needs("webdataset")
    run("webdataset_shards.py", "pictures", "shards", warnings="default")
    found = {}
    for path in sorted((tmp_path / "shards").iterdir()):
        with tarfile.open(path) as shard:
            found |= {name: shard.extractfile(name).read() for name in shard.getnames()}
    assert [found[f"{seed:02}.jpg"] for seed in range(12)] == files
    assert len(found) == 24


def test_hugging_face(run: Run, tmp_path: Path, files: list[bytes]) -> None:
    needs("datasets")
    run("hugging_face_map.py", "pictures", "out.parquet", warnings="default")
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["image"] for row in rows] == [
        {"bytes": data, "path": f"{seed:02}.jpg"} for seed, data in enumerate(files)
    ]


def test_mosaicml(run: Run, tmp_path: Path, files: list[bytes]) -> None:
    needs("streaming", "torchvision")
    run(
        "mosaicml_shards.py",
        "pictures",
        "shards",
        warnings="default",
        without="torchvision._meta_registrations",
    )
    shard = b"".join(path.read_bytes() for path in (tmp_path / "shards").glob("shard.*.mds"))
    assert all(data in shard for data in files)


def test_ray(run: Run, tmp_path: Path, files: list[bytes]) -> None:
    needs("ray", "pyarrow")
    run("ray_batches.py", "pictures", "out", warnings="default")
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out").to_pylist()
    rows.sort(key=lambda row: row["path"])
    assert [row["bytes"] for row in rows] == files


def test_transform(run: Run) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'dnnjpeg[learn]'")
    changes = [float(number) for number in re.findall(r"by (\S+) of", run("train_on_jpeg.py", "photo.png"))]
    assert len(set(changes)) > 1
    assert all(0 < change < 30 for change in changes)


def test_batch(run: Run) -> None:
    count, size = re.fullmatch(r"(\d+) files, (\S+) bytes\n", run("encode_batch.py")).groups()
    batch = np.random.default_rng(0).integers(100, 156, (16, 64, 64, 3), np.uint8)
    assert (int(count), size) == (16, f"{sum(len(dnnjpeg.encode(one, 'universal')) for one in batch):,}")


def test_shards(run: Run, tmp_path: Path) -> None:
    sources = [dnnjpeg.encode(draw(64, 48, seed), quality=95, signature=False) for seed in range(4)]
    (tmp_path / "shards").mkdir()
    for i in range(2):
        with tarfile.open(tmp_path / "shards" / f"{i}.tar", "w") as shard:
            for j in (0, 1):
                info = tarfile.TarInfo(f"{j}.jpg")
                info.size = len(sources[2 * i + j])
                shard.addfile(info, io.BytesIO(sources[2 * i + j]))
    expected = [dnnjpeg.transcode(data, "universal", 75) for data in sources]
    sizes = [sum(map(len, files[:2])) for files in (sources, expected)]
    assert f"0.tar: done, {sizes[0]:,} -> {sizes[1]:,} bytes" in run("shards.py", "shards/*.tar", "out")
    found = []
    for i in range(2):
        with tarfile.open(tmp_path / "out" / f"{i}.tar") as shard:
            found += [shard.extractfile(name).read() for name in shard.getnames()]
    assert found == expected
    assert run("shards.py", "shards/*.tar", "out").count(": before, ") == 2


def test_bytes(run: Run) -> None:
    told = run("encode_bytes.py", "photo.png")
    sizes = [int(size.replace(",", "")) for size in re.findall(r": ([\d,]+) bytes", told)]
    assert sizes == [len(dnnjpeg.encode(draw(160, 120), "universal", q)) for q in (20, 50, 75)]


def test_coefficients(run: Run) -> None:
    told = run("write_coefficients.py", "stripes.jpg")
    decoded, expected = (eval(numbers) for numbers in re.findall(r"\[.*?\]", told))
    assert decoded == expected == [68, 88, 108, 128, 148, 168]


def test_target(run: Run, tmp_path: Path, network: Callable[[str], Any]) -> None:
    told = run("encode_to_target.py", "photo.png", "photo.jpg", NETWORK)
    assert re.fullmatch(r"quality \d+, [\d,]+ bytes\n", told)
    pictures = [np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("photo.png", "photo.jpg")]
    before, after = network("one").read(pictures).argmax(1)
    assert before == after


def test_layer(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'dnnjpeg[learn]'")
    told = run("jpeg_layer.py", "photo.png", "photo.jpg")
    size, difference = re.fullmatch(r"([\d,]+) bytes, .*: (\S+)\n", told).groups()
    assert int(size.replace(",", "")) == (tmp_path / "photo.jpg").stat().st_size
    assert float(difference) <= 2  # the decoder's own rounding


def test_learning(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'dnnjpeg[learn]'")
    told = run("learn_table.py", NETWORK, "pictures", "mine.json")
    points = dnnjpeg.load_table(tmp_path / "mine.json").points
    assert told.count(", 4:2:0: luma steps") == len(points) > 0
