"""What tables are learned for: losses, their gradients, real files, and data that teaches nothing."""

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tiny import CLASSES, PREPROCESS, classifier, pictures  # noqa: E402

import dnnjpeg  # noqa: E402
from dnnjpeg.files.cache import Cache  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.networks.measurer import Measurer  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.options import EncodeOptions  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.table.point import point_key  # noqa: E402

LOSSES = ("divergence", "cross-entropy")


def network(seed: int = 0) -> Network:
    module = classifier(seed).requires_grad_(False)
    return Network(
        f"tiny{seed}", "tiny", f"{seed:016}", module, Preprocess.of(PREPROCESS), torch.device("cpu")
    )


def dataset(count: int = 40, labelled: bool = True) -> Dataset:
    some = pictures(count)
    labels = network().read(some).argmax(1).astype(np.int64) if labelled else None
    return Dataset(some, labels, tuple(map(str, range(count))), "tiny pictures")


def tensor(some: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(some).permute(0, 3, 1, 2).float()


def logits_of(net: Network, pixels: torch.Tensor) -> torch.Tensor:
    return net.module((pixels / 255 - 0.5) / 0.25)


def cross_entropies(net: Network, pixels: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    return -logits_of(net, pixels).log_softmax(1)[torch.arange(len(labels)), torch.from_numpy(labels)]


def test_cross_entropy_is_less_that_of_the_clean_pictures():
    data = dataset()
    objective = Objective([network()], data, "cross-entropy")
    clean = cross_entropies(network(), tensor(data.pictures), data.labels).mean()
    assert clean > 0.1
    index = np.array([3, 7, 20])
    pixels = tensor(data.pictures[index]) * 0.9
    loss, _ = objective.gradient(pixels, index)
    torch.testing.assert_close(loss, cross_entropies(network(), pixels, data.labels[index]) - clean)
    everything = np.arange(len(data))
    untouched, _ = objective.gradient(tensor(data.pictures), everything)
    assert untouched.abs().max() > 0.1 and abs(float(untouched.mean())) < 1e-6


@pytest.mark.parametrize("labelled", [True, False])
def test_divergence_is_from_the_clean_prediction_whatever_the_labels(labelled):
    objective = Objective([network()], dataset(labelled=labelled))
    index = np.arange(5)
    clean = tensor(objective.dataset.pictures[index])
    loss, gradient = objective.gradient(clean, index)
    torch.testing.assert_close(loss, torch.zeros(5), atol=1e-6, rtol=0)  # a minimum
    torch.testing.assert_close(gradient, torch.zeros_like(clean), atol=1e-6, rtol=0)
    pixels = clean * 0.8
    p, q = (logits_of(network(), x).softmax(1) for x in (clean, pixels))
    torch.testing.assert_close(objective.gradient(pixels, index)[0], (p * (p / q).log()).sum(1))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss):
    data = _both_read()
    objective = Objective([network(0), network(1)], data, loss, batch=2)
    index = np.array([0, 4, 5])
    noise = torch.randn(3, 3, 32, 32, generator=torch.manual_seed(0))
    pixels = tensor(data.pictures[index]) + noise
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


@pytest.mark.parametrize("loss", LOSSES)
def test_several_networks_count_alike(loss):
    data, index, point = _both_read().head(30), np.arange(6), standard_table().at(20)
    both, *alone = (
        Objective(some, data, loss) for some in ([network(0), network(1)], [network(0)], [network(1)])
    )
    pixels = tensor(data.pictures[index]) * 0.9
    together, *parts = (objective.gradient(pixels, index) for objective in (both, *alone))
    for kind in (0, 1):  # losses, gradients
        torch.testing.assert_close(together[kind], (parts[0][kind] + parts[1][kind]) / 2)
    found, *halves = (objective.measure(point) for objective in (both, *alone))
    assert abs(halves[0].loss.mean() / halves[1].loss.mean() - 1) > 0.05
    for kind in ("loss", "agrees", "top1"):
        expected = np.mean([getattr(half, kind) for half in halves], axis=0)
        np.testing.assert_allclose(getattr(found, kind), expected, rtol=1e-12)


def test_networks_that_differ_in_weights_alone():
    """Two checkpoints of one spec are two networks."""
    data, point = dataset(12), standard_table().at(20)
    one, other = (replace(network(seed), name="net", spec="file.py:net") for seed in (0, 1))
    both = Objective([one, other], replace(data, labels=None))
    assert len(both.networks) == len(both.clean) == 2
    parts = [Objective([net], replace(data, labels=None)).measure(point).loss for net in (one, other)]
    np.testing.assert_allclose(both.measure(point).loss, np.mean(parts, axis=0), rtol=1e-12)


def test_autocast_changes_little():
    data = dataset()
    index = np.arange(40)
    exact, rough = (Objective([network()], data, autocast=autocast) for autocast in (False, True))
    pixels = tensor(data.pictures) * 0.9
    (loss, gradient), (loss16, gradient16) = exact.gradient(pixels, index), rough.gradient(pixels, index)
    assert loss16.dtype == gradient16.dtype == torch.float32
    assert not torch.equal(loss, loss16)
    torch.testing.assert_close(loss16, loss, rtol=0.1, atol=0.05)
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), gradient16.flatten(), 0)
    assert cosine > 0.99


