"""Data sets: the rule of size against its closed form, labels against what was written, and bad folders."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawing import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dnnjpeg.files.dataset import Dataset, load_dataset


def fill(folder: Path, names: Sequence[str], size: tuple[int, int] = (9, 9)) -> Path:
    """A picture of its own for each name."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(*size, seed=i)).save(path, "PNG")
    return folder


def write_labels(
    path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("file", "label")
) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    path.write_text(text.getvalue(), "utf-8")
    return path


def save(path: Path, array: object) -> Path:
    np.save(path, array)
    return path


# The rule of size


@settings(max_examples=60)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 40))
def test_the_centre_of_a_slope(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, size: int
) -> None:
    """Resampling keeps a slope a slope, so each pixel tells where in the picture it was taken."""
    x, y = np.arange(width), np.arange(height)
    slope = np.zeros((height, width, 3), np.uint8)
    slope[..., 0], slope[..., 1] = 20 + 2 * x, 20 + 2 * y[:, None]
    file = save(tmp_path_factory.getbasetemp() / "slope.npy", slope[None])
    (square,) = load_dataset(file, size=size).pictures
    short, most = min(width, height), round(size * 8 / 7)
    pitch = short / (size if short < size else min(short, most))  # of the output's pixels, in the input's
    edge = int(np.ceil(2 * max(1, 1 / pitch))) + 1  # the kernel reaches over the border
    inside = slice(edge, size - edge)
    at = (np.arange(size) - (size - 1) / 2) * pitch  # from the centre
    floor = 0.5 if short <= most and short >= size else 0.0  # whole pixels are cut out
    for channel, length in ((0, width), (1, height)):
        expected = 20 + 2 * (at + (length - 1) / 2 - (floor if (length - size) % 2 else 0))
        row = square[size // 2, :, 0] if channel == 0 else square[:, size // 2, 1]
        np.testing.assert_allclose(row[inside], expected[inside], atol=1.01)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (37, 40), (33, 300), (32, 35)])
def test_a_picture_of_about_the_size_is_cut_and_not_resampled(
    tmp_path: Path, width: int, height: int
) -> None:
    picture = draw(width, height)
    file = save(tmp_path / "p.npy", picture[None])
    left, top = (width - 32) // 2, (height - 32) // 2
    np.testing.assert_array_equal(
        load_dataset(file, size=32).pictures[0], picture[top : top + 32, left : left + 32]
    )


def test_a_larger_one_is_reduced_first_as_pillow_does(tmp_path: Path) -> None:
    """512 pixels to 256 and cut, the usual way: an even pitch, so no half pixel between the two."""
    Image.fromarray(picture := draw(600, 512)).save(tmp_path / "p.png")
    usual = Image.fromarray(picture).resize((300, 256), Image.Resampling.BICUBIC).crop((38, 16, 262, 240))
    np.testing.assert_array_equal(load_dataset(tmp_path, size=224).pictures[0], np.asarray(usual))


def test_a_long_narrow_picture_costs_no_memory(tmp_path: Path) -> None:
    Image.new("RGB", (1, 60000), (9, 8, 7)).save(tmp_path / "p.png")
    assert (load_dataset(tmp_path, size=224).pictures == (9, 8, 7)).all()


# Folders


