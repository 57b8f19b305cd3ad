"""Pictures as they are stored, of several sizes: each counts as it would alone, whole files are measured, and
gradients go through what the network is shown.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from test_objective import cross_entropies, network, tensor  # noqa: E402
from tiny import PREPROCESS, pictures  # noqa: E402
from torch import nn  # noqa: E402

import dnnjpeg  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.first_steps import magnitude_steps  # noqa: E402
from dnnjpeg.learn.j4d import Progress, Settings, learn  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.sensitivity import Statistics, fisher  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.networks.readings import compare, decode  # noqa: E402
from dnnjpeg.soft.jpeg import to_coefficients  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402

VIEW = Preprocess.of(PREPROCESS).view
SIZES = ((32, 32), (61, 45), (40, 90))  # width, height; the network's is 32


def several(count: int = 9) -> Dataset:
    some = [pictures(1, i, *SIZES[i % 3])[0] for i in range(count)]
    return Dataset(some, None, tuple(map(str, range(count))), "drawn")


def labelled(data: Dataset) -> Dataset:
    """With labels, which are what the network says."""
    labels = network().read(data.pictures).argmax(1).astype(np.int64)
    return Dataset(data.pictures, labels, data.names, data.source)


def test_groups_are_of_one_size_and_hold_each_picture_once():
    data = several(20)
    objective = Objective([network()], data, batch=3)
    index = np.random.default_rng(0).permutation(20)[:17]
    seen = []
    for numbers, pixels in objective.groups(index):
        assert 1 <= len(numbers) == len(pixels) <= 3 and pixels.dtype == torch.float32
        for i, picture in zip(numbers, pixels, strict=True):
            np.testing.assert_array_equal(picture.permute(1, 2, 0).numpy(), data.pictures[i])
        seen += numbers.tolist()
    assert sorted(seen) == sorted(index.tolist())
    assert data.pixels == np.mean([picture.shape[0] * picture.shape[1] for picture in data.pictures])


def test_divergences_and_their_gradients_are_those_of_each_alone():
    data = several()
    objective = Objective([network(0), network(1)], data)
    seen = 0
    for numbers, pixels in objective.groups(np.arange(9)):
        losses, gradients = objective.gradient(0.9 * pixels, numbers)
        for i, pixel, loss, gradient in zip(numbers, pixels, losses, gradients, strict=True):
            one = Objective([network(0), network(1)], data.take(np.array([i])))
            expected = one.gradient(0.9 * pixel[None], np.array([0]))
            torch.testing.assert_close(loss, expected[0][0])
            torch.testing.assert_close(gradient, expected[1][0])
            assert gradient.shape == data.pictures[i].transpose(2, 0, 1).shape
            seen += 1
    assert seen == 9


def test_cross_entropies_and_their_gradients_are_those_of_each_alone():
    data = labelled(several())
    objective = Objective([network()], data, "cross-entropy")
    views = np.stack([VIEW.of(picture) for picture in data.pictures])
    clean = cross_entropies(network(), tensor(views), data.labels).mean()
    for numbers, pixels in objective.groups(np.arange(9)):
        losses, gradients = objective.gradient(0.9 * pixels, numbers)
        for i, pixel, loss, gradient in zip(numbers, pixels, losses, gradients, strict=True):
            leaf = (0.9 * pixel[None]).requires_grad_()
            expected = -network()(leaf).log_softmax(1)[0, data.labels[i]]
            torch.testing.assert_close(loss, (expected - clean).detach())
            torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0][0])


@pytest.mark.parametrize("preprocess", [{}, {"resize": 36}, {"resize": 40, "interpolation": "bilinear"}])
@pytest.mark.parametrize(("width", "height"), [(61, 45), (40, 90), (20, 25)])
def test_gradient_through_the_view_is_that_of_finite_differences(preprocess, width, height):
    """Of a network without kinks, so that the differences are exact to a few thousandths."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 4))
    module[-1].weight.data *= 20
    module = module.requires_grad_(False)
    net = Network("n", "n", "0" * 16, module, Preprocess.of(PREPROCESS | preprocess), torch.device("cpu"))
    data = Dataset(pictures(2, 0, width, height), None, ("", ""), "tiny")
    objective = Objective([net], data)
    index = np.arange(2)
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    wave = torch.cos(x / 9 + y / 13) * torch.tensor([1, -0.5, 0.3])[:, None, None]
    pixels = tensor(data.pictures) + 30 * wave
    _, gradient = objective.gradient(pixels, index)
    assert gradient.abs().sum((1, 2, 3)).min() > 0.01
    for direction in (gradient.sign(), wave):
        above, below = (objective.gradient(pixels + h * direction, index)[0] for h in (0.2, -0.2))
        slope = (gradient * direction).sum((1, 2, 3))
        torch.testing.assert_close((above - below) / 0.4, slope, rtol=0.01, atol=1e-5)
    is_outside = gradient.abs().amax((0, 1)) == 0  # what the crop leaves out
    assert bool(is_outside.any()) == (width != height) and not bool(is_outside.all())


