"""A small classifier without training, pictures for it, their labels (what it says), and their DCT."""

import numpy as np
import torch
from scipy.fft import dctn
from torch import nn

SIZE, CLASSES = 32, 4
PREPROCESS = {"size": SIZE, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def pictures(count: int, seed: int = 0, width: int = SIZE, height: int = SIZE) -> np.ndarray:
    """N x height x width x 3 uint8: coloured gratings, grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    u, v, phase = rng.uniform(-2, 2, (3, count, 3, 1, 1))
    waves = np.sin(u * x + v * y + 6 * phase) * rng.uniform(2, 25, (count, 3, 1, 1))
    grain = rng.normal(0, 3, (count, 3, height, width))
    values = rng.uniform(110, 140, (count, 3, 1, 1)) + waves + waves.mean(1, keepdims=True) + grain
    return np.clip(values, 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def layer_steps(seed: int = 0, tables: int = 2) -> np.ndarray:
    """Steps of a JPEG layer, tables x 64, 1..40."""
    return np.random.default_rng(seed).uniform(1, 40, (tables, 64))


def layer_pixels(count: int = 3, height: int = SIZE, width: int = SIZE) -> torch.Tensor:
    """Pictures as a JPEG layer takes them: float N x 3 x height x width, 0..255."""
    return torch.from_numpy(pictures(count)[:, :height, :width]).permute(0, 3, 1, 2).float()


def cpmf(z: torch.Tensor, q: torch.Tensor, kappa: torch.Tensor, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest index n, shaped as z, and P(n + k | z) for k = -K..K in a last dimension, by autograd."""
    t = z / q
    nearest = t.detach().round()
    offsets = torch.arange(-K, K + 1, dtype=t.dtype, device=t.device)
    r = (t - nearest).unsqueeze(-1)
    kappa = torch.as_tensor(kappa, dtype=t.dtype, device=t.device).unsqueeze(-1)
    return nearest, torch.softmax(kappa * offsets * (2 * r - offsets), dim=-1)


def luma_coefficients(picture: np.ndarray) -> np.ndarray:
    """Of a picture whose sides are multiples of 8: blocks x 64, by scipy."""
    luma = picture.astype(float) @ (0.299, 0.587, 0.114) - 128
    rows, columns = (side // 8 for side in luma.shape)
    blocks = luma.reshape(rows, 8, columns, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    return dctn(blocks, axes=(1, 2), norm="ortho").reshape(-1, 64)


def published_layer(pixels: torch.Tensor, q: torch.Tensor, alpha: float) -> torch.Tensor:
    """JPEG-DL as its authors have it: N x 3 x H x W in and out, sides multiples of 8, steps 2 x 64."""
    colour = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    to_ycc = torch.from_numpy(colour)
    basis = torch.from_numpy(dctn(np.eye(64).reshape(64, 8, 8), axes=(1, 2), norm="ortho").reshape(64, 64))
    count, _, height, width = pixels.shape
    planes = torch.einsum("dc,nchw->ndhw", to_ycc, pixels - 128)
    blocks = planes.reshape(count, 3, height // 8, 8, width // 8, 8).transpose(3, 4).flatten(4)
    z, steps = blocks @ basis, q[[0, 1, 1]][:, None, None]
    around = torch.arange(-2, 3, dtype=z.dtype)
    i = ((z / steps).detach().round()[..., None] + around).clamp(-127, 127)
    chances = (-alpha * (z[..., None] - i * steps[..., None]) ** 2).softmax(-1)
    tiles = ((chances * i).sum(-1) * steps @ basis.T).unflatten(-1, (8, 8)).transpose(3, 4)
    decoded = tiles.reshape(count, 3, height, width)
    return torch.einsum("dc,nchw->ndhw", to_ycc.inverse(), decoded) + 128


def classifier(seed: int = 0) -> nn.Module:
    """Random weights, which see a fifth of the colour, so that tables better than the standard ones are easy
    to find; logits have mean 0 and standard deviation 3 over some pictures.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 12, 5, 2), nn.ReLU(), nn.Conv2d(12, 24, 3, 2), nn.ReLU())
        head = nn.Linear(24, CLASSES)
    module = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        grey = body[0].weight.sum(1, keepdim=True) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        body[0].weight.lerp_(grey, 0.8)
        inputs = torch.from_numpy(pictures(200, 99)).permute(0, 3, 1, 2) / 255
        logits = module((inputs - 0.5) / 0.25)
        head.weight *= 3 / logits.std(0)[:, None]
        head.bias -= logits.mean(0)
        head.bias *= 3 / logits.std(0)
    module.preprocess = PREPROCESS
    return module.eval()


def second_classifier() -> nn.Module:
    return classifier(1)


def mute_classifier() -> nn.Module:
    """Says nothing that can be read."""
    module = classifier()
    module[-1].bias.data[0] = float("nan")
    return module
