"""Batches of pictures for training, and the accuracy of a network behind a JPEG layer."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.encoder import encode
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.learn.jpegdl import Form, JPEGLayer
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.readings import compare, decode
from dnnjpeg.table.point import OperatingPoint

Pictures = NDArray[np.uint8]  # N x H x W x 3


@torch.no_grad()
def read(
    network: Network,
    pictures: Pictures,
    layer: JPEGLayer | None = None,
    form: Form | Literal["real"] = "soft",
    *,
    batch: int = 50,
) -> NDArray[np.float32]:
    """Logits of pictures behind a layer in the given form.

    pictures: uint8 N x H x W x 3. Larger ones are cropped to their centre.
    form: a form of the layer, or "real": files (`JPEGLayer.encode`), decoded by Pillow.
    batch: pictures that the network sees at a time.

    Returns float32 N x classes. Raises ValueError for logits that are not finite.
    """
    pictures = cut(pictures, network.preprocess.size)
    if layer is None:
        return network.read(pictures, batch)
    if form == "real":
        return network.read([decode(layer.encode(picture)) for picture in pictures], batch)
    before, layer.form = layer.form, form
    try:
        parts = [
            network(layer(pixels(pictures[i : i + batch], network.device)))
            for i in range(0, len(pictures), batch)
        ]
    finally:
        layer.form = before
    logits = torch.cat(parts).cpu().numpy()
    if not np.isfinite(logits).all():
        raise ValueError(f"{network.name} returns NaN or infinity")
    return logits


def accuracies(
    network: Network, test: Dataset, layer: JPEGLayer | None = None, points: Sequence[OperatingPoint] = ()
) -> dict[str, float]:
    """Top-1 (0..1) for different inputs of the network.

    The keys are "soft layer", "hard layer" and "real files" with a layer, and "original" without one. For
    each of the points, "quality Q" is top-1 on its files, which go through the soft layer if there is one.

    test: pictures with labels. Larger ones are cropped to their centre.

    Raises ValueError if labels are missing or are not the network's, if pictures are too small, or if logits
    are not finite.
    """
    check_labels(network, test)
    pictures = cut(test.squares, network.preprocess.size)
    logits = {}
    if layer is None:
        logits["original"] = read(network, pictures)
    else:
        logits = {f"{form} layer": read(network, pictures, layer, form) for form in ("soft", "hard")}
        logits["real files"] = read(network, pictures, layer, "real")
    for point in points:
        logits[f"quality {point.quality}"] = read(network, recompress(pictures, [point]), layer)
    return {name: float(compare(one, one, test.labels).top1.mean()) for name, one in logits.items()}


def check_labels(network: Network, data: Dataset) -> None:
    """Raise ValueError if a data set has no labels, or labels that are no classes of the network."""
    classes = network.read(data.pictures[:1]).shape[1]
    if data.labels is None:
        raise ValueError(
            f"{data.source} has no labels: give labels, or use finetune 'distill', which needs none"
        )
    if data.labels.max() >= classes:
        raise ValueError(
            f"{data.source} has the label {data.labels.max()}, expected 0..{classes - 1}, the classes of the "
            "network"
        )


def recompress(
    pictures: Pictures, points: Sequence[OperatingPoint], generator: np.random.Generator | None = None
) -> Pictures:
    """Encode pictures, and decode them by Pillow.

    pictures: uint8 N x H x W x 3; the result is the same.
    generator: chooses one of the points for each picture. None: the points are used in turn.
    """
    count = len(pictures)
    which = np.arange(count) % len(points) if generator is None else generator.integers(0, len(points), count)
    return np.stack([decode(encode(one, points[i])) for one, i in zip(pictures, which, strict=True)])


def cut(pictures: Pictures, size: int) -> Pictures:
    """Crop pictures to their centre, uint8 N x size x size x 3. Raises ValueError for smaller pictures."""
    height, width = pictures.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"pictures are {width} x {height}, expected at least {size} x {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pictures[:, top : top + size, left : left + size]


def augment(pictures: Pictures, size: int, pad: int, flip: bool, generator: np.random.Generator) -> Pictures:
    """Crop pictures at random to size x size, after adding a black border of `pad`. `flip` mirrors half."""
    padded = np.pad(pictures, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.empty((len(pictures), size, size, 3), np.uint8)
    tops, lefts = (generator.integers(0, side - size + 1, len(out)) for side in padded.shape[1:3])
    mirrored = generator.integers(0, 2, len(out)) * flip
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        one = padded[i, top : top + size, left : left + size]
        out[i] = one[:, ::-1] if mirrored[i] else one
    return out


def pixels(pictures: Pictures, device: torch.device) -> Tensor:
    """Pictures as a tensor on a device: float32 N x 3 x H x W, 0..255."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float()
