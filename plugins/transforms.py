"""Train a network on what it will read: pictures encoded and decoded. Needs torch, but not torchvision."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from dnnjpeg.checks import brief, check_integer
from dnnjpeg.encoder import encode
from dnnjpeg.table.library import DEFAULT_TABLE

from .batches import as_picture, encode_batch

if TYPE_CHECKING:
    from dnnjpeg.table.table import Table

__all__ = ["JPEG", "encode_batch"]


class JPEG(torch.nn.Module):
    """Encode and decode pictures, as ``torchvision.transforms.v2.JPEG`` does, with a table of dnnjpeg.

    table: name of an installed table, path of one, or a Table; None is "universal".
    quality: a whole number 1..100; or (low, high): each call draws a quality from low to high, both included.
    seed: of the probabilistic quantizer. None draws a new one for each picture.
    options: other options of `dnnjpeg.encode`.

    A uint8 tensor [..., C, H, W] with 1 or 3 channels, or a PIL image (L or RGB), becomes one of the same
    kind and shape. ``jpeg(image=array, mask=...)``, the call of albumentations, takes a uint8 array H x W or
    H x W x 3. It returns a dict with the new image; all other entries stay as they are.

    Random numbers come from torch's generator. A DataLoader gives each worker its own seed. There is no
    gradient.
    """

    def __init__(
        self,
        table: "str | os.PathLike[str] | Table | None" = None,
        quality: int | Sequence[int] = (50, 95),
        *,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        bounds = list(quality) if isinstance(quality, Sequence) else [quality, quality]
        if len(bounds) != 2 or isinstance(quality, str):
            raise ValueError(f"quality is {brief(quality)}, expected a whole number or (low, high)")
        low, high = (check_integer(bound, "quality", 1, 100) for bound in bounds)
        if low > high:
            raise ValueError(f"quality is {brief(quality)}, expected the lower one first")
        for name in ("mode", "abbreviated"):
            if options.get(name):
                raise ValueError(f"{name} is {brief(options[name])}: leave it out, pictures are gray or RGB")
        self.table, self.quality, self.seed, self.options = table, (low, high), seed, options
        encode(np.zeros((8, 8, 3), np.uint8), table, low, seed=seed or 0, **options)

    def forward(self, picture: Any = None, **named: Any) -> Any:
        if picture is None and "image" in named:
            array = named["image"]
            return {**named, "image": self._array(array, self._draw()).reshape(np.shape(array))}
        if isinstance(picture, Image.Image) and picture.mode not in ("L", "RGB"):
            raise ValueError(f"the picture has the mode {picture.mode}, expected L or RGB: convert it first")
        if named or not isinstance(picture, torch.Tensor | Image.Image):
            raise TypeError(
                f"the picture is {brief(type(picture).__name__)}, expected a uint8 tensor [..., C, H, W], a "
                "PIL image, or image=array"
            )
        quality = self._draw()
        if isinstance(picture, Image.Image):
            return Image.fromarray(self._array(picture, quality))
        if picture.ndim < 3:
            raise ValueError(f"the tensor has the shape {list(picture.shape)}, expected [..., C, H, W]")
        if picture.numel() == 0:
            return picture.clone()
        flat = picture.detach().reshape(-1, *picture.shape[-3:])
        decoded = [self._array(as_picture(one), quality) for one in flat]
        stacked = torch.stack([torch.from_numpy(one.reshape(*one.shape[:2], -1)) for one in decoded])
        found = stacked.permute(0, 3, 1, 2).reshape(picture.shape).to(picture.device)
        return found.as_subclass(type(picture))

    def _draw(self) -> int:
        low, high = self.quality
        return int(torch.randint(low, high + 1, ()))

    def _array(self, picture: Any, quality: int) -> Any:
        seed = self.seed if self.seed is not None else int(torch.randint(2**63 - 1, ()))
        data = encode(picture, self.table, quality, seed=seed, **self.options)
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)

    def extra_repr(self) -> str:
        table = DEFAULT_TABLE if self.table is None else getattr(self.table, "name", self.table)
        return f"table={str(table)!r}, quality={self.quality}"