@pytest.mark.parametrize(
    ("loss", "labelled"), [("divergence", False), ("divergence", True), ("cross-entropy", True)]
)
def test_measurement_is_of_real_files(loss, labelled):
    data = dataset(12, labelled)
    point = replace(standard_table().at(40), subsampling="4:4:4", hardness=8.0)
    measured = Objective([network()], data, loss).measure(point)
    files = [dnnjpeg.encode(p, point, signature=False) for p in data.pictures]
    read = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    log = logits_of(network(), tensor(read)).log_softmax(1).double().numpy()
    clean = network().read(data.pictures)
    log_clean = torch.from_numpy(clean).double().log_softmax(1).numpy()
    np.testing.assert_array_equal(measured.bytes, [len(file) for file in files])
    np.testing.assert_array_equal(measured.agrees, log.argmax(1) == clean.argmax(1))
    if loss == "cross-entropy":
        each = np.arange(12), data.labels
        expected = log_clean[each].mean() - log[each]
    else:
        expected = (np.exp(log_clean) * (log_clean - log)).sum(1)
    np.testing.assert_allclose(measured.loss, expected, rtol=1e-3, atol=1e-5)
    if labelled:
        np.testing.assert_array_equal(measured.top1, log.argmax(1) == data.labels)
    else:
        assert measured.top1 is None
    record = measured.record()
    assert record["bpp"] == pytest.approx(8 * np.mean(measured.bytes) / 32**2, abs=1e-5)
    assert ("top1" in record) == labelled
    replace(point, measured=record)  # can be kept in a table


def test_measurements_beside_each_other_are_those_of_all():
    data, point = dataset(12), standard_table().at(40)
    whole = Objective([network()], data).measure(point)
    parts = [
        Objective([network()], data.take(index)).measure(point) for index in (np.arange(5), np.arange(5, 12))
    ]
    both = parts[0].beside(parts[1])
    for kind in ("bytes", "loss", "agrees", "top1"):
        np.testing.assert_allclose(getattr(both, kind), getattr(whole, kind), rtol=1e-6, atol=1e-9)
    assert both.record() == whole.record()
    assert parts[0].beside(replace(parts[1], top1=None)).top1 is None
    assert replace(parts[0], pixels=100).beside(replace(parts[1], pixels=700)).pixels == 450


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
    data, point, cache = dataset(12, labelled=False), standard_table().at(40), Cache(tmp_path)
    alone = [Objective([network(seed)], data) for seed in (0, 1)]
    expected = [objective.measure(point) for objective in alone]
    Objective([network(0)], data, cache=cache).measure(point)
    read = []
    monkeypatch.setattr(
        Network, "read", lambda self, *a, inner=Network.read: (read.append(self.name), inner(self, *a))[1]
    )
    both = Objective([network(0), network(1)], data, cache=cache)
    measured = both.measure(point)
    assert read == ["tiny1"] * 2  # the originals, and the files
    np.testing.assert_array_equal(measured.bytes, expected[0].bytes)
    np.testing.assert_allclose(measured.loss, (expected[0].loss + expected[1].loss) / 2)
    for other in (
        replace(data, pictures=data.pictures[::-1].copy()),
        replace(data, pictures=np.minimum(data.pictures, 130)),
    ):
        read.clear()
        Objective([network(0)], other, cache=cache).measure(point)
        assert read == ["tiny0"] * 2
    labelled = dataset(12)
    read.clear()
    Objective([network(0)], labelled, cache=cache).measure(point)
    assert read == ["tiny0"]  # of the files, for top-1
    read.clear()
    Objective([network(0)], labelled, "cross-entropy", cache=cache).measure(point)
    Objective([network(0)], labelled, headerless=False, cache=cache).measure(point)
    assert read == []  # of either loss


def test_what_evaluating_read_is_not_read_again(tmp_path, monkeypatch):
    """One engine: files of a setting that were measured for a report are known to learning."""
    data, cache, point = dataset(12), Cache(tmp_path), standard_table().at(40)
    options = EncodeOptions(signature=False)
    write = partial(dnnjpeg.encode, table=point, **vars(options))
    found = Measurer(data, {"any name": network()}, cache).measure(write, point_key(point, options))
    monkeypatch.setattr(Network, "read", pytest.fail)
    again = Objective([network()], data, cache=cache).measure(point)
    np.testing.assert_array_equal(again.loss, found.readings["any name"].divergence)


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
            Objective([network()], one, "cross-entropy")
    with pytest.raises(ValueError, match="networks is empty"):
        Objective([], data)
    with pytest.raises(ValueError, match="loss is 'entropy', expected 'divergence' or 'cross-entropy'"):
        Objective([network()], data, "entropy")


@pytest.mark.parametrize("loss", LOSSES)
def test_mislabelled_pictures_are_noticed(loss):
    data = dataset(100)
    shuffled = replace(data, labels=np.random.default_rng(0).permutation(data.labels))
    with pytest.raises(ValueError, match="chance would find"):
        Objective([network()], shuffled, loss)
    with pytest.raises(ValueError, match="0 of 100"):
        Objective([network()], replace(data, labels=(data.labels + 1) % CLASSES), loss)
    some_wrong = data.labels.copy()
    some_wrong[:30] = shuffled.labels[:30]
    assert 0.7 <= Objective([network()], replace(data, labels=some_wrong), loss).clean_top1[0] < 1
    Objective([network()], data.head(4), loss)  # too few to tell chance by, and all right
    assert Objective([network()], replace(data, labels=None)).clean_top1 is None


def test_logits_that_are_not_finite():
    mute = network()
    mute.module[-1].bias[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        Objective([mute], dataset())
    objective = Objective([network()], dataset())
    objective.networks[0].module[-1].bias[0] = float("inf")
    index = np.arange(3)
    with pytest.raises(ValueError, match="NaN or infinity"):
        objective.gradient(tensor(objective.dataset.pictures[index]), index)
