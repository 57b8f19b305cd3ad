"""Readings against scipy and a plain sort; decoding against another wrapper of libjpeg-turbo."""

import io

import numpy as np
import pytest
import simplejpeg
from drawing import draw
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.special import log_softmax, rel_entr, softmax

from dnnjpeg import encode
from dnnjpeg.networks.readings import compare, decode


@st.composite
def pairs(draw_: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, clean logits and labels; few values, so that ties are common, and far ones."""
    shape = draw_(st.tuples(st.integers(1, 5), st.integers(1, 9)))
    values = st.sampled_from([-3.0, 0.0, 0.5, 3.0, 1e4, -1e4]) | st.floats(-20, 20, width=32)
    logits, clean = (draw_(arrays(np.float32, shape, elements=values)) for _ in range(2))
    return logits, clean, draw_(arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))


@given(pairs())
def test_readings_are_the_textbook_s(pair: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, clean, labels = pair
    readings = compare(logits, clean, labels)
    for i, label in enumerate(labels):
        order = sorted(range(logits.shape[1]), key=lambda k: (-logits[i, k], k))
        assert readings.loss[i] == pytest.approx(-log_softmax(logits[i].astype(float))[label], abs=1e-9)
        assert readings.top1[i] == (order[0] == label)
        assert readings.top5[i] == (label in order[:5])
        assert readings.agrees[i] == (order[0] == np.argmax(clean[i]))
    assert (readings.divergence >= 0).all() and np.isfinite(readings.divergence).all()
    assert np.isfinite(readings.loss).all()


@given(arrays(np.float64, (2, 3, 6), elements=st.floats(-30, 30)))
def test_divergence_is_from_the_original(both: np.ndarray) -> None:
    expected = rel_entr(softmax(both[1], axis=1), softmax(both[0], axis=1)).sum(axis=1)
    np.testing.assert_allclose(compare(both[0], both[1]).divergence, expected, atol=1e-9)


@given(pairs(), st.floats(-1e4, 1e4))
def test_a_constant_added_to_all_logits_changes_nothing(
    pair: tuple[np.ndarray, np.ndarray, np.ndarray], constant: float
) -> None:
    logits, clean, labels = (x.astype(np.float64).round(3) for x in pair)
    one = compare(logits, clean, labels.astype(int))
    other = compare(logits + constant, clean - constant, labels.astype(int))
    np.testing.assert_allclose(other.loss, one.loss, atol=1e-6)
    np.testing.assert_allclose(other.divergence, one.divergence, atol=1e-6)


def test_equal_logits_diverge_by_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 1000)).astype(np.float32)
    readings = compare(logits, logits)
    assert (readings.divergence == 0).all() and readings.agrees.all()


def test_without_labels_there_are_no_metrics() -> None:
    readings = compare([[1.0, 2.0]], [[2.0, 1.0]])
    assert readings.metrics == {} and not hasattr(readings, "top1")
    assert not readings.agrees.any()
    labelled = compare([[1.0, 2.0]], [[2.0, 1.0]], [1])
    assert {x.dtype for x in (labelled.top1, labelled.top5, labelled.agrees)} == {np.dtype(bool)}
    assert labelled.loss.dtype == labelled.divergence.dtype == np.float64


@pytest.mark.parametrize(
    ("logits", "clean", "labels", "message"),
    [
        ([1.0, 2.0], [[1.0, 2.0]], None, r"logits has the shape \(2,\), expected N x classes"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], None, r"clean has the shape \(1, 3\), expected .* \(1, 2\)"),
        ([[1.0, 2.0], [1.0, np.nan]], [[1.0, 2.0]] * 2, None, r"logits\[1\] is not finite"),
        ([[1.0, 2.0]], [[np.inf, 2.0]], None, r"clean\[0\] is not finite"),
        ([[1.0, 2.0]] * 3, [[1.0, 2.0]] * 3, [0, 2, 5], r"labels\[1\] is 2 \(2 of 3 .* expected 0\.\.1"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [-1], r"labels\[0\] is -1"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [1, 1], r"shape \(2,\), expected 1 integers"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [1.0], r"labels are float64"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [True], r"labels are bool"),
    ],
)
def test_what_does_not_fit_is_named(logits: object, clean: object, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(logits, clean, labels)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_files_are_decoded_as_everywhere(subsampling: str) -> None:
    data = encode(draw(45, 37), quality=60, subsampling=subsampling)
    pixels = decode(data)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, simplejpeg.decode_jpeg(data, "RGB"))


def test_grey_becomes_rgb() -> None:
    grey, file = draw(20, 10)[..., 0], io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    np.testing.assert_array_equal(decode(file.getvalue()), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("data", [b"", b"no picture", encode(draw(64, 64))[:400]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(OSError):
        decode(data)