def test_files_are_those_of_whole_pictures():
    data, point = labelled(several()), standard_table().at(30)
    found = Objective([network()], data).measure(point)
    files = [dnnjpeg.encode(p, point, signature=False) for p in data.pictures]
    assert [decode(file).shape for file in files] == [picture.shape for picture in data.pictures]
    np.testing.assert_array_equal(found.bytes, [len(file) for file in files])
    views = np.stack([VIEW.of(decode(file)) for file in files])
    clean = np.stack([VIEW.of(picture) for picture in data.pictures])
    read = compare(network().read(views), network().read(clean), data.labels)
    np.testing.assert_allclose(found.loss, read.divergence, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.top1, read.top1)
    assert found.pixels == data.pixels
    assert found.record()["bpp"] == pytest.approx(8 * found.bytes.sum() / (9 * data.pixels), abs=1e-5)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_statistics_are_of_all_pictures(subsampling):
    data = several()
    objective = Objective([network()], data)
    planes = [
        [plane[0].numpy() for plane in to_coefficients(tensor(picture[None]), subsampling)]
        for picture in data.pictures
    ]
    found = Statistics.of(objective, subsampling)
    np.testing.assert_allclose(found.blocks, [np.mean([len(p[c]) for p in planes]) for c in range(3)])
    for c in range(3):
        every = np.concatenate([p[c] for p in planes])
        np.testing.assert_allclose(found.sigma[c], every.std(0), rtol=1e-3, atol=1e-3)
    each = [Statistics.of(Objective([network()], data.take(np.array([i]))), subsampling) for i in range(9)]
    np.testing.assert_array_equal(found.magnitudes, sum(one.magnitudes for one in each))
    np.testing.assert_array_equal(found.coded, sum(one.coded for one in each))
    means = np.mean([[np.abs(plane).mean(0) for plane in p] for p in planes], axis=0)
    steps = magnitude_steps(data, subsampling)
    np.testing.assert_allclose(steps[0], 2 * means[0] / 128**0.5, rtol=1e-3, atol=1e-3)


def test_sensitivity_is_the_mean_over_pictures():
    """Whatever is drawn where there are but two classes, as likely as each other: squares have no sign."""
    torch.manual_seed(0)
    flat = nn.Linear(3 * 32 * 32, 1, bias=False)
    flat.weight.data *= 1e-4

    class Two(nn.Module):
        def forward(self, x):
            half = flat(x.flatten(1))
            return torch.cat([half, -half], 1)

    net = Network("n", "n", "0" * 16, Two(), Preprocess.of(PREPROCESS), torch.device("cpu"))
    data = several()
    for point in (None, standard_table().at(30)):
        found = fisher(Objective([net], data), "4:2:0", point)
        each = [fisher(Objective([net], data.take(np.array([i]))), "4:2:0", point) for i in range(9)]
        np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=0.02)
        assert (found[:, :10] > 0).all()


def test_a_descent_sees_all_sizes():
    data = several(12)
    objective = Objective([network()], data)
    start = standard_table().at(40)
    settings = Settings(steps=2, batch=12, part=5, lr=1e-9)
    seen: list[Progress] = []
    learn(objective, start, 2e-4, settings, on_step=seen.append)
    real = objective.measure(start)
    for progress in seen:
        assert progress.loss == pytest.approx(real.loss.mean(), rel=0.1)
        assert progress.bpp * data.pixels / 8 == pytest.approx(real.bytes.mean(), rel=0.15)
    for rate, mode in (("entropy", "soft"), ("scan", "sampled")):
        settings = Settings(steps=2, batch=6, part=3, rate=rate, mode=mode, hardness="learned")
        point = learn(objective, start, 2e-4, settings)
        assert point.tables != start.tables and point.hardness != (None, None)
