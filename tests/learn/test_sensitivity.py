"""Sensitivities of networks that look at one DCT coefficient, curves against counting, tables by both."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.fft import idctn

torch = pytest.importorskip("torch")

from tiny import CLASSES, PREPROCESS, classifier, pictures  # noqa: E402
from torch import nn  # noqa: E402

import dnnjpeg  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.objective import Objective  # noqa: E402
from dnnjpeg.learn.sensitivity import Statistics, closed_form, deepn, fisher  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.soft.jpeg import to_coefficients  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402

COUNT = 60


def objective_of(module: nn.Module, **options) -> Objective:
    network = Network("n", "n", "0" * 16, module, Preprocess.of(PREPROCESS), torch.device("cpu"))
    some = pictures(COUNT)
    return Objective([network], Dataset(some, None, ("",) * COUNT, "tiny"), batch=25, **options)


@pytest.fixture(scope="module")
def objective() -> Objective:
    return objective_of(classifier())


def everything(objective: Objective) -> torch.Tensor:
    return torch.from_numpy(objective.dataset.squares).permute(0, 3, 1, 2).float()


class OneDirection(nn.Module):
    """Two classes; their logits differ by `slope` a unit of a pattern, 32 x 32 x 3, in the pixels."""

    def __init__(self, pattern: np.ndarray, slope: float) -> None:
        super().__init__()
        self.weight = torch.from_numpy(pattern.astype(np.float32)).permute(2, 0, 1).flatten() * slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = (x * 0.25 + 0.5) * 255
        half = (pixels.flatten(1) - 128) @ self.weight / 2
        return torch.stack([half, -half], 1)


def basis(k: int, size: int = 8) -> np.ndarray:
    coefficients = np.zeros(64)
    coefficients[k] = 1
    return np.kron(idctn(coefficients.reshape(8, 8), norm="ortho"), np.ones((size // 8, size // 8)))


def test_a_network_that_looks_at_one_luma_coefficient():
    pattern = np.zeros((32, 32, 3))
    pattern[8:16, 16:24] = basis(10)[..., None] * (0.299, 0.587, 0.114)  # in one block of 16; grey to chroma
    slope = 1e-4  # so little that both classes have probability 1/2: the squared gradient is slope² / 4
    found = fisher(objective_of(OneDirection(pattern, slope)), "4:4:4")
    expected = np.zeros((3, 64))
    expected[0, 10] = slope**2 / 4 / 16
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=slope**2 * 1e-6)


def test_chroma_is_at_its_own_resolution():
    pattern = np.zeros((32, 32, 3))
    pattern[:16, :16, 2] = 1  # blue, over one of the four chroma blocks of 4:2:0; flat, so its DC
    slope = 1e-6
    found = fisher(objective_of(OneDirection(pattern, slope)), "4:2:0")
    # A unit of DC adds 1/8 to each of 64 samples, 1.772/8 to the blue of 256 pixels, less what the triangle
    # filter carries over the block's border: a row and a column of 16 lose 1/4, their crossing 7/16.
    blue = 1.772 / 8 * 15.75**2
    assert found[1, 0] * 4 == pytest.approx((slope * blue) ** 2 / 4, rel=0.05)
    assert found[2].max() < found[1, 0] / 1000
    assert found[0, 0] * 16 == pytest.approx(4 * (slope * 64 / 8) ** 2 / 4, rel=0.01)  # four luma blocks


def test_drawn_labels_are_the_network_s_own(objective):
    """Sum of squared gradients by drawing = trace of the Fisher information, which is known exactly."""
    found = fisher(objective, "4:4:4").sum()
    pixels = everything(objective)
    planes = to_coefficients(pixels, "4:4:4")
    pixels.requires_grad_()
    logits = objective.output(0, pixels)
    share, exact = logits.softmax(1).detach(), 0.0
    for label in range(CLASSES):
        (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, label].sum(), pixels, retain_graph=True)
        # by the chain rule, coefficients see the pixels' gradient through the columns of the decoder's matrix
        to_ycc = torch.tensor([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]])
        through = torch.einsum("cr,nrhw->nchw", to_ycc, gradient)  # the DCT keeps squared sums
        exact += float((share[:, label] * through.square().sum((1, 2, 3))).sum())
    exact /= COUNT * planes[0].shape[1]
    assert found == pytest.approx(exact, rel=0.25)


def test_sensitivity_at_an_operating_point(objective):
    clean = fisher(objective, "4:4:4")
    fine = fisher(objective, "4:4:4", standard_table().at(100))
    coarse = fisher(objective, "4:4:4", standard_table().at(5))
    np.testing.assert_allclose(fine.sum(1), clean.sum(1), rtol=0.05)
    assert abs(coarse.sum() / clean.sum() - 1) > 0.1
    np.testing.assert_array_equal(clean, fisher(objective, "4:4:4"))  # seeded


def test_several_networks_count_alike():
    """Of two classes as likely as each other squared gradients do not depend on what is drawn."""
    patterns = [np.zeros((32, 32, 3)) for _ in range(2)]
    for pattern, k in zip(patterns, (10, 3), strict=True):
        pattern[8:16, 16:24] = basis(k)[..., None] * (0.299, 0.587, 0.114)
    modules = [OneDirection(pattern, slope) for pattern, slope in zip(patterns, (1e-4, 3e-4), strict=True)]
    alone = [objective_of(module) for module in modules]
    networks = [replace(one.networks[0], name=f"n{i}") for i, one in enumerate(alone)]
    pair = Objective(networks, alone[0].dataset)
    first, second = (fisher(one, "4:4:4") for one in alone)
    assert first.argmax() == 10 and second.argmax() == 3
    np.testing.assert_allclose(fisher(pair, "4:4:4"), (first + second) / 2, rtol=1e-3, atol=1e-14)


@pytest.fixture(scope="module")
def statistics(objective) -> Statistics:
    return Statistics.of(objective, "4:2:0")


def test_curves_are_those_of_counting(objective, statistics):
    planes = to_coefficients(everything(objective), "4:2:0")
    assert statistics.blocks == (16, 4, 4)
    for c, k, step in [(0, 0, 16), (0, 1, 1), (0, 9, 30), (1, 0, 7), (2, 5, 3), (0, 63, 255)]:
        z = planes[c][..., k].numpy()
        index = np.round(z / step)
        assert statistics.distortion[c, k, step - 1] == pytest.approx(
            np.mean((z - step * index) ** 2), rel=0.02, abs=0.02
        )
        coded = np.round(np.diff(z, axis=1, prepend=0) / step) if k == 0 else index
        sizes = np.ceil(np.log2(np.abs(coded) + 1)).astype(int)
        expected = stats.entropy(np.bincount(sizes.ravel()), base=2) + sizes.mean()
        assert statistics.bits[c, k, step - 1] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    deviations = [plane.numpy().reshape(-1, 64).std(0) for plane in planes]
    np.testing.assert_allclose(statistics.sigma, deviations, rtol=1e-3, atol=1e-3)


def test_bits_of_a_picture_are_near_those_of_a_file(objective, statistics):
    for quality in (75, 90, 95):
        point = standard_table().at(quality)
        files = [dnnjpeg.encode(picture, point) for picture in objective.dataset.pictures]
        scan = 8 * np.mean([dnnjpeg.inspect(file).scan_bytes for file in files])
        assert statistics.picture_bits(point) == pytest.approx(scan, rel=0.25)


@pytest.mark.parametrize("tables", [2, 3])
@pytest.mark.parametrize("quality", [15, 50, 90])
def test_closed_form_spends_the_same_bits_better(objective, statistics, tables, quality):
    sensitivity = fisher(objective, "4:2:0")
    budget = statistics.picture_bits(standard_table().at(quality))
    point = closed_form(sensitivity, statistics, budget, tables=tables)
    assert len(point.tables) == tables and point.subsampling == "4:2:0"
    assert 0.9 * budget < statistics.picture_bits(point) <= budget

    def harm(one):
        steps = np.array(one.tables if len(one.tables) == 3 else [*one.tables, one.tables[-1]])
        error = np.take_along_axis(statistics.distortion, steps[..., None] - 1, 2)[..., 0]
        return float(np.array(statistics.blocks) @ (sensitivity * error).sum(1))

    for other in (standard_table().at(quality), deepn(statistics, budget, tables=tables)):
        assert harm(point) < 0.98 * harm(other)


def test_what_matters_more_gets_a_finer_step(statistics):
    sensitivity = np.full((3, 64), 1e-6)
    even = closed_form(sensitivity, statistics, 3000)
    sensitivity[0, 9] *= 20
    sensitivity[1:, 0] *= 20
    uneven = closed_form(sensitivity, statistics, 3000)
    assert uneven.luma[9] < even.luma[9] / 2 and uneven.chroma[0][0] < even.chroma[0][0] / 2
    assert uneven.luma[0] >= even.luma[0]


def test_deepn_steps_fall_with_the_deviation(statistics):
    sigma = np.tile(np.array([0, 4, 10, 20, 21, 60, 61, 75, 90.0] + [500.0] * 55), (3, 1))
    known = replace(statistics, sigma=sigma)
    base = np.array([255, 216, 157.5, 60, 59, 20, 57, 15, 5] + [5] * 55)
    factors = np.geomspace(0.01, 100, 20_000)[:, None]
    scaled = np.clip(np.round(base * factors), 1, 255)
    for bits in (500, 3000):
        point = deepn(known, bits, tables=3)
        assert known.picture_bits(point) <= bits
        for table in point.tables:
            assert (scaled == table).all(1).any()


def test_number_of_tables_is_checked(statistics):
    with pytest.raises(ValueError, match="tables is 4"):
        deepn(statistics, 1000, tables=4)
