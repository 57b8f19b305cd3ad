"""Tasks: the distances of each, against plain loops; classification as before there were tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from dnnjpeg.networks.detection import Detection  # noqa: E402
from dnnjpeg.networks.readings import compare  # noqa: E402
from dnnjpeg.networks.task import Task, load_task, try_task  # noqa: E402
from dnnjpeg.networks.tasks import TASKS, Classification, Dense, Embedding, Tokens  # noqa: E402

STORED = Path(__file__).parent / "data" / "readings.npz"


def made(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, shape)).float()


def boxes(count: int = 2, number: int = 7, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, number, 2))
    values = np.concatenate([corners, corners + rng.uniform(5, 40, (count, number, 2))], 2)
    logits = torch.from_numpy(rng.normal(0, 3, (count, number, 3)))
    return {"boxes": torch.from_numpy(values).float(), "logits": logits.float()}


OUTPUTS = {
    "classification": made(2, 9),
    "embedding": made(2, 9),
    "dense": made(2, 4, 6, 5),
    "detection": boxes(),
    "tokens": made(2, 3, 11),
}


def test_readings_are_those_before_there_were_tasks() -> None:
    """readings.npz was written by the commit before tasks. The last bit of float64 may differ."""
    rng = np.random.default_rng(5)
    clean = (rng.normal(size=(40, 100)) * 3).astype(np.float32)
    logits = (clean + rng.normal(size=clean.shape) * rng.choice([0, 0.01, 1], (40, 1))).astype(np.float32)
    labels = np.where(rng.random(40) < 0.6, clean.argmax(1), rng.integers(0, 100, 40))
    found = compare(logits, clean, labels)
    with np.load(STORED) as stored:
        assert set(stored) == set(found.arrays())
        for name in stored:
            assert found.arrays()[name].dtype == stored[name].dtype
            np.testing.assert_allclose(found.arrays()[name], stored[name], rtol=1e-12, atol=3e-15)


def test_gradients_are_those_before_there_were_tasks() -> None:
    read, clean, labels = made(8, 50, seed=1).requires_grad_(), made(8, 50, seed=2), torch.arange(8)
    before = F.kl_div(read.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none").sum(1)
    now = Classification().distance(read, clean)
    assert torch.equal(before, now)
    for one, other in ((before, now), (F.cross_entropy(read, labels, reduction="none"),
                                       Classification().surprise(read, labels))):  # fmt: skip
        gradients = [torch.autograd.grad(loss.sum(), read, retain_graph=True)[0] for loss in (one, other)]
        assert torch.equal(*gradients)


@pytest.mark.parametrize("name", list(TASKS))
def test_equal_outputs_have_no_distance(name: str) -> None:
    task, output = load_task(name), OUTPUTS[name]
    assert task.fits(output)
    try_task(task, output)
    assert (task.distance(output, output) == 0).all() and (task.agrees(output, output) > 0.999).all()
    assert (task.margin(output, output) > 0).all()


def kl(clean: np.ndarray, read: np.ndarray) -> float:
    p, q = (
        np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in (clean.astype(float), read.astype(float))
    )
    return float((p * np.log(p / q)).sum())


def test_embedding_is_one_minus_the_cosine() -> None:
    one, other = made(5, 30, seed=1), made(5, 30, seed=2)
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one.numpy(), other.numpy(), strict=True)
    ]
    np.testing.assert_allclose(Embedding().distance(one, other), 1 - np.array(cosines), atol=1e-5)


def test_dense_is_the_mean_over_pixels() -> None:
    one, other = made(2, 4, 3, 5, seed=1), made(2, 4, 3, 5, seed=2)
    for i in range(2):
        read, clean = (x[i].numpy().reshape(4, -1).T for x in (one, other))
        expected = np.mean([kl(*pair) for pair in zip(clean, read, strict=True)])
        assert Dense().distance(one, other)[i] == pytest.approx(expected, rel=1e-4)
        agree = np.mean(read.argmax(1) == clean.argmax(1))
        assert Dense().agrees(one, other)[i] == pytest.approx(agree)
    maps = one[:, :1], other[:, :1]
    expected = np.abs(maps[0].numpy() - maps[1].numpy()).mean((1, 2, 3))
    np.testing.assert_allclose(Dense().distance(*maps), expected, rtol=1e-5)


def test_tokens_are_the_mean_over_positions() -> None:
    one, other = made(2, 3, 11, seed=1), made(2, 3, 11, seed=2)
    for i in range(2):
        expected = np.mean([kl(other[i, t].numpy(), one[i, t].numpy()) for t in range(3)])
        assert Tokens().distance(one, other)[i] == pytest.approx(expected, rel=1e-4)


def test_detections_are_matched_whatever_their_order() -> None:
    task, clean = Detection(), boxes()
    order = torch.tensor([3, 1, 0, 6, 5, 2, 4])
    mixed = {name: value[:, order] for name, value in clean.items()}
    assert torch.allclose(task.distance(mixed, clean), torch.zeros(2), atol=1e-6)
    moved = clean | {"boxes": clean["boxes"] + 3}
    further = clean | {"boxes": clean["boxes"] + 9}
    near, far = (task.distance(one, clean) for one in (moved, further))
    assert (near > 0).all() and (near < far).all()
    other = clean | {"logits": -clean["logits"]}
    assert (task.agrees(other, clean) < 1).any() and (task.distance(other, clean) > 0.1).all()


def test_a_heat_map_is_compared_place_by_place() -> None:
    read, clean = made(1, 1, 2, 2, seed=1), made(1, 1, 2, 2, seed=2)
    p, q = (1 / (1 + np.exp(-x.numpy().astype(float).ravel())) for x in (clean, read))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum() / max(p.sum(), 1)
    assert float(Detection().distance(read, clean)) == pytest.approx(divergence, rel=1e-4)


@pytest.mark.parametrize("name", ["classification", "embedding", "tokens"])
def test_sampled_targets_show_the_curvature(name: str) -> None:
    """The mean squared gradient over targets is twice what a small error costs, divided by its square."""
    task, clean = load_task(name), made(1, *{"tokens": (2, 5)}.get(name, (5,)), seed=3)
    step = 1e-3 * made(*clean.shape, seed=4)
    cost = float(task.distance((clean + step).double(), clean.double()))
    many = clean.expand(40_000, *clean.shape[1:])
    leaf = many.clone().requires_grad_()
    loss = task.surprise(leaf, task.sample_target(many, np.random.default_rng(0)))
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    found = (gradient * step).flatten(1).sum(1).square().mean()
    assert float(found) / 2 == pytest.approx(cost, rel=0.05)


def test_outputs_of_different_shapes_are_compared_in_their_order() -> None:
    clean = [made(1, *size, seed=i).numpy() for i, size in enumerate([(4, 6), (5, 5), (4, 6), (2, 2)])]
    read = [one + np.float32(0.1 * i) for i, one in enumerate(clean)]
    found = compare(read, clean, task=Dense())
    np.testing.assert_allclose(found.divergence, [0, 0.1, 0.2, 0.3], atol=1e-6)
    alone = compare(read[1][None], clean[1][None], task=Dense())
    assert found.agrees[1] == alone.agrees[0]
    with pytest.raises(ValueError, match=r"picture 1 is \(1, 2, 2\), and that for its original \(1, 5, 5\)"):
        compare([read[0], read[3], read[2], read[1]], clean, task=Dense())
    same = compare(np.stack([read[0], read[2]]), [clean[0], clean[2]], task=Dense())
    np.testing.assert_allclose(same.divergence, [0, 0.2], atol=1e-6)


class Wrong(Task):
    name = "mine"

    def __init__(self, distance: Any, agrees: Any = lambda read, clean: torch.ones(len(read))) -> None:
        self.distance, self.agrees = distance, agrees  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Wrong(lambda a, b: torch.full((len(a),), torch.nan)), "distance of the task mine returns NaN"),
        (
            Wrong(lambda a, b: (a - b).square()),
            r"returns \(2, 9\), expected one number a picture",
        ),
        (Wrong(lambda a, b: (a - b).mean(1)), "distance of the task mine returns -.*, expected at least 0"),
        (Wrong(lambda a, b: 1 + (a - b).abs().mean(1)), "is 1 for equal outputs, expected 0"),
        (Wrong(lambda a, b: 0.0), "distance of the task mine returns .*float.*, expected one number"),
        (
            Wrong(lambda a, b: (a - b).abs().mean(1), lambda a, b: 2 * torch.ones(len(a))),
            r"agrees of the task mine returns \[2.0, 2.0\], expected 0..1",
        ),
    ],
)
def test_a_wrong_task_is_refused(task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        try_task(task, made(2, 9))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("segmentation", "no task is named 'segmentation', expected classification, embedding, dense"),
        ("{}/mine.py:Nothing", "mine.py:Nothing cannot be made: AttributeError"),
        ("{}/mine.py:Other", "mine.py:Other is Other, expected a dnnjpeg.networks.task.Task"),
        ("{}/mine.py", "no task is named"),
    ],
)
def test_wrong_names_of_tasks(spec: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Other:\n    pass\n")
    with pytest.raises(ValueError, match=message):
        load_task(spec.format(tmp_path))
    with pytest.raises(FileNotFoundError):
        load_task(f"{tmp_path}/nowhere.py:Mine")


def test_a_changed_file_is_another_task(tmp_path: Path) -> None:
    text = "from dnnjpeg.networks.task import Task\nclass Mine(Task):\n    pass\n"
    (tmp_path / "mine.py").write_text(text)
    before = load_task(f"{tmp_path}/mine.py:Mine")
    assert before.name == "Mine" and before.identity == load_task(f"{tmp_path}/mine.py:Mine").identity
    (tmp_path / "mine.py").write_text(text + "# changed\n")
    assert before.identity != load_task(f"{tmp_path}/mine.py:Mine").identity
