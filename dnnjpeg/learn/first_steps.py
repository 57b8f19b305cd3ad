"""Where the steps of a JPEG layer begin, as JPEG-DL has them."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dnnjpeg.files.dataset import Dataset
from dnnjpeg.soft.jpeg import to_coefficients

_MAGNITUDE_BITS = 8  # of the steps for ImageNet


def sensitivity_steps(sensitivity: NDArray[np.float64], largest: float = 5.0) -> NDArray[np.float64]:
    """JPEG-DL's first steps for CIFAR and fine-grained pictures, 2 x 64: in inverse proportion to how much
    the loss of a trained network feels a frequency, the largest of luma being `largest`.

    sensitivity: 3 x 64, of `dnnjpeg.learn.sensitivity.fisher`; chroma takes the mean of Cb and Cr.
    """
    inverse = 1 / np.stack([sensitivity[0], sensitivity[1:].mean(0)])
    return largest * inverse / inverse[0].max()


def magnitude_steps(dataset: Dataset, subsampling: str = "4:4:4") -> NDArray[np.float64]:
    """JPEG-DL's first steps for ImageNet, 2 x 64: 2 E|z| / sqrt(2^(b - 1)), b = 8, over the data set.

    Where pictures have nothing, as grey ones in chroma: 0.001.
    """
    total = np.zeros((3, 64))
    for picture in dataset.pictures:
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
        for c, plane in enumerate(to_coefficients(pixels, subsampling)):
            total[c] += plane[0].abs().double().mean(0).numpy()
    mean = total / len(dataset)
    steps = 2 * np.stack([mean[0], mean[1:].mean(0)]) / math.sqrt(2 ** (_MAGNITUDE_BITS - 1))
    return np.maximum(steps, 1e-3)
