"""How pictures reach a network, and what it says of them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawing import draw
from means import MEAN, STD
from PIL import Image

torch = pytest.importorskip("torch")

from dnnjpeg.files.view import View  # noqa: E402
from dnnjpeg.networks.load import Network, load_network  # noqa: E402


def through(network: Network, picture: np.ndarray) -> np.ndarray:
    """Logits of a Means, by hand: the centre, reduced by Pillow where it is larger."""
    square = np.asarray(View(network.preprocess.size).show(Image.fromarray(picture)), np.float64)
    means = square.mean((0, 1))
    weight, bias = (x.double().numpy() for x in (network.module.fc.weight, network.module.fc.bias))
    return weight @ ((means / 255 - MEAN) / STD) + bias


@pytest.mark.parametrize(("width", "height"), [(16, 16), (40, 40), (37, 21), (9, 12), (1, 1)])
def test_pictures_are_cut_and_normalised(make: Callable[..., Network], width: int, height: int) -> None:
    network = make()
    picture = draw(width, height)
    (logits,) = network.read(picture[None])
    np.testing.assert_allclose(logits, through(network, picture), atol=1e-4)
    assert network.module.seen.shape == (1, 3, 16, 16)
    assert network.module.seen.is_contiguous(memory_format=torch.channels_last)


def test_reading_is_calling(make: Callable[..., Network]) -> None:
    network = make()
    pictures = np.stack([draw(16, 16, seed=i) for i in range(7)])
    pictures.setflags(write=False)
    logits = network(torch.tensor(pictures).permute(0, 3, 1, 2).double())
    assert logits.dtype == torch.float32 and logits.shape == (7, 4)
    for batch in (1, 3, 7, 50):
        read = network.read(pictures, batch=batch)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, logits.numpy(), atol=1e-5)
        np.testing.assert_array_equal(network.read(list(pictures), batch=batch), read)


def test_pictures_of_several_sizes_are_read_together(make: Callable[..., Network]) -> None:
    network = make()
    pictures = [draw(*size, seed=i) for i, size in enumerate([(16, 16), (50, 20), (17, 90)])]
    read = network.read(pictures)
    for picture, logits in zip(pictures, read, strict=True):
        np.testing.assert_allclose(logits, through(network, picture), atol=1e-4)
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
        np.testing.assert_allclose(network(pixels)[0].numpy(), logits, atol=2e-3)  # Pillow rounds


def test_the_gradient_reaches_the_pixels(make: Callable[..., Network]) -> None:
    network = make()
    network.read(np.zeros((1, 30, 20, 3), np.uint8))  # leaves nothing behind that has no gradient
    for shape in ((2, 3, 16, 16), (2, 3, 32, 48)):
        pixels = torch.full(shape, 100.0, requires_grad=True)
        network(pixels)[:, 1].sum().backward()
        each = network.module.fc.weight[1] / (255 * torch.tensor(STD))  # of a colour's mean
        torch.testing.assert_close(pixels.grad.sum((2, 3)), each.expand(2, 3))
        assert network.module.fc.weight.grad is None


def test_autocast_is_honoured(make: Callable[..., Network]) -> None:
    network = make("net.fc.register_forward_hook(lambda m, i, o: setattr(net, 'inner', o.dtype))")
    pixels = torch.rand(2, 3, 24, 24) * 255
    exact = network(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(pixels)
    assert network.module.inner == torch.bfloat16 and rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((0, 16, 16, 3), np.uint8), "pictures is empty"),
        ([], "pictures is empty"),
        (
            np.zeros((2, 16, 16, 3), np.float32),
            r"pictures are float32 \(16, 16, 3\), expected uint8 H x W x 3",
        ),
        (np.zeros((2, 3, 16, 16), np.uint8), r"pictures are uint8 \(3, 16, 16\)"),
        (np.zeros((16, 16, 3), np.uint8), r"pictures are uint8 \(16, 3\)"),
        ([np.zeros((16, 16), np.uint8)], r"pictures are uint8 \(16, 16\)"),
    ],
)
def test_pictures_of_another_form(make: Callable[..., Network], pictures: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().read(pictures)


def test_logits_that_are_not_finite_name_the_picture(make: Callable[..., Network]) -> None:
    network = make(
        "net.fc.register_forward_hook(lambda m, i, o: torch.where(i[0][:, :1] > 2, o * float('inf'), o))"
    )
    pictures = np.zeros((5, 16, 16, 3), np.uint8)
    network.read(pictures)
    pictures[3] = 255
    with pytest.raises(ValueError, match="tiny returns NaN or infinity for picture 3"):
        network.read(pictures, batch=2)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o * float('nan')", "tiny returns NaN or infinity for picture 0"),
        ("o[0]", r"tiny returns \(4,\) for 2 pictures, expected N x classes"),
        ("o[:1]", r"tiny returns \(1, 4\) for 2 pictures"),
        ("o[..., None, None]", r"tiny returns \(2, 4, 1, 1\) for 2 pictures"),
        ("(o, o)", "tiny returns tuple for 2 pictures"),
        ("{'logits': o}", r"tiny returns \{'logits': \(2, 4\)\} for 2 pictures"),
        ("o[:, :1]", "it returns one value, expected a logit for each class"),
        ("o.softmax(1)", "it returns probabilities, expected logits"),
        ("o @ o", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_network_that_makes_no_logits(make: Callable[..., Network], output: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"tiny cannot read a picture of 16 x 16: {message}"):
        make(f"net.register_forward_hook(lambda m, i, o: {output})")


def test_log_probabilities_are_logits(make: Callable[..., Network]) -> None:
    logits = make("net.register_forward_hook(lambda m, i, o: o.log_softmax(1))").read(draw(16, 16)[None])
    assert math.isclose(np.exp(logits).sum(), 1, rel_tol=1e-5)


def test_a_real_network_is_as_good_as_published(data_dir: Path) -> None:
    zoo, pictures = data_dir.parent / "models" / "zoo.py", data_dir / "cifar10" / "test_0000.png"
    if not (zoo.exists() and pictures.exists()):
        pytest.skip(f"{data_dir.parent} has no models/zoo.py or no data/cifar10")
    network = load_network(f"{zoo}:cifar_resnet20")
    rows = np.asarray(Image.open(pictures)).reshape(-1, 32, 32, 3)
    right = network.read(rows).argmax(axis=1) == np.load(data_dir / "cifar10" / "test_labels.npy")
    assert right.mean() == pytest.approx(0.915, abs=0.001)
