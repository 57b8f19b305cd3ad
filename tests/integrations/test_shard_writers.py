"""Inside the take-over, the libraries' own writers of shards write dnnjpeg's bytes."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skipping import MISSING, MOSAICML, TORCH

import dnnjpeg
from dnnjpeg.plugins import opencv, pillow

# Other libraries leave files open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_webdataset(images: list[Image.Image], tmp_path: Path) -> None:
    """Its writer saves JPEG at quality 100."""
    webdataset = pytest.importorskip("webdataset", reason=f"webdataset {MISSING}")
    with (
        pillow.takeover("universal", 75) as taken,
        webdataset.ShardWriter(str(tmp_path / "%06d.tar"), verbose=0) as writer,
    ):
        for i, image in enumerate(images):
            writer.write({"__key__": f"{i:03}", "jpg": np.asarray(image), "cls": i})
    with tarfile.open(tmp_path / "000000.tar") as shard:
        found = {name: shard.extractfile(name).read() for name in shard.getnames()}
    for i, image in enumerate(images):
        assert found[f"{i:03}.jpg"] == dnnjpeg.encode(image, "universal", 75)
        assert found[f"{i:03}.cls"] == b"%d" % i
    assert (taken.written, taken.refused) == (3, 0)


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets", reason=f"datasets {MISSING}")


def stored(dataset: Any, datasets: Any, tmp_path: Path) -> list[bytes]:
    """The bytes in the Parquet file."""
    parquet = pytest.importorskip("pyarrow.parquet")
    dataset.to_parquet(str(tmp_path / "x.parquet"))
    return [row["image"]["bytes"] for row in parquet.read_table(tmp_path / "x.parquet").to_pylist()]


def test_hugging_face_cast(datasets: Any, sources: list[bytes], tmp_path: Path) -> None:
    """An `Image` feature saves what Pillow opened as JPEG without a quality."""
    opened = [Image.open(io.BytesIO(data)) for data in sources]
    features = datasets.Features({"image": datasets.Image()})
    with pillow.takeover("universal", 60) as taken:
        dataset = datasets.Dataset.from_dict({"image": opened}, features=features)
    expected = [dnnjpeg.encode(image, "universal", 60) for image in opened]
    assert stored(dataset, datasets, tmp_path) == expected
    assert taken.refused == 0


def test_hugging_face_map(datasets: Any, sources: list[bytes], tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"image": [{"bytes": s, "path": None} for s in sources]})
    dataset = dataset.cast(features)
    with pillow.takeover("universal", 60):
        changed = dataset.map(
            lambda row: {"image": row["image"]}, features=features, load_from_cache_file=False
        )
    expected = [dnnjpeg.encode(Image.open(io.BytesIO(data)), "universal", 60) for data in sources]
    assert stored(changed, datasets, tmp_path) == expected


def test_mosaicml(torchvision: Any, images: list[Image.Image], tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason=MOSAICML)
    with (
        pillow.takeover("universal", 60) as taken,
        streaming.MDSWriter(out=str(tmp_path / "mds"), columns={"image": "jpeg"}) as writer,
    ):
        for image in images:
            writer.write({"image": image})
    shard = b"".join(path.read_bytes() for path in sorted((tmp_path / "mds").glob("shard.*.mds")))
    for image in images:
        assert dnnjpeg.encode(image, "universal", 60) in shard
    assert (taken.written, taken.refused) == (3, 0)


def test_litdata(torchvision: Any, images: list[Image.Image]) -> None:
    serializers = pytest.importorskip("litdata.streaming.serializers", reason=f"litdata {TORCH}")
    with pillow.takeover("universal", 60):
        found = [serializers.JPEGSerializer().serialize(image)[0] for image in images]
    assert found == [dnnjpeg.encode(image, "universal", 60) for image in images]


def test_torchvision(torchvision: Any, images: list[Image.Image], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pixels = np.asarray(images[0])
    with pillow.takeover("universal", 60):
        torchvision.utils.save_image(torch.tensor(pixels).permute(2, 0, 1) / 255, tmp_path / "x.jpg")
    assert (tmp_path / "x.jpg").read_bytes() == dnnjpeg.encode(pixels, "universal", 60)


def test_img2dataset_calls_cv2_so(images: list[Image.Image]) -> None:
    """img2dataset does not install beside new versions; its one call of cv2 is this."""
    cv2 = pytest.importorskip("cv2")
    bgr = np.asarray(images[0])[..., ::-1]
    with opencv.takeover("universal", 75):
        data = cv2.imencode(".jpg", bgr, params=[int(cv2.IMWRITE_JPEG_QUALITY), 95])[1].tobytes()
    assert data == dnnjpeg.encode(images[0], "universal", 75)
