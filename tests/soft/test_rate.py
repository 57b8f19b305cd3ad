"""Estimated rates against the encoder's files, and against symbols and entropies counted one by one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import cpmf, pictures  # noqa: E402
from torch import Tensor  # noqa: E402

from dnnjpeg import encode  # noqa: E402
from dnnjpeg.jpeg.markers import NATURAL  # noqa: E402
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS  # noqa: E402
from dnnjpeg.soft.jpeg import block_grids, to_coefficients  # noqa: E402
from dnnjpeg.soft.rate import entropy_rate, scan_rate  # noqa: E402
from dnnjpeg.soft.symbols import symbol_bits  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402
from dnnjpeg.table.point import OperatingPoint  # noqa: E402

HARD = torch.tensor(20.0).log()
ANNEX_K = [standard_table().at(quality) for quality in (10, 50, 92)]
RANDOM = OperatingPoint(
    50,
    "4:4:4",
    tuple(np.random.default_rng(0).integers(5, 120, 64).tolist()),
    tuple(tuple(row) for row in np.random.default_rng(1).integers(5, 120, (2, 64)).tolist()),
)


def mosaics(count: int, height: int, width: int) -> np.ndarray:
    """N x height x width x 3 uint8, each of 15 pictures in differing contrast."""
    tiles = pictures(15 * count).reshape(count, 3, 5, 32, 32, 3).transpose(0, 1, 3, 2, 4, 5)
    whole = tiles.reshape(count, 96, 160, 3)[:, :height, :width]
    contrast = np.linspace(0.1, 1, count)[:, None, None, None]
    return (128 + (whole - 128.0) * contrast).round().astype(np.uint8)


def tensor_of(many: np.ndarray) -> Tensor:
    return torch.from_numpy(many.copy()).permute(0, 3, 1, 2).float()


def logs(point: OperatingPoint) -> Tensor:
    return torch.tensor(point.tables).float().log()


def file_bytes(many: np.ndarray, point: OperatingPoint, subsampling: str, **options: object) -> np.ndarray:
    return np.array(
        [len(encode(one, point, subsampling=subsampling, signature=False, **options)) for one in many]
    )


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("point", [*ANNEX_K, RANDOM])
@pytest.mark.parametrize("size", [(96, 160), (75, 131), (8, 8)])
def test_scan_rate_is_the_size_of_the_file(
    size: tuple[int, int], point: OperatingPoint, subsampling: str
) -> None:
    many = mosaics(6, *size)
    real = file_bytes(many, point, subsampling)
    planes = to_coefficients(tensor_of(many), subsampling, integers=True)
    estimate = scan_rate(planes, logs(point), HARD, *size, subsampling).numpy() / 8
    error = estimate / real - 1
    assert np.abs(error).mean() < 0.02
    assert np.abs(error).max() < 0.03


@pytest.mark.parametrize("kappa", [2.0, 8.0, 40.0])
def test_scan_rate_of_sampled_indices(kappa: float) -> None:
    many = mosaics(6, 96, 160)
    real = file_bytes(many, ANNEX_K[1], "4:2:0", hardness=kappa)
    planes = to_coefficients(tensor_of(many), "4:2:0", integers=True)
    torch.manual_seed(0)
    log_kappa = torch.tensor(kappa).log()
    estimate = scan_rate(planes, logs(ANNEX_K[1]), log_kappa, 96, 160, "4:2:0", "sampled").numpy() / 8
    assert np.abs(estimate / real - 1).mean() < 0.02


def coded(index: list[int]) -> list[tuple[int, int]]:
    """Zeros before each non-zero AC coefficient (zigzag order), and its size; (1, 0) for an end of block."""
    symbols, zeros = [], 0
    for i in index[1:]:
        if i:
            symbols.append((zeros, abs(i).bit_length()))
        zeros = 0 if i else zeros + 1
    return symbols + [(1, 0)] * (zeros > 0)


def test_derivatives_are_those_of_blocks_coded_anew() -> None:
    """By each AC coefficient: d/dz of the mean bits of its block over P(i|z), all else as it is."""
    generator = torch.Generator().manual_seed(3)
    sparse = torch.rand(2, 3, 64, generator=generator) ** 3 * torch.linspace(4, 0.3, 64).expm1()
    planes = [(torch.randn(2, 3, 64, generator=generator) * sparse * 8).requires_grad_() for _ in range(3)]
    log_q, kappa = torch.full((2, 64), 8.0).log(), 9.0
    scan_rate(planes, log_q, torch.tensor(kappa).log(), 8, 24)[0].backward()

    index = [(plane[0].detach() / 8).round().int()[:, list(NATURAL)].tolist() for plane in planes]
    counts = [torch.zeros(1, 64, 16) for _ in range(2)]
    for c in range(3):
        for block in index[c]:
            for zeros, size in coded(block):
                counts[min(c, 1)][0, zeros, size] += 1
    bits = [table[0].tolist() for table in symbol_bits(*counts)[0]]
    for c, table in enumerate((bits[0], bits[1], bits[1])):
        z = planes[c].detach()[0, :, list(NATURAL)].requires_grad_()
        nearest, p = cpmf(z, torch.tensor(8.0), torch.tensor(kappa), 1)
        costs = torch.zeros_like(p)
        for b, block in enumerate(index[c]):
            for k in range(1, 64):
                for offset in range(3):
                    changed = [*block[:k], int(nearest[b, k]) + offset - 1, *block[k + 1 :]]
                    costs[b, k, offset] = sum(table[zeros][size] for zeros, size in coded(changed))
        (p * costs).sum().backward()
        found = planes[c].grad[0, :, list(NATURAL)]
        assert z.grad[:, 1:].abs().max() > 0.1
        torch.testing.assert_close(found[:, 1:], z.grad[:, 1:] * (1 + 1 / 256), rtol=1e-3, atol=1e-4)
        assert (planes[c].grad[1] == 0).all()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_derivatives_by_steps_are_those_of_files(subsampling: str) -> None:
    many = mosaics(12, 96, 160)
    planes = to_coefficients(tensor_of(many), subsampling, integers=True)
    steps = np.array(standard_table().at(40).tables) + 8
    log_q = torch.tensor(steps).float().log().requires_grad_()
    (scan_rate(planes, log_q, HARD, 96, 160, subsampling).mean() / 8).backward()
    order = np.add.outer(np.arange(8), np.arange(8)).ravel()
    for table in range(2):
        for band in (order == 0, (order > 0) & (order < 4), order >= 4):
            sizes, logarithms = [], []
            for factor in (1.2, 1 / 1.2):
                changed = steps.copy()
                changed[table, band] = (changed[table, band] * factor).round()
                point = OperatingPoint.from_tables(changed.tolist())
                sizes.append(file_bytes(many, point, subsampling).mean())
                logarithms.append(np.log(changed))
            predicted = (log_q.grad.numpy() * (logarithms[0] - logarithms[1])).sum()
            real = sizes[0] - sizes[1]
            assert abs(predicted - real) < 0.2 * abs(real) + 1.5


def test_derivatives_by_dc_are_sums_over_neighbours() -> None:
    """Moving all DC coefficients together leaves all differences but the first."""
    planes = to_coefficients(tensor_of(mosaics(2, 96, 160)), "4:2:0", integers=True)
    planes = [plane.requires_grad_() for plane in planes]
    scan_rate(planes, logs(ANNEX_K[1]), HARD, 96, 160, "4:2:0").sum().backward()
    for plane in planes:
        assert plane.grad[..., 0].abs().sum() > 1
        assert plane.grad[..., 0].sum().abs() < 2


def test_entropy_rate_is_the_definition() -> None:
    torch.manual_seed(0)
    planes = [torch.randn(3, 10 + c, 64, dtype=torch.float64) * 20 for c in range(3)]
    log_q = (torch.rand(3, 2, 64, dtype=torch.float64) + 1).requires_grad_()
    log_kappa = torch.rand(2, 64, dtype=torch.float64) + 1.5
    expected = 0.0
    for c, plane in enumerate(planes):
        q, kappa = log_q.detach().exp()[:, min(c, 1)], log_kappa.exp()[min(c, 1)]
        nearest, p = cpmf(plane, q[:, None], kappa, 4)
        for k in range(64):
            share: dict[int, float] = {}
            for n, masses in zip(nearest[..., k].flatten().tolist(), p[..., k, :].flatten(0, 1), strict=True):
                for offset, mass in enumerate(masses.tolist(), -4):
                    share[int(n) + offset] = share.get(int(n) + offset, 0) + mass
            law = np.array(list(share.values())) / (3 * plane.shape[1])
            expected += -plane.shape[1] * (law[law > 0] * np.log2(law[law > 0])).sum()
    assert entropy_rate(planes, log_q, log_kappa).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 64), (3, 3, 64)])
def test_gradcheck_of_entropy_rate(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    planes = [(torch.randn(3, 5, 64, dtype=torch.float64) * 20).requires_grad_() for _ in range(3)]
    log_q = (torch.rand(shape, dtype=torch.float64) + 1).requires_grad_()
    log_kappa = (torch.rand(64, dtype=torch.float64) + 0.5).requires_grad_()

    def rate(log_q: Tensor, log_kappa: Tensor, *planes: Tensor) -> Tensor:
        return entropy_rate(planes, log_q, log_kappa)

    inputs = (log_q, log_kappa, *planes)
    assert torch.autograd.gradcheck(rate, inputs, fast_mode=True, eps=1e-7, atol=1e-2, rtol=1e-3)


def test_softer_indices_cost_more() -> None:
    planes = to_coefficients(tensor_of(mosaics(6, 96, 160)), integers=True)
    log_kappa = torch.full((2, 64), 6.0).log().requires_grad_()
    torch.manual_seed(0)
    rate = scan_rate(planes, logs(ANNEX_K[1]), log_kappa, 96, 160, mode="sampled").sum()
    rate.backward()
    step = 0.05
    ends = [
        scan_rate(planes, logs(ANNEX_K[1]), log_kappa.detach() + sign * step, 96, 160, mode="sampled").sum()
        for sign in (1, -1)
    ]
    real = float(ends[0] - ends[1]) / (2 * step)
    assert real < 0
    assert float(log_kappa.grad.sum()) == pytest.approx(real, rel=0.15)


def test_pictures_do_not_mix() -> None:
    many = mosaics(3, 40, 56)
    planes = to_coefficients(tensor_of(many), "4:2:0", integers=True)
    tables = torch.rand(3, 2, 64, generator=torch.Generator().manual_seed(0)) + 3
    together = scan_rate(planes, tables, HARD, 40, 56, "4:2:0")
    for i in range(3):
        alone = scan_rate([plane[i : i + 1] for plane in planes], tables[i], HARD, 40, 56, "4:2:0")
        torch.testing.assert_close(together[i], alone[0])


def test_no_gradient_is_made_where_none_is_needed() -> None:
    planes = to_coefficients(tensor_of(mosaics(2, 16, 16)), integers=True)
    log_q = torch.full((2, 64), 2.0, requires_grad=True)
    assert scan_rate(planes, log_q.detach(), HARD, 16, 16).grad_fn is None
    with torch.no_grad():
        assert entropy_rate(planes, log_q, HARD).grad_fn is None
    assert scan_rate(planes, log_q, HARD, 16, 16).grad_fn is not None


def test_what_does_not_fit_is_refused() -> None:
    planes = [torch.zeros(1, rows * columns, 64) for rows, columns in block_grids(16, 32, "4:2:0")]
    log_q = torch.zeros(2, 64)
    for options, message in (
        ((16, 32, "4:4:4"), r"planes\[1\] has shape \(1, 2, 64\), expected N x 8 x 64"),
        ((16, 40, "4:2:0"), r"planes\[0\] has shape"),
        ((16, 32, "4:2:0", "soft"), "mode is 'soft', expected 'hard' or 'sampled'"),
        ((16, 32, "4:3:0"), "subsampling is '4:3:0'"),
    ):
        with pytest.raises(ValueError, match=message):
            scan_rate(planes, log_q, HARD, *options)
