"""A JPEG layer with fixed steps, as plain convolutions: for inference, torch.export and ONNX."""

import torch
from torch import Tensor, nn

from dnnjpeg.soft.jpeg import from_coefficients, to_coefficients


class FrozenJPEG(nn.Module):
    """JPEG in 4:4:4 with fixed steps. `JPEGLayer.frozen` makes it.

    Each round is a convolution (the DCT of Y, Cb and Cr), rounding, and a transposed convolution (the inverse
    DCT). Input and output are float32 [N, 3, height, width], RGB, 0..255. torch.onnx.export needs the package
    onnxscript; torch.export does not.

    steps, max_index: float [rounds, 192], the steps and the largest indices of Y, Cb and Cr.
    is_clipped: clip pixels to 0..255 after each round.
    """

    def __init__(self, steps: Tensor, max_index: Tensor, *, is_clipped: bool) -> None:
        super().__init__()
        self.is_clipped = is_clipped
        # Both maps are affine. Their matrices: the images of unit vectors, minus the image of 0 (grey).
        units = torch.eye(192, dtype=torch.float64)
        planes = torch.cat(to_coefficients(units.view(192, 3, 8, 8) + 128), dim=2)[:, 0]
        pixels = from_coefficients([plane[:, None] for plane in units.view(192, 3, 64).unbind(1)], 8, 8) - 128
        self.steps: Tensor
        self.max_index: Tensor
        self.forward_map: Tensor
        self.inverse_map: Tensor
        self.register_buffer("steps", steps.detach()[:, None, :, None, None].float())
        self.register_buffer("max_index", max_index.detach()[:, None, :, None, None].float())
        self.register_buffer("forward_map", planes.T.reshape(192, 3, 8, 8).to(self.steps).contiguous())
        self.register_buffer("inverse_map", pixels.to(self.steps))

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        for steps, max_index in zip(self.steps, self.max_index, strict=True):
            padded = nn.functional.pad(pixels, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
            indices = nn.functional.conv2d(padded, self.forward_map, stride=8) / steps
            held = indices.clamp(-max_index, max_index).round() * steps
            decoded = nn.functional.conv_transpose2d(held, self.inverse_map, stride=8) + 128
            pixels = decoded[..., :height, :width]
            if self.is_clipped:
                pixels = pixels.clamp(0, 255)
        return pixels
