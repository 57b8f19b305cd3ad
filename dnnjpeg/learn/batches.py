"""Pictures on their way to a network that is trained, and what it reads behind a JPEG layer."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.encoder import encode
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.learn.jpegdl import Form, JPEGLayer
from dnnjpeg.networks.load import Network
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
    """Logits, float32 N x classes, of pictures, uint8 N x H x W x 3, behind a layer in the given form.

    "real" writes files (`JPEGLayer.encode`) and has Pillow decode them. Of larger pictures the centre is cut.
    Raises ValueError for logits that are not finite.
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
    """Top-1, 0..1, by what stands before the network: "soft layer", "hard layer" and "real files" of it, or
    "original" without one; and "quality Q", files of each point, behind the soft layer where there is one.

    test: pictures with labels; of larger ones the centre is cut. Raises ValueError for labels that are
    missing or not the network's, for smaller pictures, and for logits that are not finite.
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
    """Raises ValueError for a data set without labels, or with others than the network's classes."""
    classes = network.read(data.pictures[:1]).shape[1]
    if data.labels is None:
        raise ValueError(f"{data.source} has no labels, which only distillation can do without")
    if data.labels.max() >= classes:
        raise ValueError(f"{data.source} has the label {data.labels.max()}, the network {classes} classes")


def recompress(
    pictures: Pictures, points: Sequence[OperatingPoint], generator: np.random.Generator | None = None
) -> Pictures:
    """Pictures as Pillow decodes their files. Of several points, each picture has one drawn, or without a
    generator the next in turn.
    """
    count = len(pictures)
    which = np.arange(count) % len(points) if generator is None else generator.integers(0, len(points), count)
    return np.stack([decode(encode(one, points[i])) for one, i in zip(pictures, which, strict=True)])


def cut(pictures: Pictures, size: int) -> Pictures:
    """The centre, N x size x size x 3. Raises ValueError for smaller pictures."""
    height, width = pictures.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"pictures are {width} x {height}, expected at least {size} x {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pictures[:, top : top + size, left : left + size]


def augment(pictures: Pictures, size: int, pad: int, flip: bool, generator: np.random.Generator) -> Pictures:
    """Squares cut at random out of pictures with a black border of `pad`, every other one mirrored."""
    padded = np.pad(pictures, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.empty((len(pictures), size, size, 3), np.uint8)
    tops, lefts = (generator.integers(0, side - size + 1, len(out)) for side in padded.shape[1:3])
    mirrored = generator.integers(0, 2, len(out)) * flip
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        one = padded[i, top : top + size, left : left + size]
        out[i] = one[:, ::-1] if mirrored[i] else one
    return out


def pixels(pictures: Pictures, device: torch.device) -> Tensor:
    """float32 N x 3 x H x W, 0..255."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float()
