"""Measuring: against a plain loop, and what of it is done again."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
from drawing import draw
from PIL import Image

torch = pytest.importorskip("torch")

from dnnjpeg.files.cache import Cache  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.jpeg.inspect import inspect  # noqa: E402
from dnnjpeg.networks.load import Network, load_network  # noqa: E402
from dnnjpeg.networks.measurer import Measured, Measurer, by_name  # noqa: E402
from dnnjpeg.networks.readings import Readings, compare, decode  # noqa: E402

NETWORKS = Path(__file__).parents[1] / "evaluate" / "networks.py"
N, PROBES = 20, 8
SIZES = [(32, 32), (60, 40), (40, 75), (32, 33)]  # width, height


class Counting:
    """Pillow's encoder that counts the pictures it is given, and stops at the `stop`-th."""

    def __init__(self, stop: int | None = None, **options) -> None:
        self.count, self.stop, self.options = 0, stop, options
        self._lock = Lock()

    def __call__(self, picture: np.ndarray) -> bytes:
        with self._lock:
            self.count += 1
            if self.count == self.stop:
                raise KeyboardInterrupt
        file = io.BytesIO()
        Image.fromarray(picture).save(file, **{"format": "JPEG", "quality": 40} | self.options)
        return file.getvalue()


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return {name: load_network(f"{NETWORKS}:{name}") for name in ("one", "two")}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that were asked, in their order."""
    asked, original = [], Network.read

    def counted(network: Network, *arguments, **options):
        asked.append(network.name)
        return original(network, *arguments, **options)

    monkeypatch.setattr(Network, "read", counted)
    return asked


def some(count: int, *sizes: tuple[int, int]) -> Dataset:
    pictures = [draw(*sizes[i % len(sizes)], seed=i) for i in range(count)]
    labels = np.random.default_rng(0).integers(0, 10, count)
    names = tuple(f"{i:03}.png" for i in range(count))
    return Dataset(np.stack(pictures) if len(sizes) == 1 else pictures, labels, names, "drawn")


def errors(originals: list[np.ndarray], decoded: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "worst": np.array([np.abs(a.astype(int) - b).max() for a, b in zip(originals, decoded, strict=True)])
    }


def same(one: Measured, other: Measured) -> bool:
    arrays = [
        [
            m.bytes,
            m.scan_bytes,
            *m.details.values(),
            *(v for r in m.readings.values() for v in r.arrays().values()),
        ]
        for m in (one, other)
    ]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*arrays, strict=True))


def assert_readings(found: Readings, expected: Readings) -> None:
    assert found.arrays().keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("count", "sizes"), [(110, SIZES[:1]), (110, SIZES), (3, SIZES)])
def test_against_a_plain_loop(
    count: int, sizes: list[tuple[int, int]], networks: dict[str, Network], tmp_path: Path
) -> None:
    """Of pictures of several sizes, and of more than are held in memory at a time."""
    dataset = some(count, *sizes)
    write = Counting()
    found = Measurer(dataset, networks, Cache(tmp_path)).measure(write, "x", describe=errors)
    files = [write(picture) for picture in dataset.pictures]
    pictures = [decode(data) for data in files]
    assert found.bytes.tolist() == [len(data) for data in files]
    assert found.scan_bytes.tolist() == [inspect(data).segments["scan"] for data in files]
    assert list(found.details) == ["worst"]
    np.testing.assert_array_equal(found.details["worst"], errors(list(dataset.pictures), pictures)["worst"])
    for key, network in networks.items():
        views = [
            [np.asarray(network.preprocess.view.show(Image.fromarray(one))) for one in shown]
            for shown in (pictures, dataset.pictures)
        ]
        logits, clean = (network.read(np.stack(view)) for view in views)
        assert_readings(found.readings[key], compare(logits, clean, dataset.labels))


def test_the_originals(networks: dict[str, Network]) -> None:
    dataset = some(N, *SIZES)
    measurer = Measurer(dataset, networks)
    for name, read in measurer.originals.items():
        assert read.agrees.all() and not read.divergence.any()
        clean = networks[name].read(dataset.pictures)
        np.testing.assert_allclose(measurer.clean[name], clean, atol=1e-5)
        assert read.top1.tolist() == (clean.argmax(axis=1) == dataset.labels).tolist()


def test_files_that_are_no_jpeg_have_no_scan_bytes(networks: dict[str, Network]) -> None:
    found = Measurer(some(N, *SIZES), networks).measure(Counting(format="PNG"), "png")
    assert found.scan_bytes is None
    assert found.readings["one"].agrees.all()
    np.testing.assert_allclose(found.readings["one"].divergence, 0, atol=1e-6)


def test_nothing_is_done_twice(networks: dict[str, Network], tmp_path: Path, read: list[str]) -> None:
    dataset, write = some(N, *SIZES), Counting()
    first = Measurer(dataset, networks, Cache(tmp_path)).measure(write, "x", describe=errors)
    assert write.count == N and read == ["one", "two"] * 2
    again = Measurer(dataset, networks, Cache(tmp_path)).measure(write, "x", describe=errors)
    assert write.count == N + PROBES and len(read) == 4
    assert same(first, again)


def test_without_a_cache_nothing_is_kept(networks: dict[str, Network], read: list[str]) -> None:
    measurer, write = Measurer(some(N, *SIZES), networks), Counting()
    assert same(measurer.measure(write, "x"), measurer.measure(write, "x"))
    assert write.count == 2 * N and read == ["one", "two"] * 3


def test_each_network_reads_when_it_is_asked(
    networks: dict[str, Network], tmp_path: Path, read: list[str]
) -> None:
    measurer, write = Measurer(some(N, *SIZES), networks, Cache(tmp_path)), Counting()
    read.clear()
    one = measurer.measure(write, "x", ["one"])
    assert list(one.readings) == read == ["one"]
    both = measurer.measure(write, "x", describe=errors)
    assert list(both.readings) == ["one", "two"] and read == ["one", "two"]
    assert_readings(both.readings["one"], one.readings["one"])
    assert same(both, measurer.measure(write, "x", ["one", "two"], errors))
    nobody = measurer.measure(write, "y", [])
    assert nobody.readings == {} and nobody.bytes.tolist() == one.bytes.tolist()
    assert len(read) == 2


def test_what_is_said_of_pictures_is_known_by_the_name_of_what_says_it(
    networks: dict[str, Network], tmp_path: Path, read: list[str]
) -> None:
    def sides(originals: list[np.ndarray], decoded: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"side": np.array([len(one) for one in decoded])}

    dataset = some(N, *SIZES)
    measurer, write = Measurer(dataset, networks, Cache(tmp_path)), Counting()
    first = measurer.measure(write, "x", describe=errors)
    read.clear()
    other = measurer.measure(write, "x", describe=sides)
    assert other.details["side"].tolist() == [len(one) for one in dataset.pictures]
    assert measurer.measure(write, "x").details == {}
    assert same(measurer.measure(write, "x", describe=errors), first)
    assert read == []


def test_an_interrupted_measurement_goes_on(networks: dict[str, Network], tmp_path: Path) -> None:
    dataset = some(N, *SIZES)
    measurer, write = Measurer(dataset, networks, Cache(tmp_path)), Counting(stop=N + 15)
    first = measurer.measure(write, "x")
    with pytest.raises(KeyboardInterrupt):
        measurer.measure(write, "y")
    measurer, write = Measurer(dataset, networks, Cache(tmp_path)), Counting()
    assert same(measurer.measure(write, "x"), first)
    measurer.measure(write, "y")
    assert write.count == PROBES + N


def test_what_changes_is_measured_again(networks: dict[str, Network], tmp_path: Path) -> None:
    dataset, write = some(N, *SIZES), Counting()
    first = Measurer(dataset, {"one": networks["one"]}, Cache(tmp_path)).measure(write, "x")

    def again(data: Dataset, asked: dict[str, Network], other: Callable = write, **options) -> Measured:
        found = Measurer(data, asked, Cache(tmp_path), **options).measure(other, "x")
        assert same(found, Measurer(data, asked, **options).measure(other, "x"))
        return found

    both = again(dataset, networks)
    assert_readings(both.readings["one"], first.readings["one"])
    assert not np.allclose(both.readings["two"].loss, first.readings["one"].loss)
    other_labels = replace(dataset, labels=(dataset.labels + 1) % 10)
    assert not np.allclose(again(other_labels, networks).readings["one"].loss, first.readings["one"].loss)
    bare = again(replace(dataset, labels=None), networks).readings["one"]
    assert bare.metrics == {}
    np.testing.assert_array_equal(bare.divergence, first.readings["one"].divergence)
    flipped = replace(dataset, pictures=[one[::-1] for one in dataset.pictures])
    assert not np.array_equal(again(flipped, networks).bytes, first.bytes)
    turned = replace(dataset, pictures=[one.reshape(one.shape[1], -1, 3) for one in dataset.pictures])
    assert not np.array_equal(again(turned, networks).bytes, first.bytes)  # of the same pixels in a row
    wide = replace(networks["one"], preprocess=replace(networks["one"].preprocess, resize=48))
    assert not np.allclose(again(dataset, {"one": wide}).readings["one"].loss, first.readings["one"].loss)
    halved = again(dataset, networks, autocast=True)
    assert not np.array_equal(halved.readings["one"].divergence, first.readings["one"].divergence)
    changed = again(dataset, networks, Counting(subsampling=0))  # a new version of the encoder
    assert (changed.bytes > first.bytes).all()


def test_damaged_files_are_replaced(networks: dict[str, Network], tmp_path: Path) -> None:
    dataset, write = some(N, *SIZES), Counting()
    first = Measurer(dataset, networks, Cache(tmp_path)).measure(write, "x", describe=errors)
    kept = sorted(tmp_path.iterdir())
    assert (
        len(kept) == 2 + 1 + 2 * 2 + 1
    )  # logits of originals; sizes, readings (also without labels), details
    for path, content in zip(kept, (b"", b"text", kept[2].read_bytes()[:-40], None), strict=False):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    assert same(Measurer(dataset, networks, Cache(tmp_path)).measure(write, "x", describe=errors), first)
    assert sorted(tmp_path.iterdir()) == kept
    for path in kept:
        with np.load(path) as arrays:
            assert dict(arrays)


def test_a_picture_that_is_refused_is_named(networks: dict[str, Network]) -> None:
    dataset = some(N, *SIZES)

    def picky(picture: np.ndarray) -> bytes:
        if np.array_equal(picture, dataset.pictures[11]):
            raise ValueError("too pretty")
        return Counting()(picture)

    with pytest.raises(ValueError, match=r"^011\.png: too pretty$"):
        Measurer(dataset, networks).measure(picky, "picky")


def test_labels_and_logits_that_do_not_go(
    networks: dict[str, Network], network: Callable[[str], Network]
) -> None:
    dataset = some(N, *SIZES[:1])
    with pytest.raises(ValueError, match="check that the labels belong to this network's 10 classes"):
        Measurer(replace(dataset, labels=np.full(N, 10)), networks)
    dataset.pictures[3] = 0
    with pytest.raises(ValueError, match="no_black returns NaN or infinity for picture 3"):
        Measurer(dataset, {"no_black": network("no_black")})


def test_names_of_networks(networks: dict[str, Network]) -> None:
    """By what tells them apart: the name, the spec, the weights."""
    one, two = networks.values()
    elsewhere = replace(one, spec="elsewhere.py:one")
    finetuned = replace(one, digest="0123456789abcdef")
    assert by_name([one, two]) == {"one": one, "two": two}
    assert by_name([one, two, elsewhere]) == {one.spec: one, "two": two, "elsewhere.py:one": elsewhere}
    assert by_name([one, two, finetuned]) == {
        f"{one.spec} {one.digest}": one,
        "two": two,
        f"{one.spec} 0123456789abcdef": finetuned,
    }
