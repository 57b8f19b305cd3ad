"""Data sets in memory: pictures in their stored size or cropped to squares, and their labels."""

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dnnjpeg.checks import check_integer, is_number
from dnnjpeg.files.images import open_picture, walk
from dnnjpeg.files.view import Picture, Pictures, View

_NAMED = 3  # files that an error names, if many have the same fault


@dataclass(frozen=True, eq=False)
class Dataset:
    """N pictures in memory, uint8 H x W x 3. A picture of 224 x 224 takes 150 kB, one of 500 x 375 560 kB."""

    pictures: Pictures
    labels: NDArray[np.int64] | None  # N, >= 0
    names: tuple[str, ...]  # paths relative to the folder, or indices in the array
    source: str  # path of the folder or array

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def squares(self) -> NDArray[np.uint8]:
        """The pictures as one array, uint8 N x H x W x 3. Raises ValueError if their sizes differ."""
        pictures = self.pictures if isinstance(self.pictures, np.ndarray) else _together(self.pictures)
        if not isinstance(pictures, np.ndarray):
            raise ValueError(f"the pictures of {self.source} have several sizes: load them with a size")
        return pictures

    @property
    def pixels(self) -> float:
        """The mean number of pixels of a picture."""
        return sum(picture.shape[0] * picture.shape[1] for picture in self.pictures) / len(self)

    @property
    def identity(self) -> str:
        """A digest of all pixels."""
        sha = hashlib.sha256()
        for picture in self.pictures:
            sha.update(repr(picture.shape).encode())
            sha.update(np.ascontiguousarray(picture).data)
        return sha.hexdigest()

    def head(self, n: int) -> "Dataset":
        """The first `n` pictures, or all if there are fewer, without a copy."""
        labels = None if self.labels is None else self.labels[:n]
        return replace(self, pictures=self.pictures[:n], labels=labels, names=self.names[:n])

    def split(self, share: float, seed: int) -> tuple["Dataset", "Dataset"]:
        """Split the pictures at random into two data sets: one with a `share` (0..1), and one with the rest.

        Both are copies, in the old order. Raises ValueError if one of them would be empty.
        """
        count = round(share * len(self)) if is_number(share) and 0 < share < 1 else 0
        if not 0 < count < len(self):
            raise ValueError(
                f"share is {share}, expected a share of {len(self)} pictures that leaves some on both sides"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[:count])), self.take(np.sort(order[count:]))

    def take(self, index: NDArray[np.intp]) -> "Dataset":
        """The pictures with these indices, in this order, as copies."""
        labels = None if self.labels is None else self.labels[index]
        names = tuple(self.names[i] for i in index)
        every = self.pictures
        some = every[index] if isinstance(every, np.ndarray) else [every[i] for i in index]
        return replace(self, pictures=some, labels=labels, names=names)


