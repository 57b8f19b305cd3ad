"""Readings: a network's output for encoded pictures, compared with its output for the originals."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image


class LabelError(ValueError):
    """Labels do not belong to a network's classes."""


@dataclass(frozen=True, eq=False)
class Readings:
    """Comparisons of N pictures: arrays with a value for each."""

    loss: NDArray[np.float64]  # cross-entropy to the label, nat; NaN without labels
    divergence: NDArray[np.float64]  # KL(clean || read) >= 0, nat
    top1: NDArray[np.bool_]  # the label has the largest logit; False without labels
    top5: NDArray[np.bool_]  # the label is among the five largest; False without labels
    agrees: NDArray[np.bool_]  # the largest logit is the one of the original


def compare(logits: ArrayLike, clean: ArrayLike, labels: ArrayLike | None = None) -> Readings:
    """Compare the logits of encoded pictures with those of the originals, and with labels.

    logits: logits of the encoded pictures, N x classes, finite.
    clean: logits of the originals, N x classes, finite.
    labels: N integers 0..classes - 1, or None.

    If two classes have equal logits, the first counts as the larger, as in `argmax`. Raises ValueError that
    names the argument, and LabelError for labels out of range.
    """
    read, original = _logits(logits, "logits"), _logits(clean, "clean")
    if read.shape != original.shape:
        raise ValueError(f"clean has the shape {original.shape}, expected that of logits, {read.shape}")
    log_read, log_clean = _log_softmax(read), _log_softmax(original)
    divergence = (np.exp(log_clean) * (log_clean - log_read)).sum(axis=1)
    agrees = read.argmax(axis=1) == original.argmax(axis=1)
    if labels is None:
        loss = np.full(len(read), np.nan)
        top1 = top5 = np.zeros(len(read), np.bool_)
    else:
        label = _labels(labels, *read.shape)[:, None]
        loss = -np.take_along_axis(log_read, label, axis=1)[:, 0]
        own = np.take_along_axis(read, label, axis=1)
        rank = ((read > own) | ((read == own) & (np.arange(read.shape[1]) < label))).sum(axis=1)
        top1, top5 = rank < 1, rank < 5
    return Readings(loss, np.maximum(divergence, 0.0), top1, top5, agrees)


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a file by Pillow: uint8 H x W x 3, RGB. Grey becomes RGB. Raises OSError."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _logits(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"{name} has the shape {array.shape}, expected N x classes")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}[{np.argwhere(~np.isfinite(array))[0][0]}] is not finite")
    return array


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _labels(values: ArrayLike, count: int, classes: int) -> NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, expected {count} integers")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise LabelError(
            f"labels[{wrong[0]}] is {labels[wrong[0]]} ({wrong.size} of {count} are out of range), expected "
            f"0..{classes - 1}: check that the labels belong to this network's {classes} classes"
        )
    return labels.astype(np.int64)