def test_pictures_are_upright_rgb(tmp_path: Path) -> None:
    turned = draw(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(turned).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(grey := draw(10, 10)[..., 0]).save(tmp_path / "b.png")
    Image.new("CMYK", (10, 10), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    pictures = load_dataset(tmp_path, size=10).pictures
    np.testing.assert_array_equal(pictures[0], np.rot90(turned, -1)[5:15])
    np.testing.assert_array_equal(pictures[1], np.repeat(grey[..., None], 3, axis=2))
    assert (pictures[2] == (255, 0, 0)).all()


@settings(max_examples=15)
@given(
    st.dictionaries(
        st.text("aé ,'\"", min_size=1, max_size=4), st.integers(0, 10**18 - 1), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_labels_follow_their_pictures(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, int], random: object
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    fill(folder / "p", [f"{name}.png" for name in labels])
    rows = [(f"./{name}.png", label, "more") for name, label in labels.items()]
    random.shuffle(rows)
    file = write_labels(folder / "l.csv", rows, ("file", "label", "split"))
    dataset = load_dataset(folder / "p", file, size=9)
    assert list(dataset.names) == sorted(f"{name}.png" for name in labels)
    assert dataset.labels is not None and dataset.labels.dtype == np.int64
    assert dict(zip(dataset.names, dataset.labels.tolist(), strict=True)) == {
        f"{name}.png": label for name, label in labels.items()
    }
    for name, picture in zip(dataset.names, dataset.pictures, strict=True):
        np.testing.assert_array_equal(picture, np.asarray(Image.open(folder / "p" / name)))


def test_subfolders_are_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["b/1.png", "a/1.png", "d/x.png", "a/2.png"])
    (tmp_path / "c").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").write_text("about these")
    dataset = load_dataset(tmp_path, size=9)
    assert dataset.names == ("a/1.png", "a/2.png", "b/1.png", "d/x.png")
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 0, 1, 3]
    assert dataset.source == str(tmp_path)


@pytest.mark.parametrize(
    "names",
    [["a.png", "b.png"], ["a/1.png", "b/1.png", "c.png"], ["a/1.png"], ["train/a/1.png", "val/a/1.png"]],
)
def test_other_folders_have_no_labels(tmp_path: Path, names: list[str]) -> None:
    dataset = load_dataset(fill(tmp_path, names), size=9)
    assert dataset.labels is None and len(dataset) == len(names)


def test_labels_in_a_file_go_before_subfolders(tmp_path: Path) -> None:
    fill(tmp_path / "p", ["a/1.png", "b/1.png"])
    file = write_labels(tmp_path / "l.csv", [("a/1.png", 7), ("b/1.png", 5)])
    labels = load_dataset(tmp_path / "p", file, size=9).labels
    assert labels is not None and labels.tolist() == [7, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,0\nb.png,1\n", r"header is \['a.png', '0'\], expected file,label"),
        ("", r"header is None, expected file,label"),
        (
            "file,label\na.png,0\nb.png,cat\n",
            r"line 3: 'b.png' has the label 'cat', expected an integer >= 0",
        ),
        ("file,label\na.png,0\nb.png,-1\n", r"line 3: 'b.png' has the label '-1'"),
        ("file,label\na.png,1.5\n", r"line 2: 'a.png' has the label '1.5'"),
        ("file,label\na.png,99999999999999999999\n", r"line 2"),
        ("file,label\na.png\n", r"line 2: 'a.png' has the label None"),
        ("file,label\n,3\n", r"line 2: '' has the label '3'"),
        ("file,label\na.png,0\na.png,0\n", r"line 3 names a.png again"),
        ("file,label\na.png,0\n", r"no label for 1 of 2 pictures: b.png"),
        (
            "file,label\na.png,0\nb.png,0\nz1,0\nz2,0\nz3,0\nz4,0\n",
            r"names 4 files that .* does not hold: z1, z2, z3, \.\.\.",
        ),
        ("file,label\na.png,\xff\n", r"l.csv: 'utf-8' codec"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, text: str, message: str) -> None:
    fill(tmp_path / "p", ["a.png", "b.png"])
    (tmp_path / "l.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(tmp_path / "p", tmp_path / "l.csv", size=9)
    assert str(tmp_path / "l.csv") in str(caught.value)


def test_broken_pictures_are_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "e.png"])
    for name in ("b.jpg", "c.png", "d.png", "f.png"):
        (tmp_path / name).write_bytes(b"no picture")
    Image.new("RGBA", (9, 9)).save(tmp_path / "aa.png")
    with pytest.raises(
        ValueError, match=r"5 of 7 pictures cannot be used: .*aa\.png: has transparent"
    ) as caught:
        load_dataset(tmp_path, size=9)
    assert "b.jpg: not a picture" in str(caught.value) and "f.png" not in str(caught.value)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        load_dataset(tmp_path, size=9)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset(tmp_path / "nowhere", size=9)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset(tmp_path / "nowhere.npy", size=9)
    fill(tmp_path, ["a.png"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        load_dataset(tmp_path, tmp_path / "nowhere.csv", size=9)
    with pytest.raises(ValueError, match=r"a\.png is a file, expected a folder"):
        load_dataset(tmp_path / "a.png", size=9)
    for wrong in ({"size": 0}, {"size": 9.5}, {"size": 9, "limit": 0}):
        with pytest.raises(ValueError, match=f"{list(wrong)[-1]} is .* expected an integer"):
            load_dataset(tmp_path, **wrong)


# Arrays


def test_an_array_and_its_labels(tmp_path: Path) -> None:
    pictures = np.stack([draw(12, 10, seed=i) for i in range(5)])
    file, labels = (
        save(tmp_path / "p.npy", pictures),
        save(tmp_path / "l.npy", np.arange(5, dtype=np.uint8) * 2),
    )
    dataset = load_dataset(file, labels, size=10)
    np.testing.assert_array_equal(dataset.pictures, pictures[:, :, 1:11])
    assert dataset.labels is not None and dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == [0, 2, 4, 6, 8] and dataset.names == ("0", "1", "2", "3", "4")
    assert type(dataset.pictures) is type(dataset.labels) is np.ndarray
    assert load_dataset(file, size=10).labels is None


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 9, 9, 3)),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((2, 3, 9, 9), np.uint8),
        np.zeros((0, 9, 9, 3), np.uint8),
        np.zeros((2, 0, 9, 3), np.uint8),
        np.zeros((), np.uint8),
    ],
)
def test_an_array_of_something_else(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"p\.npy"):
        load_dataset(save(tmp_path / "p.npy", array), size=9)


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the pickle was executed",)


