"""Encoding to a target: limits of size; networks that still read the same, by torch and Pillow alone."""

import io
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawing import draw
from hypothesis import example, given, settings
from hypothesis import strategies as st
from independent import divergence, encode, encode_to_target, read
from PIL import Image

import dnnjpeg
from dnnjpeg import inspect, transcode
from dnnjpeg.jobs.made import is_done
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.table.library import load_table
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table
from dnnjpeg.target.sources import QUALITIES

PICTURES = [draw(72, 56, seed) for seed in range(12)]


# A limit of size


@given(limit=st.integers(500, 9000))
@example(limit=1)
@example(limit=10**9)
@settings(max_examples=12, deadline=None)
def test_largest_quality_within_the_limit(limit):
    (found,) = encode_to_target([PICTURES[0]], target_bytes=limit, progressive="auto")
    sizes = {q: len(encode(PICTURES[0], quality=q, progressive="auto")) for q in range(1, 101)}
    assert found.data == encode(PICTURES[0], quality=found.quality, progressive="auto")
    if found.met:
        assert sizes[found.quality] <= limit
        assert found.quality == 100 or sizes[found.quality + 1] > limit
    else:
        assert found.quality == 1
        assert sizes[1] > limit


def jpeg(picture: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", **{"quality": 95} | options)
    return file.getvalue()


def test_files_are_requantized():
    """JPEG files in place of pictures: candidates are those of `transcode`, metadata stay."""
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = jpeg(PICTURES[0], exif=exif, comment=b"a note")
    (found,) = encode_to_target([data], target_bytes=2500)
    sizes = {q: len(transcode(data, "standard", q, only_if_smaller=False)) for q in range(1, 101)}
    assert found.data == transcode(data, "standard", found.quality, only_if_smaller=False)
    assert sizes[found.quality] <= 2500 < sizes[found.quality + 1]
    assert b"maker" in found.data and b"a note" in found.data
    with pytest.raises(
        ValueError, match="prune is True, and images has JPEG files: decode them to pixels first"
    ):
        encode_to_target([data], networks=["x.py:y"], keep="top1", prune=True)
    with pytest.raises(ValueError, match="breaks off at byte"):
        encode_to_target([data[:1000] + b"\xff\xd9"], target_bytes=2500)


def test_files_keep_what_a_network_reads(network):
    reader = network("one")
    files = [jpeg(picture) for picture in PICTURES[:4]]
    for keep in ("top1", "price=1e-4", "quality=30"):
        for data, found in zip(files, encode_to_target(files, networks=[reader], keep=keep), strict=True):
            assert np.argmax(read(reader, found.data)) == np.argmax(read(reader, data)) or keep != "top1"
            assert f"dnnjpeg keeps {keep}".encode() in found.data
            assert len(found.data) < len(data)


def test_limit_in_bits_per_pixel():
    by_bits = encode_to_target(PICTURES, target_bpp=2.5, threads=3)
    assert by_bits == encode_to_target(PICTURES, target_bytes=int(2.5 * 72 * 56 / 8))
    assert all(2 < 8 * len(found.data) / (72 * 56) <= 2.5 for found in by_bits)


def test_limit_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import dnnjpeg, numpy\n"
        "[found] = dnnjpeg.encode_to_target([numpy.zeros((9, 9), numpy.uint8)], target_bytes=400)\n"
        "assert found.met and len(found.data) <= 400"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# Networks


@pytest.mark.parametrize("keep", ["top1", "top5", "divergence=.02"])
def test_the_smallest_file_that_networks_read_the_same(network, keep):
    net = network("one")
    found = encode_to_target(PICTURES, networks=[net], keep=keep, signature=False, threads=2)

    def is_met(clean, logits):
        if keep == "top1":
            return clean.argmax() == logits.argmax()
        if keep == "top5":
            return set(clean.argsort()[-5:]) == set(logits.argsort()[-5:])
        return divergence(clean, logits) < 0.02

    for picture, one in zip(PICTURES, found, strict=True):
        clean = read(net, picture)
        assert one.met
        assert is_met(clean, read(net, one.data))
        for quality in QUALITIES:
            for subsampling in ("4:2:0", "4:4:4"):
                other = encode(picture, quality=quality, subsampling=subsampling, signature=False)
                assert len(other) >= len(one.data) or not is_met(clean, read(net, other))
    assert max(one.quality for one in found) > 4


@pytest.mark.parametrize("is_jpeg", [False, True])
def test_the_standard_table_where_the_own_is_too_coarse(network, tmp_path, is_jpeg):
    net = network("one")
    table = Table("coarse", [OperatingPoint(q, "4:2:0", (255,) * 64, ((255,) * 64,)) for q in (1, 100)])
    images = [jpeg(picture) if is_jpeg else picture for picture in PICTURES[:3]]
    how = {"networks": [net], "keep": "divergence=0.0005"}
    for image, one in zip(images, dnnjpeg.encode_to_target(images, table, **how), strict=True):
        assert one.met
        assert inspect(one.data).table == "standard"
        assert divergence(read(net, image), read(net, one.data)) < 0.0005
    (path := tmp_path / "x.jpg").write_bytes(one.data)
    assert is_done(path, path, FileOptions(table, 75, target=how))


@pytest.mark.parametrize("price", [1e-5, 1e-3])
def test_bytes_have_a_price(network, price):
    """Divergence and bytes together: near the least there is, and well below any one quality for all."""
    nets = [network("one"), network("two")]
    found = encode_to_target(PICTURES, networks=nets, keep=f"price={price}", signature=False, threads=2)
    costs = []
    for picture, one in zip(PICTURES, found, strict=True):
        files = [
            encode(picture, quality=q, subsampling=s, signature=False)
            for q in QUALITIES
            for s in ("4:2:0", "4:4:4")
        ]
        clean = [read(net, picture) for net in nets]
        lost = [
            np.mean([divergence(a, read(net, file)) for a, net in zip(clean, nets, strict=True)])
            for file in files
        ]
        which = files.index(one.data)
        costs.append([price * len(file) + loss for file, loss in zip(files, lost, strict=True)])
        costs[-1].append(costs[-1][which])
        assert one.met
    *fixed, ours = np.mean(costs, axis=0)
    least = np.min(costs, axis=1).mean()
    assert ours < least + 0.5 * (min(fixed) - least)


def test_dearer_bytes_are_fewer(network):
    net = network("one")
    sizes = [
        sum(len(one.data) for one in encode_to_target(PICTURES, networks=[net], keep=f"price={price}"))
        for price in ("1e-6", "1e-4", "0.01")
    ]
    assert sizes == sorted(set(sizes), reverse=True)


def judged_quality(nets: list[Any], picture: np.ndarray, quality: float) -> float:
    """The law, by hand: what networks lose in the standard file of quality 20, and its bits a pixel."""
    probe = encode(picture, "standard", 20)
    lost = np.mean([divergence(read(net, picture), read(net, probe)) for net in nets])
    bits = 8 * len(encode(picture, "standard", 20, optimize=False, abbreviated=True)) / (72 * 56)
    factor = 200 - 2 * quality if quality >= 50 else 5000 // quality
    x = np.linspace(-4, 2, 60001)
    exponent = np.interp(
        -0.6 * np.log((lost + 0.06) / 0.43), x + (factor / 250) ** 4 * np.expm1(4 * x) / 4, x
    )
    factor *= (bits / 0.58) ** 0.5 * np.exp(exponent)
    return 5000 / factor if factor > 100 else 100 - factor / 2


@pytest.mark.parametrize("quality", [30, 75.0])
def test_what_is_hard_to_read_has_more_quality(network, quality):
    nets = [network("one"), network("two")]
    keep = f"quality={quality:g}"
    found = encode_to_target(PICTURES, load_table("resnet18"), networks=nets, keep=keep, subsampling="4:2:2")
    wanted = [judged_quality(nets, picture, quality) for picture in PICTURES]
    assert np.abs(np.array([one.quality for one in found]) - np.clip(wanted, 1, 100)).max() < 0.51
    assert np.ptp([one.quality for one in found]) > 10
    for picture, one in zip(PICTURES, found, strict=True):
        comment = inspect(one.data).comment.encode()
        assert one.met and comment.startswith(b"dnnjpeg keeps quality=")
        expected = encode(picture, "resnet18", one.quality, subsampling="4:2:2", comment=comment)
        assert one.data == expected


def test_what_is_hard_to_read_upside_down(network):
    """Networks see the coarse file as upright as the original."""
    net = network("one")
    exif = Image.Exif()
    exif[0x0112] = 3
    pictures = [draw(64, 48, seed) for seed in range(12)]
    over = [picture[::-1, ::-1].copy() for picture in pictures]
    found = encode_to_target(over, networks=[net], keep="quality=50", exif=exif.tobytes())
    plain = encode_to_target(pictures, networks=[net], keep="quality=50")
    # blocks are the same, and what is coded differs by signs: networks lose nearly the same
    qualities = [[one.quality for one in files] for files in (found, plain)]
    assert np.corrcoef(qualities)[0, 1] > 0.98


def test_it_comes_near_the_smallest_there_is(network):
    net = network("one")
    found = encode_to_target(PICTURES, networks=[net], keep="top1", signature=False)
    smallest = []
    for picture in PICTURES:
        files = [
            encode(picture, quality=q, subsampling=s, signature=False)
            for q in QUALITIES
            for s in ("4:2:0", "4:4:4")
        ]
        kept = [file for file in files if read(net, file).argmax() == read(net, picture).argmax()]
        smallest.append(min(map(len, kept)))
    sizes = [len(one.data) for one in found]
    assert all(size >= least for size, least in zip(sizes, smallest, strict=True))
    assert sum(sizes) < 1.4 * sum(smallest)
    assert any(one.subsampling == "4:2:0" for one in found)
    assert any(one.subsampling == "4:4:4" for one in found)


def test_all_networks_must_read_the_same(network):
    nets = [network("one"), network("two")]
    both = encode_to_target(PICTURES, networks=nets, keep="top1")
    for picture, file in zip(PICTURES, both, strict=True):
        for net in nets:
            assert read(net, file.data).argmax() == read(net, picture).argmax()
    alone = encode_to_target(PICTURES, networks=nets[:1], keep="top1")
    lost = [
        read(nets[1], a.data).argmax() != read(nets[1], p).argmax()
        for a, p in zip(alone, PICTURES, strict=True)
    ]
    assert any(lost)  # as is said: a network that is not asked may read something else


def test_company_changes_nothing(network):
    net = network("one")
    together = encode_to_target(PICTURES[:4], networks=[net], keep="top1", threads=3)
    apart = [encode_to_target([picture], networks=[net], keep="top1")[0] for picture in PICTURES[:4]]
    for one, other in zip(together, apart, strict=True):
        # batches of other pictures change the last digits of what is read
        assert one == replace(other, divergence=pytest.approx(other.divergence, rel=1e-4))
    assert encode_to_target([], networks=[net], keep="top1") == []


def test_networks_by_name(network):
    net = network("two")
    by_name = encode_to_target(PICTURES[:2], networks=[net.spec], keep="top1")
    assert by_name == encode_to_target(PICTURES[:2], networks=[net], keep="top1")


def test_what_cannot_be_kept_is_the_largest_file(network):
    nets, picture = [network("strict")], PICTURES[0]
    (found,) = encode_to_target([picture], networks=nets, keep="divergence=0.001", signature=False)
    assert not found.met
    assert found.data == encode(picture, quality=100, subsampling="4:4:4", signature=False)


def test_table_and_options_are_used(network):
    net = network("one")
    table = load_table("standard")
    options = {"progressive": True, "hardness": 15, "seed": 3, "subsampling": "4:2:2", "signature": False}
    for picture, found in zip(
        PICTURES[:3],
        encode_to_target(PICTURES[:3], table, networks=[net], keep="top1", **options),
        strict=True,
    ):
        assert found.data == encode(picture, table, found.quality, **options)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK"])
def test_other_pictures(network, mode):
    net = network("one")
    image = Image.fromarray(PICTURES[3]).convert(mode)
    (found,) = encode_to_target([image], networks=[net], keep="top1")
    assert read(net, found.data).argmax() == read(net, np.asarray(image.convert("RGB"))).argmax()
    if mode == "L":
        assert encode_to_target([np.asarray(image)], networks=[net], keep="top1") == [found]


def test_orientation_is_that_of_the_file(network):
    """Turned pixels with EXIF that turns them back: networks see the picture upright, before and after."""
    net = network("one")
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 270 degrees
    turned = [np.rot90(picture).copy() for picture in PICTURES]
    found = encode_to_target(turned, networks=[net], keep="top1", exif=exif.tobytes())
    for picture, one in zip(PICTURES, found, strict=True):
        shown = np.rot90(np.asarray(Image.open(io.BytesIO(one.data))), -1)
        assert read(net, shown.copy()).argmax() == read(net, picture).argmax()


def test_comment_says_what_was_kept(network):
    nets = [network("one"), network("two")]
    metadata = [{"comment": b"mine"}, {}]
    first, second = encode_to_target(PICTURES[:2], networks=nets, keep="top1", metadata=metadata)
    names = f"one {nets[0].digest}, two {nets[1].digest}"
    line = f"dnnjpeg keeps top1 of {names} at quality"
    assert inspect(first.data).comment == f"mine\n{line} {first.quality}"
    assert inspect(second.data).comment == f"{line} {second.quality}"
    (bare,) = encode_to_target(PICTURES[:1], networks=nets, keep="top1", signature=False, comment=b"mine")
    assert inspect(bare.data).comment == "mine"
    assert inspect(bare.data).table is None


# What is refused


@pytest.mark.parametrize(
    "keep",
    [
        "", "top2", "top", "Top1", "divergence", "divergence=", "divergence=0", "divergence=-1",
        "divergence=x", "price=0", "price=-1", "price=1e999", "price=inf", "price=1e", "price",
        "quality", "quality=0", "quality=-1",
    ],
)  # fmt: skip
def test_wrong_rules(network, keep):
    with pytest.raises(ValueError, match="expected same, distance=X, accuracy=X% or price=X"):
        encode_to_target(PICTURES[:1], networks=[network("one")], keep=keep)


def test_a_quality_is_at_most_100(network):
    with pytest.raises(ValueError, match="quality is 101"):
        encode_to_target(PICTURES[:1], networks=[network("one")], keep="quality=101")


@pytest.mark.parametrize("keep", ["price=1e-4", "quality=75"])
def test_without_a_bound_nothing_is_pruned(network, keep):
    with pytest.raises(ValueError, match=f"keep is '{keep}'"):
        encode_to_target(PICTURES[:1], networks=[network("one")], keep=keep, prune=True)


def test_rule_that_cannot_be_broken(network):
    with pytest.raises(
        ValueError, match="few has 4 classes, and top5 needs more than 5: use another criterion"
    ):
        encode_to_target(PICTURES[:1], networks=[network("few")], keep="top5")


def test_network_that_fails_on_a_picture(network):
    pictures = [*PICTURES[:2], np.zeros_like(PICTURES[0])]
    with pytest.raises(ValueError, match="no_black returns NaN or infinity for picture 2"):
        encode_to_target(pictures, networks=[network("no_black")], keep="top1")


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 10))
@settings(max_examples=50, deadline=None)
def test_rules_by_numpy(seed, scale):
    torch = pytest.importorskip("torch")
    from dnnjpeg.networks.criterion import Criterion
    from dnnjpeg.networks.tasks import Classification

    rng = np.random.default_rng(seed)
    clean = rng.normal(0, 3, (5, 9))
    logits = clean + rng.normal(0, scale, clean.shape)
    task, pair = Classification(), (torch.from_numpy(logits), torch.from_numpy(clean))
    kept = {
        text: (Criterion.parse(text).margin(task, *pair) > 0).tolist()
        for text in ("same", "top1", "top5", "divergence=0.3", "distance=0.3")
    }
    assert kept["same"] == kept["top1"] and kept["distance=0.3"] == kept["divergence=0.3"]
    for i in range(5):
        assert kept["top1"][i] == (clean[i].argmax() == logits[i].argmax())
        assert kept["top5"][i] == (set(clean[i].argsort()[4:]) == set(logits[i].argsort()[4:]))
        assert kept["divergence=0.3"][i] == (divergence(clean[i], logits[i]) < 0.3)
