"""What tables are learned for: losses, their gradients, real files, and data that teaches nothing."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tiny import CLASSES, PREPROCESS, classifier, pictures  # noqa: E402

import dnnjpeg  # noqa: E402
from dnnjpeg.cache import Cache  # noqa: E402
from dnnjpeg.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.models import Network, Preprocess  # noqa: E402
from dnnjpeg.table import standard_table  # noqa: E402


def network(seed: int = 0) -> Network:
    module = classifier(seed).requires_grad_(False)
    return Network(
        f"tiny{seed}", "tiny", f"{seed:016}", module, Preprocess.of(PREPROCESS), torch.device("cpu")
    )


def dataset(count: int = 40, labelled: bool = True) -> Dataset:
    some = pictures(count)
    labels = network().read(some).argmax(1).astype(np.int64) if labelled else None
    return Dataset(some, labels, tuple(map(str, range(count))), "tiny pictures")


def logits_of(net: Network, pixels: torch.Tensor) -> torch.Tensor:
    return net.module((pixels / 255 - 0.5) / 0.25)


def test_loss_with_labels_is_the_cross_entropy():
    objective = Objective([network()], dataset())
    index = np.array([3, 7, 20])
    pixels = objective.pixels(index) * 0.9
    loss, _ = objective.gradient(pixels, index)
    labels = torch.from_numpy(objective.dataset.labels[index])
    expected = -logits_of(network(), pixels).log_softmax(1)[torch.arange(3), labels]
    torch.testing.assert_close(loss, expected)


def test_loss_without_labels_is_the_divergence_from_the_clean_prediction():
    objective = Objective([network()], dataset(), use_labels=False)
    index = np.arange(5)
    clean = objective.pixels(index)
    loss, gradient = objective.gradient(clean, index)
    torch.testing.assert_close(loss, torch.zeros(5), atol=1e-6, rtol=0)  # a minimum
    torch.testing.assert_close(gradient, torch.zeros_like(clean), atol=1e-6, rtol=0)
    pixels = clean * 0.8
    p, q = (logits_of(network(), x).softmax(1) for x in (clean, pixels))
    torch.testing.assert_close(objective.gradient(pixels, index)[0], (p * (p / q).log()).sum(1))


@pytest.mark.parametrize("use_labels", [True, False])
def test_gradient_is_that_of_finite_differences(use_labels):
    objective = Objective([network(0), network(1)], _both_read(), use_labels, batch=2)
    index = np.array([0, 4, 5])
    pixels = objective.pixels(index) + torch.randn(3, 3, 32, 32, generator=torch.manual_seed(0))
    _, gradient = objective.gradient(pixels, index)
    direction = torch.randn(pixels.shape, generator=torch.manual_seed(1))
    h = 0.005
    above, below = (objective.gradient(pixels + d * direction, index)[0] for d in (h, -h))
    slope = (gradient * direction).sum((1, 2, 3))
    torch.testing.assert_close((above - below) / (2 * h), slope, rtol=0.05, atol=1e-3)


def _both_read() -> Dataset:
    """Pictures that two networks name alike."""
    some = pictures(200)
    names = [network(seed).read(some).argmax(1) for seed in (0, 1)]
    alike = names[0] == names[1]
    return Dataset(some[alike], names[0][alike].astype(np.int64), ("",) * int(alike.sum()), "tiny pictures")


def test_several_networks_weigh_by_their_clean_loss():
    data = _both_read()
    index = np.arange(6)
    both = Objective([network(0), network(1)], data)
    pixels = both.pixels(index) * 0.9
    parts = []
    for seed in (0, 1):
        alone = Objective([network(seed)], data)
        clean = logits_of(network(seed), alone.pixels(np.arange(len(data)))).log_softmax(1)
        scale = -clean[torch.arange(len(data)), torch.from_numpy(data.labels)].mean()
        parts.append(alone.gradient(pixels, index)[0] / scale)
    torch.testing.assert_close(both.gradient(pixels, index)[0], (parts[0] + parts[1]) / 2)
    assert Objective([network(0), network(1)], data, use_labels=False).scales == (1, 1)


def test_autocast_changes_little():
    data = dataset()
    index = np.arange(40)
    exact, rough = (Objective([network()], data, autocast=autocast) for autocast in (False, True))
    pixels = exact.pixels(index) * 0.9
    (loss, gradient), (loss16, gradient16) = exact.gradient(pixels, index), rough.gradient(pixels, index)
    assert loss16.dtype == gradient16.dtype == torch.float32
    assert not torch.equal(loss, loss16)
    torch.testing.assert_close(loss16, loss, rtol=0.1, atol=0.05)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), gradient16.flatten(), 0)
    assert cosine > 0.99


@pytest.mark.parametrize("use_labels", [True, False])
def test_measurement_is_of_real_files(use_labels):
    data = dataset(12)
    point = replace(standard_table().at(40), subsampling="4:4:4", hardness=8.0)
    measured = Objective([network()], data, use_labels).measure(point)
    files = [dnnjpeg.encode(p, point, progressive="auto", signature=False) for p in data.pictures]
    read = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    log = logits_of(network(), torch.from_numpy(read).permute(0, 3, 1, 2).float()).log_softmax(1).numpy()
    clean = network().read(data.pictures)
    np.testing.assert_array_equal(measured.bytes, [len(file) for file in files])
    np.testing.assert_array_equal(measured.agrees, log.argmax(1) == clean.argmax(1))
    if use_labels:
        np.testing.assert_allclose(measured.loss, -log[np.arange(12), data.labels], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(measured.top1, log.argmax(1) == data.labels)
    else:
        log_clean = torch.from_numpy(clean).log_softmax(1).numpy()
        divergence = (np.exp(log_clean) * (log_clean - log)).sum(1)
        np.testing.assert_allclose(measured.loss, divergence, rtol=1e-3, atol=1e-5)
        assert measured.top1 is None
    record = measured.record()
    assert record["bpp"] == pytest.approx(8 * np.mean(measured.bytes) / 32**2, abs=1e-5)
    assert ("top1" in record) == use_labels
    replace(point, measured=record)  # can be kept in a table


def test_scans_are_those_of_standard_codes():
    """A scan that needs nothing but its quantization tables: baseline, with the codes of T.81 Annex K."""
    data = dataset(12, labelled=False)
    objective = Objective([network()], data, headerless=True)
    point = standard_table().at(40)
    files = [dnnjpeg.encode(p, point, optimize=False) for p in data.pictures]
    found = [dnnjpeg.inspect(file) for file in files]
    assert {one.kind for one in found} == {"baseline"}
    sizes = [one.scan_bytes for one in found]
    np.testing.assert_array_equal(objective.measure(point).bytes, sizes)
    assert len({objective.size(point, p) - size for p, size in zip(data.pictures, sizes, strict=True)}) == 1


def test_networks_share_what_is_kept_of_files(tmp_path, monkeypatch):
    data, point, cache = dataset(12), standard_table().at(40), Cache(tmp_path)
    alone = [Objective([network(seed)], data, False) for seed in (0, 1)]
    expected = [objective.measure(point) for objective in alone]
    Objective([network(0)], data, False, cache=cache).measure(point)
    read = []
    monkeypatch.setattr(
        Network, "read", lambda self, *a, inner=Network.read: (read.append(self.name), inner(self, *a))[1]
    )
    both = Objective([network(0), network(1)], data, False, cache=cache)
    measured = both.measure(point)
    assert read == ["tiny1"] * 2  # the originals, and the files
    np.testing.assert_array_equal(measured.bytes, expected[0].bytes)
    np.testing.assert_allclose(measured.loss, (expected[0].loss + expected[1].loss) / 2)
    np.testing.assert_array_equal(measured.moved, expected[0].moved)
    for other in (
        replace(data, pictures=data.pictures[::-1].copy(), labels=None),
        replace(data, labels=None, pictures=np.minimum(data.pictures, 130)),
    ):
        read.clear()
        Objective([network(0)], other, False, cache=cache).measure(point)
        assert read == ["tiny0"] * 2
    read.clear()
    Objective([network(0)], data, True, cache=cache).measure(point)  # of which the loss is another
    assert read == ["tiny0"]


def test_data_that_nothing_can_be_learned_from():
    data = dataset()
    bad = {
        "no labels": replace(data, labels=None),
        "have label 2": replace(data, labels=np.full(40, 2)),
        "no pictures": data.head(0),
        f"expected 0..{CLASSES - 1}": replace(data, labels=data.labels + 1),
    }
    for message, one in bad.items():
        with pytest.raises(ValueError, match=message):
            Objective([network()], one, use_labels=True)
    with pytest.raises(ValueError, match="networks is empty"):
        Objective([], data)


def test_mislabelled_pictures_are_noticed():
    data = dataset(100)
    shuffled = replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    with pytest.raises(ValueError, match="chance would name"):
        Objective([network()], shuffled)
    with pytest.raises(ValueError, match="0 of 100"):
        Objective([network()], replace(data, labels=(data.labels + 1) % CLASSES))
    Objective([network()], shuffled, use_labels=False)
    some_wrong = data.labels.copy()
    some_wrong[:30] = shuffled.labels[:30]
    assert 0.7 <= Objective([network()], replace(data, labels=some_wrong)).clean_top1[0] < 1
    Objective([network()], data.head(4))  # too few to tell chance by, and all right


def test_logits_that_are_not_finite():
    mute = network()
    mute.module[-1].bias[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        Objective([mute], dataset())
    objective = Objective([network()], dataset())
    objective.networks[0].module[-1].bias[0] = float("inf")
    index = np.arange(3)
    with pytest.raises(ValueError, match="NaN or infinity"):
        objective.gradient(objective.pixels(index), index)
