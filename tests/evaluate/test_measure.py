"""One codec at one quality; and that evaluating does not read again what learning has read."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.evaluate.measure import measure
from dnnjpeg.files.cache import Cache
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.learn.objective import Objective
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.measurer import Measurer
from dnnjpeg.networks.readings import compare, decode
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.table import Table

NETWORKS = Path(__file__).with_name("networks.py")


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {name: load_network(f"{NETWORKS}:{name}") for name in ("one", "two")}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The networks that were asked, in their order."""
    asked, original = [], Network.read
    monkeypatch.setattr(
        Network,
        "read",
        lambda network, *arguments: asked.append(network.name) or original(network, *arguments),
    )
    return asked


@pytest.mark.parametrize("name", ["pillow-optimize", "webp", "dnnjpeg:standard"])
def test_codec_and_quality(name: str, dataset: Dataset, networks: dict[str, Network]) -> None:
    codec = load_codec(name)
    found = measure(Measurer(dataset, networks), codec, 30, ["two"])
    files = [codec.encode(picture, 30) for picture in dataset.pictures]
    pictures = np.stack([decode(data) for data in files])
    assert (found.codec, found.quality) == (name, 30)
    assert found.bytes.tolist() == [len(data) for data in files]
    assert (found.scan_bytes is None) == (name == "webp")
    errors = (pictures.astype(float) - dataset.pictures) ** 2
    np.testing.assert_allclose(found.psnr, 10 * np.log10(255**2 / errors.mean(axis=(1, 2, 3))), rtol=1e-5)
    assert list(found.readings) == ["two"]
    expected = compare(*(networks["two"].read(one) for one in (pictures, dataset.pictures)), dataset.labels)
    np.testing.assert_allclose(found.readings["two"].divergence, expected.divergence, atol=1e-5)


def test_a_picture_that_comes_back_as_it_was_has_100_db(
    dataset: Dataset, networks: dict[str, Network]
) -> None:
    def lossless(picture: np.ndarray, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    found = measure(Measurer(dataset, networks), Codec("png", lossless), 1)
    assert (found.psnr == 100).all()
    assert found.readings["one"].agrees.all()


def test_a_codec_may_reduce_pictures(dataset: Dataset, networks: dict[str, Network]) -> None:
    """A file of another size has no PSNR; the network takes it as it takes any picture."""
    large = replace(
        dataset,
        pictures=[one if i % 2 else np.tile(one, (2, 2, 1)) for i, one in enumerate(dataset.pictures)],
    )
    codec = load_codec("pillow,reduce=32")
    found = measure(Measurer(large, networks), codec, 50)
    plain = measure(Measurer(large, networks), load_codec("pillow"), 50)
    assert np.isnan(found.psnr[::2]).all()
    np.testing.assert_array_equal(found.psnr[1::2], plain.psnr[1::2])
    assert (found.bytes[::2] < plain.bytes[::2]).all()
    shown = [decode(codec.encode(picture, 50)) for picture in large.pictures]
    assert {picture.shape for picture in shown} == {(32, 32, 3)}
    one = networks["one"]
    expected = compare(one.read(np.stack(shown)), one.read(large.pictures), large.labels)
    np.testing.assert_allclose(found.readings["one"].divergence, expected.divergence, atol=1e-5)


def test_a_picture_that_is_refused_is_named(dataset: Dataset, networks: dict[str, Network]) -> None:
    with pytest.raises(ValueError, match=r"^00\.png: pillow at quality 50\.5: takes whole qualities only$"):
        measure(Measurer(dataset, networks), load_codec("pillow"), 50.5)


@pytest.mark.parametrize("loss", ["divergence", "cross-entropy"])
def test_what_learning_has_read_is_not_read_again(
    loss: str, dataset: Dataset, networks: dict[str, Network], tmp_path: Path, read: list[str]
) -> None:
    one = networks["one"]
    labelled = replace(dataset, labels=one.read(dataset.pictures).argmax(axis=1))
    standard = standard_table()
    table = Table("mine", tuple(replace(point, subsampling="4:4:4") for point in standard.points))
    table.save(tmp_path / "mine.json")
    codec, cache = load_codec(f"dnnjpeg:{tmp_path / 'mine.json'}"), Cache(tmp_path / "cache")
    read.clear()
    learned = Objective([one], labelled, loss, cache=cache).measure(table.at(40))
    assert read == ["one"] * 2  # the originals, the files
    found = measure(Measurer(labelled, {"any": one}, cache), codec, 40)
    assert len(read) == 2
    assert found.bytes.tolist() == learned.bytes.tolist()
    clean = (
        0 if loss == "divergence" else Measurer(labelled, {"any": one}, cache).originals["any"].loss.mean()
    )
    values = found.readings["any"].divergence if loss == "divergence" else found.readings["any"].loss
    np.testing.assert_allclose(learned.loss, values - clean)
    measure(Measurer(labelled, networks, cache), codec, 41)
    assert read[2:] == ["two", "one", "two"]  # the originals; a setting that is new
    Objective([one], labelled, loss, cache=cache).measure(table.at(41))
    assert len(read) == 5
