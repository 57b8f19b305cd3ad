"""Pictures as they are stored: of several sizes, or one array; parts of them, and what tells them apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawing import draw
from PIL import Image

from dnnjpeg.files.dataset import Dataset, load_dataset


def sized(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [draw(width, height, seed=i) for i, (width, height) in enumerate(sizes)]


def test_pictures_keep_their_sizes(tmp_path: Path) -> None:
    some = sized((30, 20), (9, 40), (64, 64))
    for i, picture in enumerate(some):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 3 and isinstance(dataset.pictures, list)
    for found, picture in zip(dataset.pictures, some, strict=True):
        np.testing.assert_array_equal(found, picture)
        assert found.flags.writeable  # torch warns of others
    assert dataset.pixels == (30 * 20 + 9 * 40 + 64 * 64) / 3
    with pytest.raises(ValueError, match=r"of .* have several sizes: load them with a size"):
        _ = dataset.squares
    assert load_dataset(tmp_path, size=24).squares.shape == (3, 24, 24, 3)


def test_pictures_of_one_size_are_an_array(tmp_path: Path) -> None:
    some = sized((30, 20), (30, 20))
    for i, picture in enumerate(some):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    dataset = load_dataset(tmp_path)
    np.testing.assert_array_equal(dataset.squares, some)
    assert dataset.squares is dataset.pictures and dataset.pixels == 600
    file = tmp_path / "p.npy"
    np.save(file, np.stack(some))
    np.testing.assert_array_equal(load_dataset(file).squares, some)
    assert load_dataset(file).identity == dataset.identity == replace(dataset, pictures=some).identity


def test_parts_of_pictures_of_several_sizes() -> None:
    some = sized((30, 20), (20, 30), (30, 20), (8, 8), (30, 20))
    dataset = Dataset(some, np.arange(5), tuple("abcde"), "here")
    head, taken = dataset.head(2), dataset.take(np.array([0, 2, 4]))
    assert [picture.shape for picture in head.pictures] == [(20, 30, 3), (30, 20, 3)]
    assert head.names == ("a", "b") and taken.names == ("a", "c", "e")
    assert head.labels is not None and head.labels.tolist() == [0, 1]
    assert taken.labels is not None and taken.labels.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(taken.squares, [some[0], some[2], some[4]])  # which are of one size
    one, other = dataset.split(0.4, 3)
    assert sorted([*one.names, *other.names]) == list("abcde") and len(one) == 2
    for part in (one, other):
        for name, picture in zip(part.names, part.pictures, strict=True):
            np.testing.assert_array_equal(picture, some["abcde".index(name)])


def test_identity_is_of_pixels_sizes_and_order() -> None:
    some = sized((30, 20), (20, 30))
    dataset = Dataset(some, None, ("a", "b"), "here")
    assert dataset.identity == Dataset(some, np.arange(2), ("c", "d"), "there").identity
    other = [some[0], some[1].copy()]
    other[1][3, 4, 1] ^= 1
    others = [some[::-1], some[:1], other, [some[0], some[1].reshape(20, 30, 3)]]
    found = {dataset.identity, *(replace(dataset, pictures=pictures).identity for pictures in others)}
    assert len(found) == 5
