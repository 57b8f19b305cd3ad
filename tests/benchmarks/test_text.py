"""The benchmarks of text and of retrieval, on made-up results."""

import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import pages
import recognizer
import retrieval
import text


@pytest.mark.parametrize(
    ("one", "other"), [("", "abc"), ("kitten", "sitting"), ("12.50", "12,5"), ("aab", "baa")]
)
def test_edit_distance(one: str, other: str) -> None:
    @cache
    def plain(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = plain(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(plain(i - 1, j) + 1, plain(i, j - 1) + 1, change)

    assert recognizer.distance(one, other) == plain(len(one), len(other))


@pytest.mark.skipif(shutil.which("fc-list") is None, reason="pages are drawn with the fonts of fontconfig")
def test_lines_stand_where_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DNNJPEG_DATA", raising=False)
    one = pages.page(6)
    assert np.array_equal(one.pixels, pages.page(6).pixels) and one.lines
    assert one.pixels.shape == (pages.HEIGHT, pages.WIDTH, 3)
    for line in one.lines:
        cut = pages.cut(one.pixels, line, 48).astype(float).mean(2)
        ink, around = np.abs(cut - np.median(cut))[8:40], np.abs(cut - np.median(cut))[[0, 1, -2, -1]]
        assert np.percentile(ink, 95) > 1.5 * np.percentile(around, 95)
    assert not set(pages.fonts()[::2]) & set(pages.fonts()[1::2])


def test_a_cut_is_straight() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:30, 10:50] = 255
    turned = np.asarray(Image.fromarray(picture).rotate(90, expand=True))
    line = pages.Line("x", ((20, 70), (30, 70), (30, 30), (20, 30)))
    found = pages.cut(turned, line, 20)
    assert found.shape == (20, 80, 3) and (found[2:-2, 2:-2] > 250).all()


def test_bytes_at_equal_error() -> None:
    """A codec with four fifths of the bytes at each error rate, and one that is always worse."""
    rng = np.random.default_rng(0)
    luck, characters = rng.uniform(0.5, 1.5, 50), np.full(50, 60)
    rates = {10: 0.5, 20: 0.3, 50: 0.15, 75: 0.07, 85: 0.04}

    def setting(codec: str, quality: int, share: float, worse: float = 1) -> dict[str, object]:
        sizes = share * 1000 * (1 + quality / 10) * luck
        errors = worse * rates[quality] * characters * luck / luck.mean()
        return {"codec": codec, "quality": quality, "bytes": sizes.tolist(), "errors": errors.tolist()}

    some = []
    for quality in rates:
        some += [setting("pillow", quality, 1), setting("other", quality, 0.8), setting("bad", quality, 1, 3)]
    found = text.as_markdown({"characters": characters.tolist(), "settings": some})
    assert "30.0 % (quality 20) | 15.0 % (quality 50) | 7.0 % (quality 75)" in found
    assert "| other | -20.0 (-20.0..-20.0) | -20.0 (-20.0..-20.0) | -20.0 (-20.0..-20.0) |" in found
    assert "not reached" in found.split("| bad |")[1]


def test_recall_is_that_of_a_plain_search() -> None:
    import torch

    rng = np.random.default_rng(0)
    index = rng.normal(size=(30, 8))
    read = index + rng.normal(0, 0.7, index.shape)

    def nearest(query: np.ndarray, own: int) -> int:
        cosines = index @ query / np.linalg.norm(index, axis=1)
        return max((i for i in range(30) if i != own), key=lambda i: cosines[i])

    expected = [nearest(read[i], i) == nearest(index[i], i) for i in range(30)]
    task = retrieval.Retrieval(torch.from_numpy(index), "made up")
    found = task.metrics(torch.from_numpy(read), torch.arange(30))["recall"]
    assert found.tolist() == expected and 0 < sum(expected) < 30


def test_embeddings_are_what_the_last_layer_reads() -> None:
    import torch
    from torch import nn

    last = nn.Linear(5, 3)
    body = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    classifier = nn.Sequential(body, last)
    classifier.preprocess = {"size": 2}
    module = retrieval.Penultimate(classifier, last)
    pixels = torch.randn(4, 3, 2, 2)
    assert torch.equal(module(pixels), body(pixels)) and module.preprocess == {"size": 2}
