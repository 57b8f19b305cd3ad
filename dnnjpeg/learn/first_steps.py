"""The first steps of a JPEG layer, as in JPEG-DL."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dnnjpeg.files.dataset import Dataset
from dnnjpeg.soft.jpeg import to_coefficients

_MAGNITUDE_BITS = 8  # of the steps for ImageNet


def sensitivity_steps(sensitivity: NDArray[np.float64], largest: float = 5.0) -> NDArray[np.float64]:
    """JPEG-DL's first steps for CIFAR and fine-grained pictures: in inverse proportion to a sensitivity.

    sensitivity: float64 3 x 64, for example from `dnnjpeg.learn.sensitivity.fisher`. Chroma gets the mean of
        Cb and Cr.
    largest: the largest step of luma.

    Returns float64 2 x 64.
    """
    inverse = 1 / np.stack([sensitivity[0], sensitivity[1:].mean(0)])
    return largest * inverse / inverse[0].max()


def magnitude_steps(dataset: Dataset, subsampling: str = "4:4:4") -> NDArray[np.float64]:
    """JPEG-DL's first steps for ImageNet: 2 E|z| / sqrt(2^(b - 1)), with b = 8, over the data set.

    Returns float64 2 x 64. Steps are at least 0.001, also for grey pictures, whose chroma is 0.
    """
    total = np.zeros((3, 64))
    for picture in dataset.pictures:
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
        for c, plane in enumerate(to_coefficients(pixels, subsampling)):
            total[c] += plane[0].abs().double().mean(0).numpy()
    mean = total / len(dataset)
    steps = 2 * np.stack([mean[0], mean[1:].mean(0)]) / math.sqrt(2 ** (_MAGNITUDE_BITS - 1))
    return np.maximum(steps, 1e-3)
