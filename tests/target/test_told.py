"""Encoding to a target: which table is taken, what is told of the readings, and a share that may break."""

from dataclasses import replace

import numpy as np
import pytest
from drawing import draw
from independent import divergence, encode, encode_to_target, read

import dnnjpeg
from dnnjpeg import inspect
from dnnjpeg.table.library import load_table, table_for
from dnnjpeg.target.sources import QUALITIES

PICTURES = [draw(72, 56, seed) for seed in range(12)]


def test_the_table_that_was_learned_for_the_networks(network, monkeypatch):
    net = network("one")
    how = {"networks": [net], "keep": "top1"}
    (plain,) = dnnjpeg.encode_to_target(PICTURES[:1], **how)
    assert inspect(plain.data).table == "universal"
    mine = replace(load_table("resnet18"), provenance={"models": [{"name": "one", "weights": net.digest}]})
    monkeypatch.setattr("dnnjpeg.table.library.list_tables", lambda: {"mine": None, "universal": None})
    monkeypatch.setattr(
        "dnnjpeg.table.library.load_table", lambda name: mine if name == "mine" else load_table(name)
    )
    assert table_for([net.digest]) == "mine"
    assert table_for([net.digest, "0" * 16]) == table_for([]) == "universal"


def test_what_networks_read_is_told(network):
    nets = [network("one"), network("two")]
    for keep in ("top1", "divergence=0.01", "price=1e-4"):
        for picture, one in zip(
            PICTURES[:4], encode_to_target(PICTURES[:4], networks=nets, keep=keep), strict=True
        ):
            pairs = [(read(net, picture), read(net, one.data)) for net in nets]
            assert one.divergence == pytest.approx(
                np.mean([divergence(*pair) for pair in pairs]), rel=1e-3, abs=1e-6
            )
            assert one.agrees == np.mean([a.argmax() == b.argmax() for a, b in pairs])
            assert 1 <= one.tried <= 2 * len(QUALITIES)
    (told,) = encode_to_target(PICTURES[:1], networks=nets, keep="quality=50")
    assert (told.divergence, told.agrees, told.tried) == (None, None, 1)
    (told,) = encode_to_target(PICTURES[:1], target_bytes=3000)
    assert (told.divergence, told.agrees, told.tried) == (None, None, 0)


def test_accuracy_spares_the_costliest_pictures(network):
    how = {"networks": [network("one"), network("two")], "subsampling": "4:2:0"}
    strict = encode_to_target(PICTURES, keep="top1", **how)
    found = encode_to_target(PICTURES, keep="accuracy=75%", **how)
    changed = [
        i for i, (one, other) in enumerate(zip(strict, found, strict=True)) if one.quality != other.quality
    ]
    usual = sorted(one.quality for one in strict)[len(strict) // 2]
    assert 0 < len(changed) <= 3
    assert all(strict[i].quality > found[i].quality == usual for i in changed)
    savings = {
        i: len(one.data) - len(encode(PICTURES[i], quality=usual, subsampling="4:2:0"))
        for i, one in enumerate(strict)
    }
    left = [saving for i, saving in savings.items() if i not in changed and strict[i].quality > usual]
    assert not left or max(left) <= min(savings[i] for i in changed) + 100  # notes differ in length
    for i in changed:
        agrees = [
            read(net, found[i].data).argmax() == read(net, PICTURES[i]).argmax() for net in how["networks"]
        ]
        assert found[i].agrees == np.mean(agrees)
    assert np.mean([one.agrees == 1 for one in found]) >= 0.75
    (alone,) = encode_to_target(PICTURES[:1], keep="accuracy=75%", **how)  # a quarter of one is none
    assert (alone.quality, alone.agrees) == (strict[0].quality, 1)


@pytest.mark.parametrize(
    "keep", ["accuracy=100%", "accuracy=99", "accuracy=-1%", "accuracy=%", "accuracy=1e1%"]
)
def test_wrong_accuracies(network, keep):
    with pytest.raises(ValueError, match="expected same, distance=X, accuracy=X%"):
        encode_to_target(PICTURES[:1], networks=[network("one")], keep=keep)
    with pytest.raises(ValueError, match=r"prune needs keep same, .* and keep is 'accuracy=90%'"):
        encode_to_target(PICTURES[:1], networks=[network("one")], keep="accuracy=90%", prune=True)
