"""plugins/datasets.py inside the libraries that it is made for."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skipping import MISSING, MOSAICML

import dnnjpeg
from dnnjpeg.plugins.datasets import hf_encode, mds_jpeg, ray_encode, webdataset_encoder

# Other libraries leave files open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_webdataset(images: list[Image.Image], sources: list[bytes], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason=f"webdataset {MISSING}")
    encoder = pickle.loads(pickle.dumps(webdataset_encoder("universal", 60)))
    with webdataset.ShardWriter(str(tmp_path / "%06d.tar"), encoder=encoder, verbose=0) as writer:
        for i, (image, source) in enumerate(zip(images, sources, strict=True)):
            sample = {"jpg": image, "left.jpeg": np.asarray(image), "source.jpg": source, "json": {"n": i}}
            writer.write({"__key__": f"{i:03}", "cls": i, **sample})
    found = {}
    for sample in webdataset.WebDataset(str(tmp_path / "000000.tar"), shardshuffle=False):
        found[sample["__key__"]] = sample
    assert list(found) == ["000", "001", "002"]
    for i, (image, source) in enumerate(zip(images, sources, strict=True)):
        sample = found[f"{i:03}"]
        assert sample["jpg"] == sample["left.jpeg"] == dnnjpeg.encode(image, "universal", 60)
        assert sample["source.jpg"] == dnnjpeg.transcode(source, "universal", 60)
        assert (sample["json"], sample["cls"]) == (b'{"n": %d}' % i, b"%d" % i)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("num_proc", [None, 2])
def test_hugging_face(
    decode: bool, num_proc: int | None, images: list[Image.Image], sources: list[bytes], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason=f"datasets {MISSING}")
    rows = [{"bytes": sources[0], "path": "a/x.JPG"}, {"bytes": png(images[1]), "path": "y.png"}, None]
    features = datasets.Features({"image": datasets.Image(decode=decode), "label": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict({"image": rows, "label": [1, 2, 3]}, features=features)
    changed = dataset.map(
        hf_encode("universal", 60), batched=True, batch_size=2, features=features, num_proc=num_proc,
        load_from_cache_file=False,
    )  # fmt: skip
    changed.to_parquet(str(tmp_path / "x.parquet"))
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["label"] for row in table] == [1, 2, 3]
    first, second, third = (row["image"] for row in table)
    jpeg = Image.open(io.BytesIO(sources[0]))
    assert first["bytes"] == (
        dnnjpeg.encode(jpeg, "universal", 60) if decode else dnnjpeg.transcode(sources[0], "universal", 60)
    )
    assert second["bytes"] == dnnjpeg.encode(images[1], "universal", 60)
    assert third is None
    if not decode:
        assert (first["path"], second["path"]) == ("x.JPG", "y.jpg")


def test_hugging_face_reads_files_that_are_named(images: list[Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    images[0].save(path)
    (row,) = hf_encode("universal", 60, column="photo")({"photo": [{"path": str(path), "bytes": None}]})[
        "photo"
    ]
    assert row == {"path": "x.jpg", "bytes": dnnjpeg.encode(images[0], "universal", 60)}
    with pytest.raises(KeyError, match=r"'photo'.*it has 'image'"):
        hf_encode(column="photo")({"image": []})


def test_mosaicml(torchvision: Any, images: list[Image.Image], sources: list[bytes], tmp_path: Path) -> None:
    streaming = pytest.importorskip("streaming", reason=MOSAICML)
    (tmp_path / "x.jpg").write_bytes(sources[0])
    with (
        mds_jpeg("universal", 60),
        streaming.MDSWriter(out=str(tmp_path / "mds"), columns={"image": "jpeg"}) as writer,
    ):
        writer.write({"image": Image.open(tmp_path / "x.jpg")})
        for image in images[1:]:
            writer.write({"image": image})
    shard = b"".join(path.read_bytes() for path in sorted((tmp_path / "mds").glob("shard.*.mds")))
    assert dnnjpeg.transcode(sources[0], "universal", 60) in shard
    for image in images[1:]:
        assert dnnjpeg.encode(image, "universal", 60) in shard
    read = streaming.LocalDataset(str(tmp_path / "mds"))  # by MosaicML's own decoder
    assert [row["image"].size for row in (read[i] for i in range(3))] == [(64, 48)] * 3


def test_pictures_in_archives(sources: list[bytes], tmp_path: Path) -> None:
    """Their paths are read as the library reads them."""
    datasets = pytest.importorskip("datasets", reason=f"datasets {MISSING}")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("0.jpg", sources[0])
    path = f"zip://0.jpg::{tmp_path / 'z.zip'}"
    features = datasets.Features({"image": datasets.Image(decode=False)})
    dataset = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path}]}, features=features)
    changed = dataset.map(hf_encode("universal", 60), batched=True, features=features)
    assert changed[0]["image"] == {"bytes": dnnjpeg.transcode(sources[0], "universal", 60), "path": "0.jpg"}


def test_a_changed_table_is_another_function(tmp_path: Path) -> None:
    """Libraries keep what a function made, by a digest of its pickle."""
    pickles = []
    for name in ("universal", "universal", "standard"):
        dnnjpeg.load_table(name).save(tmp_path / "own.json")
        pickles.append(pickle.dumps(hf_encode(str(tmp_path / "own.json"), 60)))
    assert pickles[0] == pickles[1] != pickles[2]


def test_ray_batches(images: list[Image.Image], sources: list[bytes]) -> None:
    """What Ray Data hands to a function, without Ray."""
    encoder = pickle.loads(pickle.dumps(ray_encode("universal", 60)))
    pixels = np.stack([np.asarray(image) for image in images])
    found = encoder({"image": pixels, "label": np.arange(3)})
    assert found.keys() == {"bytes", "label"}
    assert list(found["bytes"]) == [dnnjpeg.encode(image, "universal", 60) for image in images]
    files = np.empty(3, object)
    files[:2] = sources[:2]
    found = ray_encode("universal", 60, column="bytes")({"bytes": files})
    assert list(found["bytes"][:2]) == [dnnjpeg.transcode(data, "universal", 60) for data in sources[:2]]
    assert found["bytes"][2] is None
    files[2] = np.float32("nan")  # what Ray may make of None
    assert ray_encode("universal", 60, column="bytes")({"bytes": files})["bytes"][2] is None
    with pytest.raises(KeyError, match="it has 'label'"):
        encoder({"label": np.arange(3)})
    with pytest.raises(ValueError, match="has a column 'bytes' already"):
        encoder({"image": pixels, "bytes": np.arange(3)})
