"""A trained network on real pictures reads with a plan what it reads without."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from dnnjpeg.networks.load import load_network  # noqa: E402
from dnnjpeg.sparse import optimize_  # noqa: E402


def test_the_same_classes(data_dir: Path) -> None:
    network = load_network(f"{data_dir.parent / 'models' / 'zoo.py'}:cifar_resnet20")
    pictures = np.asarray(Image.open(data_dir / "cifar10" / "test_0000.png")).reshape(-1, 32, 32, 3)[:200]
    labels = np.load(data_dir / "cifar10" / "test_labels.npy")[:200]
    before = network.read(pictures)
    given: list[torch.Tensor] = []
    hook = network.module.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    network.read(pictures[:1])
    hook.remove()
    report = optimize_(network.module, given[0], seconds=0)
    assert len(report.layers) == 19 and report.difference < 1e-5
    assert max(layer.difference for layer in report.layers) < 1e-5
    assert np.mean([layer.zeros for layer in report.layers[1:]]) > 0.3
    after = network.read(pictures)
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert np.abs(after - before).max() < 1e-3
    assert (after.argmax(axis=1) == labels).mean() > 0.85
