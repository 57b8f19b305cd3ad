"""Measuring: against a plain loop, and what of it is done again."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.dataset import Dataset
from dnnjpeg.evaluate.codecs import Codec, load_codec
from dnnjpeg.evaluate.measure import Bench, Measurement
from dnnjpeg.inspection import inspect
from dnnjpeg.models import Network, load_network
from dnnjpeg.readings import Readings, compare, decode

NETWORKS = Path(__file__).with_name("networks.py")
N, PROBES = 20, 8


class Counting:
    """Pillow's codec that counts the pictures it is given, and stops at the `stop`-th."""

    def __init__(self, stop: int | None = None, **options) -> None:
        self.count, self.stop, self.options = 0, stop, options

    def __call__(self, picture: np.ndarray, quality: float) -> bytes:
        self.count += 1
        if self.count == self.stop:
            raise KeyboardInterrupt
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(quality), **self.options)
        return file.getvalue()


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {name: load_network(f"{NETWORKS}:{name}") for name in ("one", "two")}


def same(one: Measurement, other: Measurement) -> bool:
    arrays = [
        [m.bytes, m.scan_bytes, m.psnr, *(v for r in m.readings.values() for v in vars(r).values())]
        for m in (one, other)
    ]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*arrays, strict=True))


def assert_readings(found: Readings, expected: Readings) -> None:
    for name, values in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["pillow-optimize", "webp", "dnnjpeg:standard"])
def test_against_a_plain_loop(
    name: str, dataset: Dataset, networks: dict[str, Network], tmp_path: Path
) -> None:
    codec = load_codec(name)
    found = Bench(dataset, networks, tmp_path).measure(codec, 30)
    files = [codec.encode(picture, 30) for picture in dataset.pictures]
    pictures = np.stack([decode(data) for data in files])
    assert (found.codec, found.quality) == (name, 30)
    assert found.bytes.tolist() == [len(data) for data in files]
    if name == "webp":
        assert found.scan_bytes is None
    else:
        assert found.scan_bytes.tolist() == [inspect(data).segments["scan"] for data in files]
    errors = (pictures.astype(float) - dataset.pictures) ** 2
    np.testing.assert_allclose(found.psnr, 10 * np.log10(255**2 / errors.mean(axis=(1, 2, 3))), rtol=1e-5)
    for key, network in networks.items():
        logits, clean = network.read(pictures), network.read(dataset.pictures)
        assert_readings(found.readings[key], compare(logits, clean, dataset.labels))


def test_the_originals(dataset: Dataset, networks: dict[str, Network], tmp_path: Path) -> None:
    bench = Bench(dataset, networks, tmp_path)
    assert bench.classes == {"one": 10, "two": 10}
    for name, read in bench.clean.items():
        assert read.agrees.all() and not read.divergence.any()
        clean = networks[name].read(dataset.pictures)
        assert read.top1.tolist() == (clean.argmax(axis=1) == dataset.labels).tolist()


def test_a_picture_that_comes_back_as_it_was_has_100_db(
    dataset: Dataset, networks: dict[str, Network], tmp_path: Path
) -> None:
    def lossless(picture: np.ndarray, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    found = Bench(dataset, networks, tmp_path).measure(Codec("png", lossless), 1)
    assert (found.psnr == 100).all()
    assert found.readings["one"].agrees.all()
    np.testing.assert_allclose(found.readings["one"].divergence, 0, atol=1e-6)


def test_nothing_is_done_twice(dataset: Dataset, networks: dict[str, Network], tmp_path: Path) -> None:
    encode = Counting()
    first = Bench(dataset, networks, tmp_path).measure(Codec("x", encode), 40)
    assert encode.count == N
    again = Bench(dataset, networks, tmp_path).measure(Codec("x", encode), 40)
    assert encode.count == N + PROBES
    assert same(first, again)


def test_an_interrupted_measurement_goes_on(
    dataset: Dataset, networks: dict[str, Network], tmp_path: Path
) -> None:
    bench = Bench(dataset, networks, tmp_path)
    encode = Counting(stop=N + 15)
    first = bench.measure(Codec("x", encode), 40)
    with pytest.raises(KeyboardInterrupt):
        bench.measure(Codec("x", encode), 50)
    encode = Counting()
    bench = Bench(dataset, networks, tmp_path)
    assert same(bench.measure(Codec("x", encode), 40), first)
    bench.measure(Codec("x", encode), 50)
    assert encode.count == PROBES + N


def test_what_changes_is_measured_again(
    dataset: Dataset, networks: dict[str, Network], tmp_path: Path
) -> None:
    codec = Codec("x", Counting())
    first = Bench(dataset, {"one": networks["one"]}, tmp_path).measure(codec, 40)

    def again(data: Dataset, some: dict[str, Network], other: Codec = codec) -> Measurement:
        found = Bench(data, some, tmp_path).measure(other, 40)
        assert same(found, Bench(data, some, tmp_path / "fresh").measure(other, 40))
        return found

    both = again(dataset, networks)
    assert_readings(both.readings["one"], first.readings["one"])
    assert not np.allclose(both.readings["two"].loss, first.readings["one"].loss)
    other_labels = replace(dataset, labels=(dataset.labels + 1) % 10)
    assert not np.allclose(again(other_labels, networks).readings["one"].loss, first.readings["one"].loss)
    bare = again(replace(dataset, labels=None), networks).readings["one"]
    assert np.isnan(bare.loss).all()
    np.testing.assert_array_equal(bare.divergence, first.readings["one"].divergence)
    flipped = replace(dataset, pictures=np.ascontiguousarray(dataset.pictures[:, ::-1]))
    assert not np.array_equal(again(flipped, networks).bytes, first.bytes)
    changed = again(dataset, networks, Codec("x", Counting(subsampling=0)))  # a new version of the codec
    assert (changed.bytes > first.bytes).all()


def test_damaged_files_are_replaced(dataset: Dataset, networks: dict[str, Network], tmp_path: Path) -> None:
    codec = Codec("x", Counting())
    first = Bench(dataset, networks, tmp_path).measure(codec, 40)
    kept = sorted(tmp_path.iterdir())
    for path, content in zip(kept, (b"", b"text", kept[2].read_bytes()[:-40], None), strict=False):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    assert same(Bench(dataset, networks, tmp_path).measure(codec, 40), first)
    assert sorted(tmp_path.iterdir()) == kept
    for path in kept:
        with np.load(path) as arrays:
            assert dict(arrays)


def test_what_a_codec_may_not_do(dataset: Dataset, networks: dict[str, Network], tmp_path: Path) -> None:
    bench = Bench(dataset, networks, tmp_path)
    crops = Codec("crops", lambda picture, quality: Counting()(picture[1:], quality))
    with pytest.raises(ValueError, match=r"00\.png: crops makes \(31, 32, 3\) of \(32, 32, 3\)"):
        bench.measure(crops, 40)

    def refuses(picture: np.ndarray, quality: float) -> bytes:
        if np.array_equal(picture, dataset.pictures[11]):
            raise ValueError("too pretty")
        return Counting()(picture, quality)

    with pytest.raises(ValueError, match=r"11\.png: picky at quality 40: too pretty"):
        bench.measure(Codec("picky", refuses), 40)
    with pytest.raises(ValueError, match="labels are not those of this network's 10 classes"):
        Bench(replace(dataset, labels=np.full(N, 10)), networks, tmp_path)
