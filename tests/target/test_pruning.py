"""Pruning: gradients and savings against real files, and what is left in a pruned one."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jpeglib
import numpy as np
import pytest
from drawing import draw
from independent import encode, encode_to_target
from PIL import Image

torch = pytest.importorskip("torch")

from dnnjpeg import inspect, write_coefficients  # noqa: E402
from dnnjpeg.jpeg.markers import NATURAL  # noqa: E402
from dnnjpeg.networks.criterion import Criterion, Judges, view  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.target.pruning import Prunable, _savings  # noqa: E402

PICTURES = [draw(72, 56, seed) for seed in range(8)]


@pytest.fixture(scope="module")
def networks(network: Callable[[str], Any]) -> list[Any]:
    return [network("one"), network("two")]


def prunable(
    picture: np.ndarray, quality: float, subsampling: str, orientation: int = 1, **fields: Any
) -> Prunable:
    image, point = Image.fromarray(picture), replace(standard_table().at(quality), **fields)
    write = partial(
        write_coefficients,
        tables=point.tables,
        width=image.width,
        height=image.height,
        subsampling=subsampling,
    )
    return Prunable(image, orientation, point, subsampling, write)


def read(network: Any, data: bytes | np.ndarray) -> np.ndarray:
    image = Image.fromarray(data) if isinstance(data, np.ndarray) else Image.open(io.BytesIO(data))
    return network.read([view(image, 32)])[0]


def coefficients(data: bytes, tmp_path: Path) -> list[np.ndarray]:
    (tmp_path / "x.jpg").write_bytes(data)
    file = jpeglib.read_dct(str(tmp_path / "x.jpg"))
    return [plane for plane in (file.Y, file.Cb, file.Cr) if plane is not None]


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0", "4:2:2"])
@pytest.mark.parametrize("fields", [{}, {"bin_width": [1.25, 0.8]}, {"max_index": [[9, *[2] * 63], 1]}])
def test_it_begins_with_the_encoders_file(subsampling, fields, tmp_path):
    point = replace(standard_table().at(30), **fields)
    for picture in PICTURES:
        file = encode(picture, point, subsampling=subsampling)
        ours = prunable(picture, 30, subsampling, **fields).attempt()
        for a, b in zip(coefficients(file, tmp_path), coefficients(ours, tmp_path), strict=True):
            assert np.mean(a != b) < 0.001


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_savings_are_those_of_real_files(subsampling):
    """One coefficient of every sixth block less: the predicted bits against those of the file."""
    for picture in PICTURES[:3]:
        start = prunable(np.tile(picture, (4, 4, 1)), 60, subsampling)
        before = len(start.attempt())
        savings = _savings(start.planes)
        predicted, rng = 0.0, np.random.default_rng(0)
        for plane, saved in zip(start.planes, savings, strict=True):
            for block in range(0, len(plane), 6):
                present = [k for k in range(63) if plane[block, NATURAL[k + 1]]]
                if present:
                    k = int(rng.choice(present))
                    predicted += float(saved[block, k]) / 8
                    plane[block, NATURAL[k + 1]] = 0
        assert before - len(start.attempt()) == pytest.approx(predicted, rel=0.2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_slopes_are_those_of_decoded_files(orientation, subsampling):
    """A step in one coefficient, and what Pillow makes of the file: turned, cropped and resampled."""
    picture = np.clip(PICTURES[0], 60, 190)  # nothing saturates
    start = prunable(picture, 50, subsampling, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation

    def seen() -> np.ndarray:
        image = Image.open(io.BytesIO(start.attempt()))
        image.info["exif"] = exif.tobytes()
        return view(image, 32).astype(float)

    rng = np.random.default_rng(0)
    smooth = (
        torch.from_numpy(rng.normal(0, 1, (3, 4, 4))).repeat_interleave(8, 1).repeat_interleave(8, 2).float()
    )
    before = seen()
    start.trial = start.planes
    slopes = start._by_coefficients(smooth)
    expected, found = [], []
    for c, block, k in [(0, 24, 0), (0, 31, 1), (0, 32, 8), (0, 40, 9), (1, 8, 0), (2, 9, 1)]:
        start.planes[c][block, k] += 6
        change = torch.from_numpy(seen() - before).permute(2, 0, 1)
        start.planes[c][block, k] -= 6
        expected.append(float((smooth * change).sum()))
        found.append(float(slopes[c][block, k] * start.steps[c][k] * 6))
    scale = np.abs(expected).max()
    assert scale > 20
    assert np.abs(np.subtract(found, expected)).max() < 0.12 * scale


@pytest.mark.parametrize("keep", ["top1", "divergence=0.003"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:2:2", "progressive": True}])
def test_pruned_files_are_read_the_same(networks, keep, options, tmp_path):
    both = {"networks": networks, "keep": keep, "signature": False, **options}
    whole, pruned = (encode_to_target(PICTURES, prune=prune, threads=2, **both) for prune in (False, True))
    criterion = Criterion.parse(keep)
    for picture, one, other in zip(PICTURES, whole, pruned, strict=True):
        assert len(other.data) <= len(one.data)
        if not other.pruned:
            assert replace(other, tried=one.tried) == one
        margins, losses = [], []
        for network in networks:
            clean, logits = (torch.from_numpy(read(network, x)[None]) for x in (picture, other.data))
            margins.append(float(criterion.margin(network.task, logits, clean)))
            losses.append(float(network.task.distance(logits, clean)))
        assert (min(margins) > 0) == other.met
        if other.met:
            assert other.divergence == pytest.approx(np.mean(losses), abs=1e-4)
        if other.pruned:  # nothing but what was there, or nothing
            assert other.quality in {min(one.quality, start) for start in (16, 28, 45, 100)}
            full = encode(picture, quality=other.quality, subsampling=other.subsampling)
            planes = list(zip(coefficients(full, tmp_path), coefficients(other.data, tmp_path), strict=True))
            for a, b in planes:
                assert np.mean((b != a) & (b != 0)) < 0.001
            # floats and integers round some of them apart
            dc = np.concatenate([(a - b)[..., 0, 0].ravel() for a, b in planes])
            assert np.mean(dc != 0) < 0.03
            assert np.abs(dc).max() <= 1
    if keep == "top1":
        assert all(one.pruned or one.quality == 1 for one in pruned)
        assert sum(len(one.data) for one in pruned) < 0.95 * sum(len(one.data) for one in whole)
    else:  # finer steps are tried where coarse ones are too coarse
        assert max(one.quality for one in pruned if one.pruned) > 16


def test_company_changes_nothing(networks):
    how = {"networks": networks, "keep": "top1", "prune": True}
    together = encode_to_target(PICTURES[:3], threads=3, **how)
    for picture, one in zip(PICTURES[:3], together, strict=True):
        (alone,) = encode_to_target([picture], **how)
        assert alone.divergence == pytest.approx(one.divergence, abs=1e-5)
        assert replace(alone, divergence=one.divergence) == one


def test_grey_and_cmyk(networks):
    image = Image.fromarray(PICTURES[0])
    how = {"networks": networks[:1], "keep": "top1"}
    (grey,) = encode_to_target([image.convert("L")], prune=True, **how)
    assert grey.pruned
    assert inspect(grey.data).subsampling == "4:0:0"
    assert read(networks[0], grey.data).argmax() == read(networks[0], np.asarray(image.convert("L"))).argmax()
    cmyk = [image.convert("CMYK")]
    assert encode_to_target(cmyk, prune=True, **how) == encode_to_target(cmyk, **how)


@pytest.mark.parametrize(
    ("option", "value"),
    [("hardness", 3), ("hardness", [3.0, 2.0]), ("seed", 1)],
)
def test_what_is_of_sampling_is_refused(networks, option, value):
    how = {"networks": networks[:1], "keep": "top1", option: value}
    with pytest.raises(
        ValueError, match=f"^{option} is .*, but prune rounds to the nearest: leave out {option}$"
    ):
        encode_to_target(PICTURES[:1], prune=True, **how)


def test_what_asks_for_rounding_is_honoured(networks):
    how = {"networks": networks[:1], "keep": "top1", "prune": True}
    expected = encode_to_target(PICTURES[:2], **how)
    assert all(one.pruned for one in expected)
    assert encode_to_target(PICTURES[:2], hardness=math.inf, seed=0, **how) == expected


def test_comment_and_metadata(networks):
    exif = Image.Exif()
    exif[0x0112] = 6
    (found,) = encode_to_target(
        PICTURES[:1], networks=networks[:1], keep="top1", prune=True, comment=b"mine", exif=exif.tobytes()
    )
    made = inspect(found.data)
    assert found.pruned
    assert (
        made.comment
        == f"mine\ndnnjpeg keeps top1 of one {networks[0].digest}, pruned, at quality {found.quality}"
    )
    assert made.metadata == ("EXIF",)


def test_gradients_by_differences(networks):
    squares = [view(Image.fromarray(picture), 32) for picture in PICTURES[:3]]
    originals = [view(Image.fromarray(picture), 32) for picture in PICTURES[3:6]]
    for keep in ("top1", "top5", "divergence=2"):
        judges = Judges(networks, Criterion.parse(keep), originals)
        margins, gradients = judges.gradients([0, 1, 2], squares)
        met = [reading.met for reading in judges.read([0, 1, 2], squares)]
        assert met == [margin > 0 for margin in margins]
        alone = Judges(networks[:1], Criterion.parse(keep), originals)
        ahead, gradients = alone.gradients([0, 1, 2], squares)
        assert all(one >= both for one, both in zip(ahead, margins, strict=True))
        for i, square in enumerate(squares):
            change = np.where(gradients[i].permute(1, 2, 0).numpy() > 0, 1, -1)
            change *= np.random.default_rng(i).random(change.shape) < 0.1  # the network is not linear
            up, down = (np.clip(square.astype(int) + sign * change, 0, 255) for sign in (1, -1))
            (high,), _ = alone.gradients([i], [up.astype(np.uint8)])
            (low,), _ = alone.gradients([i], [down.astype(np.uint8)])
            predicted = float((gradients[i].permute(1, 2, 0) * torch.from_numpy(up - down)).sum())
            assert high - low == pytest.approx(predicted, rel=0.2)