def load_dataset(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load pictures, and their labels if there are any.

    path: a folder (its pictures are found by `dnnjpeg.files.images.walk`), or a .npy file, uint8 N x H x W x
        3.
    labels: for a folder, a CSV file with the columns `file` (relative to the folder) and `label` (an integer
        >= 0); other columns are ignored. For an array, a .npy file of N integers. None: if all pictures lie
        in two or more subfolders, these are the classes 0, 1, ... in the order of their names; empty ones
        count. Otherwise, and if the subfolders have subfolders, there are no labels.
    size: crop each picture to a square with this side, as `View(size)` does. None: keep the stored size.
    limit: use at most this many pictures, drawn with `seed`. A larger limit adds pictures to a smaller one.

    No picture is left out silently. Raises OSError if a path cannot be read. Raises ValueError if a folder
    has no pictures, if a picture cannot be read or has no label, if a label has no picture, or if labels or
    an array have the wrong form.
    """
    path = Path(path)
    if size is not None:
        size = check_integer(size, "size", 1, 65535)
    if limit is not None:
        limit = check_integer(limit, "limit", 1, 2**63 - 1)
    if path.suffix.lower() == ".npy":
        return _load_array(path, None if labels is None else Path(labels), size, limit, seed)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, expected a folder of pictures or a .npy file")
    files = list(walk(path))
    if not files:
        raise ValueError(f"{path} holds no pictures")
    names = [file.relative_to(path).as_posix() for file in files]
    classes = _class_folders(path, names) if labels is None else _read_csv(Path(labels), path, names)
    index = _draw(len(files), limit, seed)
    return Dataset(
        _read_pictures([files[i] for i in index], size),
        None if classes is None else classes[index],
        tuple(names[i] for i in index),
        os.fspath(path),
    )


def _draw(count: int, limit: int | None, seed: int) -> NDArray[np.intp]:
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def _read_pictures(files: Sequence[Path], size: int | None) -> Pictures:
    def read(path: Path) -> Picture | str:
        try:
            image = open_picture(path, metadata="strip").image.convert("RGB")
            return np.array(image if size is None else View(size).show(image))  # writable, for torch
        except (OSError, ValueError) as error:
            return f"{path}: {error}"

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(read, files))
    faults = [one for one in found if isinstance(one, str)]
    if faults:
        raise ValueError(f"{len(faults)} of {len(files)} pictures cannot be used: {_some(faults, '; ')}")
    return _together([one for one in found if not isinstance(one, str)])


def _together(pictures: Sequence[Picture]) -> Pictures:
    """One array if all pictures have the same size, else the pictures."""
    return np.stack(pictures) if len({picture.shape for picture in pictures}) == 1 else pictures


def _class_folders(path: Path, names: Sequence[str]) -> NDArray[np.int64] | None:
    folders = sorted(item.name for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
    if len(folders) < 2 or any(name.count("/") != 1 for name in names):
        return None  # these are mostly train/ and val/, with the classes in them
    return np.array([folders.index(name.split("/", 1)[0]) for name in names], np.int64)


def _read_csv(path: Path, folder: Path, names: Sequence[str]) -> NDArray[np.int64]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            labels = _parse(csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(f"{path} names {len(unknown)} files that {folder} does not hold: {_some(unknown)}")
    bare = [name for name in names if name not in labels]
    if bare:
        raise ValueError(f"{path} has no label for {len(bare)} of {len(names)} pictures: {_some(bare)}")
    return np.array([labels[name] for name in names], np.int64)


def _parse(rows: "csv.DictReader[str]") -> dict[str, int]:
    """Labels by file, from CSV with a header. Raises ValueError that names the line."""
    for column in ("file", "label"):
        if column not in (rows.fieldnames or ()):
            raise ValueError(f"the header is {rows.fieldnames}, expected file,label")
    labels: dict[str, int] = {}
    for row in rows:
        name, label = row["file"], row["label"]
        if not name or not re.fullmatch(r"\s*[0-9]{1,18}\s*", label or ""):
            raise ValueError(
                f"line {rows.line_num}: {name!r} has the label {label!r}, expected an integer >= 0"
            )
        name = PurePosixPath(name).as_posix()  # without ./
        if name in labels:
            raise ValueError(f"line {rows.line_num} names {name} again")
        labels[name] = int(label)
    return labels


def _load_array(path: Path, labels: Path | None, size: int | None, limit: int | None, seed: int) -> Dataset:
    pictures = _open_array(path)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape:
        raise ValueError(f"{path} is {pictures.dtype} {pictures.shape}, expected uint8 N x H x W x 3")
    index = _draw(len(pictures), limit, seed)
    if labels is None:
        classes = None
    elif labels.suffix.lower() != ".npy":
        raise ValueError(f"labels of an array are in {labels}, expected a .npy file")
    else:
        classes = _array_labels(labels, len(pictures))[index]
    some = pictures[index]
    if size is not None:
        some = np.stack([View(size).of(picture) for picture in some])
    return Dataset(some, classes, tuple(map(str, index)), os.fspath(path))


def _array_labels(path: Path, count: int) -> NDArray[np.int64]:
    array = _open_array(path)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{path} is {array.dtype} {array.shape}, expected integers ({count},)")
    labels = np.array(array, np.int64)
    if (wrong := np.flatnonzero(labels < 0)).size:
        raise ValueError(f"{path} has the label {labels[wrong[0]]} for picture {wrong[0]}, expected >= 0")
    return labels


def _open_array(path: Path) -> NDArray[Any]:
    """Map an array into memory, so that a few of many pictures cost little. Pickles run code: not allowed."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not an array of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} is an archive of arrays, expected a .npy file with one array")
    return array


def _some(items: Sequence[str], separator: str = ", ") -> str:
    return separator.join(items[:_NAMED]) + (f"{separator}..." if len(items) > _NAMED else "")