def test_a_file_that_is_no_array(tmp_path: Path) -> None:
    file = tmp_path / "p.npy"
    np.save(file, np.array([Intruder()], object), allow_pickle=True)
    whole = io.BytesIO()
    np.save(whole, np.zeros((2, 9, 9, 3), np.uint8))
    archive = io.BytesIO()
    np.savez(archive, p=np.zeros((2, 9, 9, 3), np.uint8))
    for content in (file.read_bytes(), b"", b"no array", whole.getvalue()[:300], archive.getvalue()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"p\.npy is (not an array|an archive)"):
            load_dataset(file, size=9)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, -1]), r"the label -1 for picture 1, expected >= 0"),
        (np.array([0, 2**64 - 1], np.uint64), r"picture 1, expected >= 0"),
        (np.array([0.0, 1.0]), r"is float64 \(2,\), expected integers \(2,\)"),
        (np.array([0, 1, 2]), r"is int64 \(3,\), expected integers \(2,\)"),
    ],
)
def test_bad_labels_of_an_array(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    file = save(tmp_path / "p.npy", np.zeros((2, 9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        load_dataset(file, save(tmp_path / "l.npy", labels), size=9)
    with pytest.raises(ValueError, match=r"labels of an array are in .*l\.csv, expected a \.npy file"):
        load_dataset(file, tmp_path / "l.csv", size=9)


# Parts


def numbered(count: int, labelled: bool = True) -> Dataset:
    pictures = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    return Dataset(pictures, np.arange(count) if labelled else None, tuple(map(str, range(count))), "here")


def numbers(dataset: Dataset) -> list[int]:
    """Which pictures they are; labels and names must say the same."""
    found = dataset.pictures[:, 0, 0, 0].tolist()
    assert dataset.labels is None or dataset.labels.tolist() == found
    assert list(dataset.names) == list(map(str, found)) and len(dataset) == len(found)
    return found


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 9), st.booleans())
def test_a_split_is_a_partition(count: int, share: float, seed: int, labelled: bool) -> None:
    dataset = numbered(count, labelled)
    if not 0 < round(share * count) < count:
        with pytest.raises(ValueError, match="share is"):
            dataset.split(share, seed)
        return
    one, other = map(numbers, dataset.split(share, seed))
    assert len(one) == round(share * count)
    assert one == sorted(one) and other == sorted(other) and sorted(one + other) == list(range(count))
    assert numbers(dataset.split(share, seed)[0]) == one


def test_another_seed_is_another_split() -> None:
    dataset = numbered(60)
    assert len({tuple(numbers(dataset.split(0.5, seed)[0])) for seed in range(5)}) == 5
    for share in (0, 1, -0.5, 2, float("nan"), True):
        with pytest.raises(ValueError, match="share is"):
            dataset.split(share, 0)


def test_the_head() -> None:
    assert numbers(numbered(9).head(4)) == [0, 1, 2, 3]
    assert numbers(numbered(3, labelled=False).head(4)) == [0, 1, 2]


def test_a_limit_draws_a_subset(tmp_path: Path) -> None:
    pictures = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 2, 2, 3))
    file, labels = save(tmp_path / "p.npy", pictures), save(tmp_path / "l.npy", np.arange(30))
    drawn = [numbers(load_dataset(file, labels, size=2, limit=limit)) for limit in (5, 12, 30, 99)]
    assert [len(some) for some in drawn] == [5, 12, 30, 30] and drawn[2] == drawn[3] == list(range(30))
    assert set(drawn[0]) < set(drawn[1]) and all(some == sorted(some) for some in drawn)
    assert drawn[0] != list(range(5))
    assert numbers(load_dataset(file, labels, size=2, limit=5)) == drawn[0]
    assert numbers(load_dataset(file, labels, size=2, limit=5, seed=1)) != drawn[0]


def test_a_limit_keeps_labels_of_files(tmp_path: Path) -> None:
    names = [f"{i:02}.png" for i in range(20)]
    fill(tmp_path / "p", names)
    file = write_labels(tmp_path / "l.csv", [(name, i) for i, name in enumerate(names)])
    dataset = load_dataset(tmp_path / "p", file, size=9, limit=6)
    assert dataset.labels is not None
    assert [int(name[:2]) for name in dataset.names] == dataset.labels.tolist()
    for name in set(names) - set(dataset.names):
        (tmp_path / "p" / name).write_bytes(b"not drawn, so not read")
    again = load_dataset(tmp_path / "p", file, size=9, limit=6)
    np.testing.assert_array_equal(again.pictures, dataset.pictures)


# Real ones


def test_real_folders(data_dir: Path) -> None:
    for folder, labels, size in (
        ("imagenet/val", "imagenet/val.csv", 224),
        ("flowers17", "flowers17/labels.csv", 128),
    ):
        if not (data_dir / folder).is_dir():
            pytest.skip(f"{data_dir} has no {folder}")
        dataset = load_dataset(data_dir / folder, data_dir / labels, size=size, limit=12)
        assert dataset.pictures.shape == (12, size, size, 3) and dataset.labels is not None
        with (data_dir / labels).open() as file:
            known = {row["file"]: int(row["label"]) for row in csv.DictReader(file)}
        assert dataset.labels.tolist() == [known[name] for name in dataset.names]
